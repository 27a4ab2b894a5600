-- Payments: what Stripe says, what was asked of it, invoices, what usage beyond a plan costs, credits.

ALTER TABLE subscriptions ADD COLUMN payment_reference text;
COMMENT ON COLUMN subscriptions.payment_reference IS 'Stripe''s subscription that pays for the plan; null: nobody does';

-- Who an organization is at Stripe. A customer that was deleted there stays here, so that what comes late is understood.
CREATE TABLE stripe_customers (
    org_id text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    linked_at timestamptz NOT NULL,
    deleted_at timestamptz,
    PRIMARY KEY (org_id, customer_id)
);
CREATE UNIQUE INDEX stripe_customers_customer_id ON stripe_customers (customer_id);
CREATE UNIQUE INDEX stripe_customers_live ON stripe_customers (org_id) WHERE deleted_at IS NULL;

-- The inbox of webhooks, each kept once by Stripe's id, without personal data. Whose it is is found out when it is handled.
CREATE TABLE stripe_events (
    event_id text COLLATE "C" PRIMARY KEY,
    type text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    object_id text COLLATE "C",
    customer_id text COLLATE "C",
    org_id text COLLATE "C",
    payload jsonb NOT NULL,
    state text COLLATE "C" NOT NULL CHECK (state IN ('pending', 'handled', 'ignored', 'unresolved')),
    reason text,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    handled_at timestamptz,
    attention_at timestamptz
);
CREATE INDEX stripe_events_pending ON stripe_events (next_attempt_at) WHERE state = 'pending';
CREATE INDEX stripe_events_unresolved ON stripe_events (customer_id) WHERE state = 'unresolved';
CREATE INDEX stripe_events_received_at ON stripe_events (received_at);
COMMENT ON COLUMN stripe_events.attention_at IS 'when an operator was told of it';

-- How far Stripe's own list of events was read, to find webhooks that were lost.
CREATE TABLE stripe_reading (
    name text COLLATE "C" PRIMARY KEY,
    read_until timestamptz NOT NULL
);

-- What is asked of Stripe: written before the call, under the id that is its idempotency key, and answered after it.
CREATE TABLE stripe_intents (
    org_id text COLLATE "C" NOT NULL,
    intent_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    once text COLLATE "C",
    parameters jsonb NOT NULL,
    state text COLLATE "C" NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'refused')),
    outcome jsonb,
    requested_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    finished_at timestamptz,
    PRIMARY KEY (org_id, intent_id),
    CHECK ((state = 'pending') = (finished_at IS NULL))
);
CREATE UNIQUE INDEX stripe_intents_once ON stripe_intents (org_id, once) WHERE once IS NOT NULL;
CREATE INDEX stripe_intents_pending ON stripe_intents (next_attempt_at) WHERE state = 'pending';
COMMENT ON COLUMN stripe_intents.once IS 'names what may be asked for only once per organization';

-- Checkouts that were opened. While one is open, another begins with ending it.
CREATE TABLE checkouts (
    org_id text COLLATE "C" NOT NULL,
    session_id text COLLATE "C" NOT NULL,
    plan text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL CHECK (status IN ('open', 'complete', 'expired')),
    opened_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, session_id)
);
CREATE INDEX checkouts_open ON checkouts (org_id) WHERE status = 'open';

-- Stripe's subscriptions, as Stripe said last.
CREATE TABLE stripe_subscriptions (
    org_id text COLLATE "C" NOT NULL,
    subscription_id text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    price_id text COLLATE "C",
    plan text COLLATE "C",
    current_period_start timestamptz,
    current_period_end timestamptz,
    cancel_at timestamptz,
    created_at timestamptz NOT NULL,
    ended_at timestamptz,
    kept_plan text COLLATE "C",
    kept_until timestamptz,
    reflected_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, subscription_id)
);
COMMENT ON COLUMN stripe_subscriptions.kept_plan IS 'stays in force until kept_until, although the next plan''s price is set';
COMMENT ON COLUMN stripe_subscriptions.plan IS 'null: the price is none that is known here, and nothing is granted for it';

