-- The ledger of what is in an organization's favour, and coupons.

-- name: add_entry
INSERT INTO ledger_entries (
    org_id, entry_id, kind, amount, currency, invoice_id, coupon, reason, recorded_by, recorded_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (org_id, entry_id) DO NOTHING
RETURNING true

-- name: entry
SELECT entry_id, kind, amount, currency, invoice_id, coupon, reason, recorded_by, recorded_at
FROM ledger_entries WHERE org_id = $1 AND entry_id = $2

-- name: balance
SELECT coalesce(sum(amount), 0) FROM ledger_entries WHERE org_id = $1 AND kind NOT IN ('payment', 'refund')

-- name: being_moved
-- What Stripe was asked to take over, and has not answered for yet.
SELECT coalesce(sum((parameters ->> 'amount_usd')::numeric), 0) FROM stripe_intents
WHERE org_id = $1 AND kind = $2 AND state = 'pending'

-- name: entries_page
-- The newest first, before a moment and id.
SELECT entry_id, kind, amount, currency, invoice_id, coupon, reason, recorded_by, recorded_at
FROM ledger_entries
WHERE org_id = $1 AND ($2::timestamptz IS NULL OR (recorded_at, entry_id) < ($2, $3::text))
ORDER BY recorded_at DESC, entry_id DESC LIMIT $4

-- name: paying_customer
-- The customer at Stripe of an organization that pays there.
SELECT c.customer_id FROM stripe_customers AS c JOIN subscriptions AS s ON s.org_id = c.org_id
WHERE c.org_id = $1 AND c.deleted_at IS NULL AND s.payment_reference IS NOT NULL

-- name: create_coupon
INSERT INTO coupons (code, amount, currency, max_redemptions, redeem_by, created_at, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (code) DO NOTHING
RETURNING true

-- name: coupons
SELECT c.code, c.amount AS amount_usd, c.max_redemptions, c.redeem_by, c.created_at,
       (SELECT count(*) FROM coupon_redemptions AS r WHERE r.code = c.code) AS redemptions
FROM coupons AS c ORDER BY c.created_at DESC, c.code LIMIT $1

-- name: coupon
SELECT c.code, c.amount AS amount_usd, c.max_redemptions, c.redeem_by, c.created_at,
       (SELECT count(*) FROM coupon_redemptions AS r WHERE r.code = c.code) AS redemptions
FROM coupons AS c WHERE c.code = $1

-- name: hold_coupon
-- One redemption after the other, so that the last one is the last.
SELECT code, amount, currency, max_redemptions, redeem_by FROM coupons WHERE code = $1 FOR UPDATE

-- name: redemptions_of
SELECT count(*) FROM coupon_redemptions WHERE code = $1

-- name: redeem
INSERT INTO coupon_redemptions (org_id, code, entry_id, redeemed_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (org_id, code) DO NOTHING
RETURNING true

-- name: history_page
-- What was billed and paid, the newest first, before a moment and id.
SELECT id, kind, occurred_at, amount, currency, invoice_id, status, description
FROM billing_history
WHERE org_id = $1 AND ($2::timestamptz IS NULL OR (occurred_at, id) < ($2, $3::text))
ORDER BY occurred_at DESC, id DESC LIMIT $4
