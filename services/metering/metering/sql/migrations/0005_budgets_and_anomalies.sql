-- What organizations mean to spend, and days that are not like the others.

-- user_id '': everybody together. An amount holds from the month in which it was set: earlier months had another one.
CREATE TABLE budgets (
    org_id text COLLATE "C" NOT NULL,
    budget_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    amount_usd numeric NOT NULL CHECK (amount_usd >= 0),
    from_month text COLLATE "C" NOT NULL CHECK (from_month ~ '^\d{4}-\d{2}$'),
    PRIMARY KEY (org_id, budget_id)
);
COMMENT ON COLUMN budgets.amount_usd IS '0: none, so that any spending exceeds it';

-- What was said already: `BudgetExceeded` once per budget, month and amount.
CREATE TABLE budgets_exceeded (
    org_id text COLLATE "C" NOT NULL,
    budget_id text COLLATE "C" NOT NULL,
    month text COLLATE "C" NOT NULL,
    amount_usd numeric NOT NULL,
    PRIMARY KEY (org_id, budget_id, month, amount_usd)
);

-- What is spent in a month, by an organization or ('' for everybody) one of its people. Summed from the projections: no
-- second count of it can go wrong. Null: nothing was recorded.
CREATE FUNCTION spent_usd(spent_by text, spent_by_user text, spent_in text) RETURNS numeric
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE spent_by_user
    WHEN '' THEN (SELECT total_cost FROM usage_monthly WHERE org_id = spent_by AND month = spent_in)
    ELSE (
        SELECT sum(cost_usd) FROM usage_daily
        WHERE org_id = spent_by AND user_id = spent_by_user AND day >= (spent_in || '-01')::date
            AND day < ((spent_in || '-01')::date + interval '1 month')::date
    )
END;

-- What was said already: `UsageAnomalySeen` once per organization, day and meter.
CREATE TABLE usage_anomalies (
    org_id text COLLATE "C" NOT NULL,
    day date NOT NULL,
    meter text COLLATE "C" NOT NULL,
    PRIMARY KEY (org_id, day, meter)
);

-- One row: when somebody last looked for anomalies. Who looks holds it.
CREATE TABLE anomaly_looks (
    looked_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX anomaly_looks_one ON anomaly_looks ((true));
INSERT INTO anomaly_looks (looked_at) VALUES ('epoch');