-- Every invoice, Stripe's and our own. Amounts in the currency's main unit (dollars).
CREATE TABLE invoices (
    org_id text COLLATE "C" NOT NULL,
    invoice_id text COLLATE "C" NOT NULL,
    collected_by text COLLATE "C" NOT NULL CHECK (collected_by IN ('stripe', 'operator')),
    number text COLLATE "C",
    status text COLLATE "C" NOT NULL CHECK (status IN ('draft', 'open', 'paid', 'void', 'uncollectible')),
    currency text COLLATE "C" NOT NULL,
    subtotal numeric NOT NULL,
    total numeric NOT NULL,
    credited numeric NOT NULL DEFAULT 0,
    amount_due numeric NOT NULL,
    amount_paid numeric NOT NULL DEFAULT 0,
    amount_refunded numeric NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    period_start timestamptz,
    period_end timestamptz,
    created_at timestamptz NOT NULL,
    finalized_at timestamptz,
    due_at timestamptz,
    paid_at timestamptz,
    subscription_id text COLLATE "C",
    payment_intent_id text COLLATE "C",
    hosted_url text,
    pdf_url text,
    billed_to jsonb,
    PRIMARY KEY (org_id, invoice_id)
);
CREATE INDEX invoices_created_at ON invoices (org_id, created_at DESC);
CREATE INDEX invoices_payment_intent ON invoices (payment_intent_id) WHERE payment_intent_id IS NOT NULL;
CREATE INDEX invoices_overdue ON invoices (due_at) WHERE status = 'open' AND due_at IS NOT NULL;
CREATE UNIQUE INDEX invoices_number ON invoices (number) WHERE collected_by = 'operator' AND number IS NOT NULL;
COMMENT ON COLUMN invoices.credited IS 'what the balance took off the total';
COMMENT ON COLUMN invoices.billed_to IS 'name, address and tax id of the organization, as they were when it was finalized';

CREATE TABLE invoice_lines (
    org_id text COLLATE "C" NOT NULL,
    invoice_id text COLLATE "C" NOT NULL,
    line_id text COLLATE "C" NOT NULL,
    place integer NOT NULL,
    rule text COLLATE "C" NOT NULL CHECK (rule IN ('plan', 'proration', 'overage', 'credit', 'other')),
    description text NOT NULL,
    quantity numeric,
    unit_amount numeric,
    amount numeric NOT NULL,
    period_start timestamptz,
    period_end timestamptz,
    plan text COLLATE "C",
    plan_version integer,
    price_id text COLLATE "C",
    charge_id text COLLATE "C",
    PRIMARY KEY (org_id, invoice_id, line_id)
);

-- What usage beyond a plan costs: one row per line of an invoice, with everything that explains it.
CREATE TABLE usage_charges (
    org_id text COLLATE "C" NOT NULL,
    charge_id text COLLATE "C" NOT NULL,
    month text COLLATE "C" NOT NULL CHECK (month ~ '^\d{4}-\d{2}$'),
    sequence integer NOT NULL,
    meter text COLLATE "C" NOT NULL,
    plan text COLLATE "C" NOT NULL,
    plan_version integer NOT NULL,
    used numeric NOT NULL,
    included numeric NOT NULL,
    charged_quantity numeric NOT NULL,
    price_usd numeric NOT NULL,
    per numeric NOT NULL,
    exact_usd numeric NOT NULL,
    charged_before_usd numeric NOT NULL,
    amount_usd numeric NOT NULL,
    usage_events bigint NOT NULL,
    usage_digest text NOT NULL,
    period_event_id text NOT NULL,
    drawn_up_at timestamptz NOT NULL,
    collected_by text COLLATE "C" NOT NULL CHECK (collected_by IN ('stripe', 'operator')),
    invoice_id text COLLATE "C",
    PRIMARY KEY (org_id, charge_id)
);
CREATE UNIQUE INDEX usage_charges_once ON usage_charges (org_id, month, meter, sequence);
CREATE INDEX usage_charges_not_invoiced ON usage_charges (org_id) WHERE invoice_id IS NULL;
COMMENT ON COLUMN usage_charges.exact_usd IS 'of the whole month; amount_usd is this, rounded, without charged_before_usd';

