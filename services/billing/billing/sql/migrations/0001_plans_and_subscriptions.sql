-- Plans, by version. The events are in the chassis' store; these rows can be made again from them.
CREATE TABLE subscription_plans (
    plan text COLLATE "C" NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    name text NOT NULL,
    rank integer NOT NULL,
    price_usd_per_month numeric NOT NULL CHECK (price_usd_per_month >= 0),
    seats bigint CHECK (seats >= 0),
    features jsonb NOT NULL,
    limits jsonb NOT NULL,
    trial_days integer NOT NULL,
    listed boolean NOT NULL,
    is_default boolean NOT NULL,
    source text NOT NULL CHECK (source IN ('catalog', 'operator')),
    published_at timestamptz NOT NULL,
    PRIMARY KEY (plan, version)
);
COMMENT ON COLUMN subscription_plans.seats IS 'null: unlimited';

-- One row per organization: what follows from the events of its stream `subscription`.
CREATE TABLE subscriptions (
    org_id text COLLATE "C" PRIMARY KEY,
    plan text COLLATE "C" NOT NULL,
    plan_version integer NOT NULL,
    status text NOT NULL CHECK (status IN ('active', 'trialing', 'comped', 'canceling')),
    trial_ends_at timestamptz,
    comp_until timestamptz,
    pending_plan text COLLATE "C",
    pending_version integer,
    pending_at timestamptz,
    due_at timestamptz,
    revision integer NOT NULL
);
CREATE INDEX subscriptions_due_at ON subscriptions (due_at) WHERE due_at IS NOT NULL;
COMMENT ON COLUMN subscriptions.due_at IS 'when a trial, a comp or the period ends and something follows by itself';
COMMENT ON COLUMN subscriptions.pending_plan IS 'what follows at pending_at; null there: the default plan, after a cancellation';

-- The second seed's name for it. The billing period is the calendar month in UTC: it needs no row to begin anew.
CREATE VIEW user_subscriptions AS
SELECT org_id, plan, plan_version, status, trial_ends_at, comp_until, pending_plan, pending_version, pending_at,
       date_trunc('month', now(), 'UTC') AS current_period_start,
       date_trunc('month', now(), 'UTC') + interval '1 month' AS current_period_end
FROM subscriptions;

-- Who belongs where, as auth says. A row outlives the membership, so that what comes late can be told from what is new.
CREATE TABLE organization_members (
    org_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    is_member boolean NOT NULL,
    changed_at timestamptz NOT NULL,
    changed_by text COLLATE "C" NOT NULL,
    PRIMARY KEY (org_id, user_id)
);
CREATE INDEX organization_members_user_id ON organization_members (user_id, org_id) WHERE is_member;
COMMENT ON COLUMN organization_members.changed_by IS 'id of the event; of two at the same moment the later id counts';
