-- What usage beyond a plan costs.

-- name: hold
-- Until the transaction ends nobody else charges, credits or bills this organization.
SELECT pg_advisory_xact_lock(hashtextextended('owed/' || $1::text, 0))

-- name: history
SELECT type, data::text, occurred_at FROM events WHERE org_id = $1 AND stream = $2 ORDER BY version

-- name: charged_periods
SELECT sequence, plan, plan_version, reason FROM charged_periods WHERE org_id = $1 AND month = $2 ORDER BY sequence

-- name: charged_so_far
SELECT meter, sum(amount_usd) AS amount FROM usage_charges WHERE org_id = $1 AND month = $2 GROUP BY meter

-- name: save_charged_period
INSERT INTO charged_periods (
    org_id, month, sequence, period_event_id, plan, plan_version, collected_by, reason, charged_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: save_charge
INSERT INTO usage_charges (
    org_id, charge_id, month, sequence, plan, plan_version, meter, used, included, charged_quantity, price_usd, per,
    exact_usd, charged_before_usd, amount_usd, usage_events, usage_digest, period_event_id, drawn_up_at, collected_by
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)

-- name: stripe_customer
-- Who pays through Stripe: the customer of this subscription ($2), else of one that lives, else the one that is known.
SELECT customer_id
FROM (
    SELECT customer_id, CASE WHEN subscription_id = $2 THEN 0 WHEN ended_at IS NULL THEN 1 ELSE 3 END AS place
    FROM stripe_subscriptions WHERE org_id = $1
    UNION ALL
    SELECT customer_id, 2 FROM stripe_customers WHERE org_id = $1 AND deleted_at IS NULL
) AS known
ORDER BY place, customer_id LIMIT 1

-- name: has_live_subscription
SELECT EXISTS (
    SELECT FROM stripe_subscriptions
    WHERE org_id = $1 AND status IN ('active', 'trialing', 'past_due', 'unpaid')
)

-- name: waiting_at_stripe
-- Whether a line that Stripe was given, or is to be given, is on no invoice yet.
SELECT EXISTS (
    SELECT FROM usage_charges WHERE org_id = $1 AND collected_by = 'stripe' AND invoice_id IS NULL
)

-- name: waiting_charges
-- What waits for our own next invoice.
SELECT c.charge_id, c.month, c.sequence, c.meter, c.plan, c.plan_version, c.used, c.included, c.charged_quantity,
       c.price_usd, c.per, c.exact_usd, c.charged_before_usd, c.amount_usd
FROM usage_charges AS c
WHERE c.org_id = $1 AND c.collected_by = 'operator' AND c.invoice_id IS NULL
ORDER BY c.month, c.sequence, c.meter

-- name: charges_of_invoice
SELECT charge_id, month, sequence, meter, plan, plan_version, used, included, charged_quantity, price_usd, per,
       exact_usd, charged_before_usd, amount_usd, usage_events, usage_digest, period_event_id
FROM usage_charges WHERE org_id = $1 AND charge_id = ANY ($2::text[])

-- name: charges_page
-- The latest months first.
SELECT p.month, p.sequence, p.plan, p.plan_version, p.collected_by, p.reason, p.charged_at, p.period_event_id
FROM charged_periods AS p
WHERE p.org_id = $1 AND ($2::text IS NULL OR p.month = $2)
ORDER BY p.month DESC, p.sequence DESC LIMIT $3

-- name: charges_of_months
SELECT charge_id, month, sequence, meter, plan, plan_version, used, included, charged_quantity, price_usd, per,
       exact_usd, charged_before_usd, amount_usd, usage_events, usage_digest, period_event_id, invoice_id
FROM usage_charges WHERE org_id = $1 AND month = ANY ($2::text[]) ORDER BY month DESC, sequence DESC, meter
