-- What organizations may do, as billing says; what they have used of it, folded from usage; what they hold of it.

-- The versions of plans, for telling somebody at a limit which plan has more.
CREATE TABLE plans (
    plan text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    name text NOT NULL,
    rank integer NOT NULL,
    price_usd_per_month numeric NOT NULL,
    listed boolean NOT NULL,
    limits jsonb NOT NULL,
    PRIMARY KEY (plan, version)
);

-- One row per organization. Who decides on its reservations holds this row: it is the organization's gate.
CREATE TABLE entitlements (
    org_id text COLLATE "C" PRIMARY KEY,
    revision integer NOT NULL,
    plan text COLLATE "C" NOT NULL,
    plan_version integer NOT NULL,
    plan_name text NOT NULL,
    features jsonb NOT NULL,
    seats integer,
    changed_at timestamptz NOT NULL
);

CREATE TABLE entitlement_limits (
    org_id text COLLATE "C" NOT NULL,
    meter text COLLATE "C" NOT NULL,
    per text COLLATE "C" NOT NULL CHECK (per IN ('organization', 'user')),
    amount numeric CHECK (amount >= 0),
    place integer NOT NULL,
    aggregation text COLLATE "C" NOT NULL CHECK (aggregation IN ('sum', 'count', 'unique_users', 'max')),
    quantity text COLLATE "C",
    event_type text COLLATE "C",
    providers text[] COLLATE "C",
    PRIMARY KEY (org_id, meter, per)
);
COMMENT ON COLUMN entitlement_limits.amount IS 'null: unlimited; 0: none';
COMMENT ON COLUMN entitlement_limits.place IS 'in the order of the plan';

-- What is used of each limit: a projection, kept for the month before the current one and later. user_id '': everybody.
CREATE TABLE limit_usage (
    org_id text COLLATE "C" NOT NULL,
    month text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    meter text COLLATE "C" NOT NULL,
    used numeric NOT NULL,
    reached_percent smallint NOT NULL DEFAULT 0,
    PRIMARY KEY (org_id, month, user_id, meter)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON COLUMN limit_usage.reached_percent IS 'the highest threshold that LimitReached was raised for: 0, 80, 90 or 100';

-- Whom a meter of unique users has counted.
CREATE TABLE limit_users (
    org_id text COLLATE "C" NOT NULL,
    month text COLLATE "C" NOT NULL,
    meter text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (org_id, month, meter, user_id)
);

-- The sums of what open reservations hold. Changed only by whoever holds the organization's gate.
CREATE TABLE limit_holds (
    org_id text COLLATE "C" NOT NULL,
    month text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    meter text COLLATE "C" NOT NULL,
    held numeric NOT NULL CHECK (held >= 0),
    PRIMARY KEY (org_id, month, user_id, meter)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE reservations (
    org_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    idempotency_key text COLLATE "C",
    digest bytea,
    state text COLLATE "C" NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'settled', 'released', 'expired')),
    user_id text COLLATE "C",
    month text COLLATE "C" NOT NULL,
    operations jsonb NOT NULL,
    holds jsonb NOT NULL,
    reserved_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at timestamptz,
    settled_by text,
    PRIMARY KEY (org_id, id),
    CHECK ((state = 'open') = (ended_at IS NULL))
) WITH (fillfactor = 80);
COMMENT ON COLUMN reservations.operations IS 'as they were asked for, so that a new plan can hold them to other limits';
COMMENT ON COLUMN reservations.holds IS 'what limit_holds has of it: [{"meter", "user_id", "amount"}]';
CREATE UNIQUE INDEX reservations_idempotency_key ON reservations (org_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX reservations_open ON reservations (org_id, expires_at) WHERE state = 'open';
CREATE INDEX reservations_due ON reservations (expires_at) WHERE state = 'open';
CREATE INDEX reservations_ended ON reservations (ended_at) WHERE state <> 'open';

-- What a `sum` or `max` meter looks at, in an event as in a day's sums.
CREATE FUNCTION quantity_of(
    quantity text, debates numeric, api_calls numeric, tokens_in numeric, tokens_out numeric, requests numeric,
    images numeric, searches numeric, pages numeric, seconds numeric, cost_usd numeric
) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE quantity
    WHEN 'debates' THEN debates
    WHEN 'api_calls' THEN api_calls
    WHEN 'tokens' THEN tokens_in + tokens_out
    WHEN 'tokens_in' THEN tokens_in
    WHEN 'tokens_out' THEN tokens_out
    WHEN 'requests' THEN requests
    WHEN 'images' THEN images
    WHEN 'searches' THEN searches
    WHEN 'pages' THEN pages
    WHEN 'seconds' THEN seconds
    WHEN 'cost_usd' THEN cost_usd
END;

-- The highest threshold that is reached: 80, 90, 100 percent of the limit, or 0. Of a limit of 0, any use reaches all.
CREATE FUNCTION reached_percent(used numeric, amount numeric) RETURNS smallint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN used <= 0 THEN 0
    WHEN used >= amount THEN 100
    WHEN used * 10 >= amount * 9 THEN 90
    WHEN used * 10 >= amount * 8 THEN 80
    ELSE 0
END;
