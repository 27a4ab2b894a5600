-- Months that are closed, and limits beyond which usage is charged rather than refused.

-- What was said of an organization's month, once per sequence: what billing charges by. Never changed.
CREATE TABLE closed_periods (
    org_id text COLLATE "C" NOT NULL,
    month text COLLATE "C" NOT NULL CHECK (month ~ '^\d{4}-\d{2}$'),
    sequence integer NOT NULL CHECK (sequence >= 1),
    closed_at timestamptz NOT NULL,
    totals jsonb NOT NULL,
    events bigint NOT NULL CHECK (events > 0),
    unpriced_events bigint NOT NULL,
    digest text NOT NULL,
    PRIMARY KEY (org_id, month, sequence)
);
COMMENT ON COLUMN closed_periods.totals IS 'by meter, decimals in text; what is absent was not used';
COMMENT ON COLUMN closed_periods.digest IS 'of the events behind the totals: docs/decisions/0018';
CREATE TRIGGER closed_periods_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON closed_periods
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The months up to the latest one in here are being closed, or are: usage that comes for them from now on is late.
-- `listed_at`: since when all of their organizations are in `periods_to_close`, or were closed.
CREATE TABLE closing_months (
    month text COLLATE "C" PRIMARY KEY CHECK (month ~ '^\d{4}-\d{2}$'),
    begun_at timestamptz NOT NULL,
    listed_at timestamptz
);

-- Which organizations' months are to be closed, or closed again. `noted` grows with every transaction that records late
-- usage of it: whoever closes takes away only what was not noted anew since.
CREATE TABLE periods_to_close (
    org_id text COLLATE "C" NOT NULL,
    month text COLLATE "C" NOT NULL,
    noted bigint NOT NULL,
    PRIMARY KEY (org_id, month)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);

ALTER TABLE entitlement_limits ADD COLUMN overage_price_usd numeric CHECK (overage_price_usd >= 0),
    ADD COLUMN overage_per numeric CHECK (overage_per > 0),
    ADD CONSTRAINT entitlement_limits_overage CHECK ((overage_price_usd IS NULL) = (overage_per IS NULL));
COMMENT ON COLUMN entitlement_limits.overage_price_usd IS 'of each overage_per beyond the amount, which then refuses nobody';
