-- What Stripe says of an organization, and where its dunning stands.

-- name: customers_of
SELECT customer_id, deleted_at FROM stripe_customers WHERE org_id = $1 ORDER BY linked_at

-- name: organization_of_customer
SELECT org_id FROM stripe_customers WHERE customer_id = $1

-- name: live_customer_of
SELECT customer_id FROM stripe_customers WHERE org_id = $1 AND deleted_at IS NULL

-- name: link_customer
-- Of two customers of one organization the first stays; one that is somebody else's stays theirs.
INSERT INTO stripe_customers (org_id, customer_id, linked_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING

-- name: customer_deleted
UPDATE stripe_customers SET deleted_at = coalesce(deleted_at, $2) WHERE customer_id = $1

-- name: is_subscribed
SELECT EXISTS (SELECT FROM subscriptions WHERE org_id = $1)

-- name: paid_by
SELECT payment_reference FROM subscriptions WHERE org_id = $1

-- name: save_stripe_subscription
INSERT INTO stripe_subscriptions (
    org_id, subscription_id, customer_id, status, created_at, price_id, plan, current_period_start, current_period_end,
    cancel_at, ended_at, kept_plan, kept_until, reflected_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
ON CONFLICT (org_id, subscription_id) DO UPDATE SET
    status = excluded.status, price_id = excluded.price_id, plan = excluded.plan,
    current_period_start = excluded.current_period_start, current_period_end = excluded.current_period_end,
    cancel_at = excluded.cancel_at, ended_at = excluded.ended_at, kept_plan = excluded.kept_plan,
    kept_until = excluded.kept_until, reflected_at = excluded.reflected_at

-- name: stripe_subscriptions_of
SELECT subscription_id, customer_id, status, created_at, price_id, plan, current_period_start, current_period_end,
       cancel_at, ended_at, kept_plan, kept_until
FROM stripe_subscriptions WHERE org_id = $1 ORDER BY created_at, subscription_id

-- name: invoice_states
-- How far the mirror has come, of these invoices.
SELECT invoice_id, status FROM invoices WHERE org_id = $1 AND invoice_id = ANY ($2::text[])

-- name: forget_draft
-- A draft that was deleted was never an invoice.
DELETE FROM invoices WHERE org_id = $1 AND invoice_id = $2 AND status = 'draft'

-- name: forget_draft_lines
DELETE FROM invoice_lines AS l WHERE org_id = $1 AND invoice_id = $2
AND NOT EXISTS (SELECT FROM invoices AS i WHERE i.org_id = l.org_id AND i.invoice_id = l.invoice_id)

-- name: save_dunning
INSERT INTO dunning (org_id, invoice_id, attempt, started_at, ends_at, expired_at, due_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (org_id) DO UPDATE SET
    invoice_id = excluded.invoice_id, attempt = excluded.attempt, started_at = excluded.started_at,
    ends_at = excluded.ends_at, expired_at = excluded.expired_at, due_at = excluded.due_at

-- name: dunning_of
SELECT invoice_id, attempt, started_at, ends_at, expired_at FROM dunning WHERE org_id = $1

-- name: dunning_due
-- Organizations that something of their dunning is due for: a reminder, the end, or an invoice of ours that nobody paid.
SELECT org_id FROM dunning WHERE due_at <= $1
UNION
SELECT org_id FROM invoices AS i
WHERE status = 'open' AND due_at <= $1 AND collected_by = 'operator'
  AND NOT EXISTS (SELECT FROM dunning AS d WHERE d.org_id = i.org_id AND d.invoice_id IS NOT NULL)
ORDER BY org_id LIMIT $2

-- name: paying_subscriptions
-- The live ones of the mirror, to compare with Stripe's.
SELECT org_id, subscription_id, status, price_id, cancel_at FROM stripe_subscriptions
WHERE status IN ('active', 'trialing', 'past_due', 'unpaid')
