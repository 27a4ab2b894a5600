-- The usage log, and the projections folded from it in the same transaction.

-- A log month is the month in which events were *recorded*. An event that comes twice, however late and whatever its
-- timestamp says the second time, meets its first copy in the current log month or in one closed in the last 35 days.
-- Months are opened in order, by a transaction that waits until nobody writes to the one before.
CREATE TABLE usage_log_months (
    log_month date PRIMARY KEY CHECK (extract(day FROM log_month) = 1),
    opened_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE usage_events (
    org_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    log_month date NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    occurred_at timestamptz NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    user_id text COLLATE "C",
    provider text COLLATE "C",
    model text COLLATE "C",
    tokens_in bigint NOT NULL DEFAULT 0,
    tokens_out bigint NOT NULL DEFAULT 0,
    tokens_cached bigint,
    tokens_cache_write bigint,
    tokens_reasoning bigint,
    tokens_audio_in bigint,
    tokens_audio_out bigint,
    requests bigint,
    searches bigint,
    images bigint,
    pages bigint,
    seconds numeric,
    cost_usd numeric,
    price_source text,
    unpriced_reason text,
    debates smallint NOT NULL DEFAULT 0,
    api_calls bigint NOT NULL DEFAULT 0,
    reservation_id text,
    endpoint text,
    method text,
    status smallint,
    response_time_ms bigint,
    metadata text,
    CONSTRAINT usage_events_counts CHECK (tokens_in >= 0 AND tokens_out >= 0 AND cost_usd >= 0)
) PARTITION BY LIST (log_month);
COMMENT ON COLUMN usage_events.cost_usd IS 'null: unpriced, no price was known';
COMMENT ON COLUMN usage_events.debates IS 'debates that this event counts as: the fold only adds up';
COMMENT ON COLUMN usage_events.api_calls IS 'API calls that this event counts as: the fold only adds up';

-- `refuse_change` is the chassis'. A mistake is corrected by another event.
CREATE TRIGGER usage_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON usage_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The partition's tables are made ahead of the month; ATTACH, unlike PARTITION OF, does not stop the writers.
CREATE FUNCTION make_usage_partition(month date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    name text := 'usage_events_' || to_char(month, 'YYYY_MM');
BEGIN
    IF to_regclass(name) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE usage_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
    EXECUTE format('ALTER TABLE %I ADD CONSTRAINT log_month_is CHECK (log_month = %L)', name, month);
    EXECUTE format('CREATE UNIQUE INDEX %I ON %I (org_id, id)', name || '_org_id_id', name);
    EXECUTE format('CREATE INDEX %I ON %I (org_id, occurred_at)', name || '_org_id_occurred_at', name);
    EXECUTE format('CREATE TRIGGER usage_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I
                    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name);
    EXECUTE format('ALTER TABLE usage_events ATTACH PARTITION %I FOR VALUES IN (%L)', name, month);
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT log_month_is', name);
    RETURN true;
END $$;

-- The finest grain: every question about who used what, when, is a sum over these rows. '' stands for "none".
-- Sums are numeric, so that no honest or hostile event can overflow them.
CREATE TABLE usage_daily (
    org_id text COLLATE "C" NOT NULL,
    day date NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    provider text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    events bigint NOT NULL,
    debates bigint NOT NULL,
    api_calls numeric NOT NULL,
    tokens_in numeric NOT NULL,
    tokens_out numeric NOT NULL,
    tokens_cached numeric NOT NULL,
    tokens_cache_write numeric NOT NULL,
    tokens_reasoning numeric NOT NULL,
    tokens_audio_in numeric NOT NULL,
    tokens_audio_out numeric NOT NULL,
    requests numeric NOT NULL,
    searches numeric NOT NULL,
    images numeric NOT NULL,
    pages numeric NOT NULL,
    seconds numeric NOT NULL,
    cost_usd numeric NOT NULL,
    unpriced_events bigint NOT NULL,
    failed_events bigint NOT NULL,
    timed_events bigint NOT NULL,
    response_time_ms numeric NOT NULL,
    PRIMARY KEY (org_id, day, user_id, event_type, provider, model)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);
-- "Which organization is this person's?", asked by the operator's programs that know only the user.
CREATE INDEX usage_daily_user_id ON usage_daily (user_id, org_id);

CREATE TABLE usage_monthly (
    org_id text COLLATE "C" NOT NULL,
    month text COLLATE "C" NOT NULL CHECK (month ~ '^\d{4}-\d{2}$'),
    debates bigint NOT NULL DEFAULT 0,
    api_calls numeric NOT NULL DEFAULT 0,
    total_tokens numeric NOT NULL DEFAULT 0,
    total_cost numeric NOT NULL DEFAULT 0,
    events bigint NOT NULL DEFAULT 0,
    unpriced_events bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (org_id, month)
) WITH (fillfactor = 60);

-- What was already said about usage without a price: once per organization, month, provider and model.
CREATE TABLE unpriced_usage (
    org_id text COLLATE "C" NOT NULL,
    month text COLLATE "C" NOT NULL,
    provider text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    reason text NOT NULL,
    first_event_id text NOT NULL,
    PRIMARY KEY (org_id, month, provider, model)
);

-- The prices in force, as the price book states them (per 1M tokens, per request, ...); written by `metering migrate`, read by people and reports.
CREATE TABLE api_provider_pricing (
    provider text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    valid_from timestamptz NOT NULL,
    unit text COLLATE "C" NOT NULL,
    usd_per_unit numeric NOT NULL CHECK (usd_per_unit >= 0),
    source text NOT NULL,
    PRIMARY KEY (provider, model, valid_from, unit)
);

-- The second seed's names for the log and for a person's month.
CREATE VIEW api_usage_logs AS
SELECT id, org_id, user_id, provider, endpoint, method, model AS model_used, tokens_in AS tokens_input,
       tokens_out AS tokens_output, tokens_in + tokens_out AS tokens_total, cost_usd AS cost_total,
       response_time_ms, status AS status_code, occurred_at AS timestamp, to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM') AS billing_period
FROM usage_events;

CREATE VIEW usage_summaries AS
SELECT org_id, user_id, to_char(day, 'YYYY-MM') AS billing_period, sum(api_calls) AS total_calls,
       sum(tokens_in + tokens_out) AS total_tokens, sum(cost_usd) AS total_cost, sum(unpriced_events) AS unpriced_events
FROM usage_daily
GROUP BY org_id, user_id, to_char(day, 'YYYY-MM');
