-- Our own invoices: who gets them, when, and what they are numbered.

-- name: terms_of
SELECT starts_on, ends_on, net_days, billed_to::text, next_month, due_at FROM billing_terms WHERE org_id = $1

-- name: save_terms
INSERT INTO billing_terms (
    org_id, starts_on, ends_on, net_days, billed_to, next_month, due_at, set_by, set_at
)
VALUES ($1, $2, $3, $4, $5::text::jsonb, $6, $7, $8, $9)
ON CONFLICT (org_id) DO UPDATE SET
    starts_on = excluded.starts_on, ends_on = excluded.ends_on, net_days = excluded.net_days,
    billed_to = excluded.billed_to, next_month = excluded.next_month, due_at = excluded.due_at,
    set_by = excluded.set_by, set_at = excluded.set_at

-- name: go_on
-- To the next month, or to none if the terms have ended.
UPDATE billing_terms SET next_month = $2, due_at = $3 WHERE org_id = $1

-- name: bill_once_more
UPDATE billing_terms SET due_at = $2 WHERE org_id = $1 AND due_at IS NULL

-- name: due_terms
SELECT org_id FROM billing_terms WHERE due_at <= $1 ORDER BY due_at, org_id LIMIT $2

-- name: next_number
INSERT INTO invoice_numbers AS n (year, last) VALUES ($1, 1)
ON CONFLICT (year) DO UPDATE SET last = n.last + 1
RETURNING last