-- The months of usage that were charged for, so that one said twice is charged once; and why one was not charged.
CREATE TABLE charged_periods (
    org_id text COLLATE "C" NOT NULL,
    month text COLLATE "C" NOT NULL,
    sequence integer NOT NULL,
    period_event_id text NOT NULL,
    plan text COLLATE "C",
    plan_version integer,
    collected_by text COLLATE "C" CHECK (collected_by IN ('stripe', 'operator')),
    reason text NOT NULL,
    charged_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, month, sequence)
);
COMMENT ON COLUMN charged_periods.plan IS 'by whose prices the month is charged, late usage too; null: by none';
COMMENT ON COLUMN charged_periods.reason IS 'in words: who pays, or why nobody does';

-- The ledger: what is in the organization's favour, and what was used of it. Only ever added to.
CREATE TABLE ledger_entries (
    org_id text COLLATE "C" NOT NULL,
    entry_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('credit', 'coupon', 'applied', 'returned', 'moved', 'payment', 'refund')),
    amount numeric NOT NULL,
    currency text COLLATE "C" NOT NULL,
    invoice_id text COLLATE "C",
    coupon text COLLATE "C",
    reason text NOT NULL,
    recorded_by text NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, entry_id)
);
CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
COMMENT ON COLUMN ledger_entries.amount IS 'positive: in the organization''s favour. payment and refund are no part of the balance';
COMMENT ON COLUMN ledger_entries.recorded_by IS 'the operator''s user id, or service:<name>';

CREATE TABLE coupons (
    code text COLLATE "C" PRIMARY KEY,
    amount numeric NOT NULL CHECK (amount > 0),
    currency text COLLATE "C" NOT NULL,
    max_redemptions integer CHECK (max_redemptions > 0),
    redeem_by timestamptz,
    created_at timestamptz NOT NULL,
    created_by text NOT NULL
);
CREATE TABLE coupon_redemptions (
    org_id text COLLATE "C" NOT NULL,
    code text COLLATE "C" NOT NULL REFERENCES coupons (code),
    entry_id text NOT NULL,
    redeemed_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, code)
);
CREATE INDEX coupon_redemptions_code ON coupon_redemptions (code);

-- Who is billed outside Stripe, and how.
CREATE TABLE billing_terms (
    org_id text COLLATE "C" PRIMARY KEY,
    starts_on date NOT NULL,
    ends_on date,
    net_days integer NOT NULL CHECK (net_days >= 0),
    billed_to jsonb NOT NULL,
    next_month text COLLATE "C" NOT NULL,
    due_at timestamptz,
    set_by text NOT NULL,
    set_at timestamptz NOT NULL
);
CREATE INDEX billing_terms_due_at ON billing_terms (due_at) WHERE due_at IS NOT NULL;
COMMENT ON COLUMN billing_terms.next_month IS 'YYYY-MM: the month that the next invoice is for; due_at is when it is drawn up';

-- The numbers of our own invoices: one after the other in every year, without a gap.
CREATE TABLE invoice_numbers (
    year integer PRIMARY KEY,
    last integer NOT NULL CHECK (last > 0)
);

-- Where a grace period stands: what follows from the events of the organization's stream `dunning`.
CREATE TABLE dunning (
    org_id text COLLATE "C" PRIMARY KEY,
    invoice_id text COLLATE "C",
    attempt integer NOT NULL,
    started_at timestamptz,
    ends_at timestamptz,
    expired_at timestamptz,
    due_at timestamptz
);
CREATE INDEX dunning_due_at ON dunning (due_at) WHERE due_at IS NOT NULL;

-- The second seed's name for what was billed and paid.
CREATE VIEW billing_history AS
SELECT org_id, invoice_id AS id, 'invoice' AS kind, coalesce(finalized_at, created_at) AS occurred_at, total AS amount,
       currency, invoice_id, status, coalesce(number, invoice_id) AS description
FROM invoices WHERE status <> 'draft'
UNION ALL
SELECT org_id, invoice_id || '/payment', 'payment', paid_at, amount_paid, currency, invoice_id, 'succeeded',
       coalesce(number, invoice_id)
FROM invoices WHERE paid_at IS NOT NULL AND amount_paid > 0 AND collected_by = 'stripe'
UNION ALL
SELECT org_id, invoice_id || '/refund', 'refund', paid_at, -amount_refunded, currency, invoice_id, 'succeeded',
       coalesce(number, invoice_id)
FROM invoices WHERE amount_refunded > 0 AND collected_by = 'stripe'
UNION ALL
SELECT org_id, entry_id, kind, recorded_at, amount, currency, invoice_id, 'succeeded', reason
FROM ledger_entries;
