-- Invoices and their lines.

-- name: save_invoice
-- What was refunded is noted by itself.
INSERT INTO invoices (
    org_id, invoice_id, collected_by, number, status, currency, subtotal, total, credited, amount_due, amount_paid,
    attempts, next_attempt_at, period_start, period_end, created_at, finalized_at, due_at, paid_at, subscription_id,
    payment_intent_id, hosted_url, pdf_url, billed_to
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
        $24::text::jsonb)
ON CONFLICT (org_id, invoice_id) DO UPDATE SET
    number = excluded.number, status = excluded.status, currency = excluded.currency, subtotal = excluded.subtotal,
    total = excluded.total, credited = excluded.credited, amount_due = excluded.amount_due,
    amount_paid = excluded.amount_paid, attempts = excluded.attempts, next_attempt_at = excluded.next_attempt_at,
    period_start = excluded.period_start, period_end = excluded.period_end, finalized_at = excluded.finalized_at,
    due_at = excluded.due_at, paid_at = excluded.paid_at, subscription_id = excluded.subscription_id,
    payment_intent_id = excluded.payment_intent_id, hosted_url = excluded.hosted_url, pdf_url = excluded.pdf_url,
    billed_to = coalesce(excluded.billed_to, invoices.billed_to)

-- name: drop_lines
-- Those that the invoice no longer has.
DELETE FROM invoice_lines WHERE org_id = $1 AND invoice_id = $2 AND line_id <> ALL ($3::text[])

-- name: save_line
INSERT INTO invoice_lines (
    org_id, invoice_id, place, line_id, rule, description, amount, quantity, unit_amount, period_start, period_end,
    plan, plan_version, price_id, charge_id
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
ON CONFLICT (org_id, invoice_id, line_id) DO UPDATE SET
    place = excluded.place, rule = excluded.rule, description = excluded.description, amount = excluded.amount,
    quantity = excluded.quantity, unit_amount = excluded.unit_amount, period_start = excluded.period_start,
    period_end = excluded.period_end, plan = excluded.plan, plan_version = coalesce(invoice_lines.plan_version, excluded.plan_version),
    price_id = excluded.price_id, charge_id = excluded.charge_id

-- name: bind_charges
-- The charges for usage that these lines are for are on this invoice.
UPDATE usage_charges SET invoice_id = $2
WHERE org_id = $1 AND charge_id = ANY ($3::text[]) AND invoice_id IS DISTINCT FROM $2

-- name: release_charges
-- What one of our own invoices was to charge waits for the next one.
UPDATE usage_charges SET invoice_id = NULL WHERE org_id = $1 AND invoice_id = $2 AND collected_by = 'operator'

-- name: note_refund
UPDATE invoices SET amount_refunded = greatest(amount_refunded, $3) WHERE org_id = $1 AND invoice_id = $2
RETURNING currency

-- name: invoice
SELECT org_id, invoice_id, collected_by, number, status, currency, subtotal, total, credited, amount_due, amount_paid,
       amount_refunded, attempts, next_attempt_at, period_start, period_end, created_at, finalized_at, due_at, paid_at,
       subscription_id, payment_intent_id, hosted_url, pdf_url, billed_to::text
FROM invoices WHERE org_id = $1 AND invoice_id = $2

-- name: lines_of
SELECT line_id, rule, description, amount, quantity, unit_amount, period_start, period_end, plan, plan_version,
       price_id, charge_id
FROM invoice_lines WHERE org_id = $1 AND invoice_id = $2 ORDER BY place, line_id

-- name: invoices_page
-- The newest first, before a moment and id.
SELECT org_id, invoice_id, collected_by, number, status, currency, subtotal, total, credited, amount_due, amount_paid,
       amount_refunded, attempts, next_attempt_at, period_start, period_end, created_at, finalized_at, due_at, paid_at,
       subscription_id, payment_intent_id, hosted_url, pdf_url, billed_to::text
FROM invoices
WHERE org_id = $1 AND ($2::timestamptz IS NULL OR (created_at, invoice_id) < ($2, $3::text))
ORDER BY created_at DESC, invoice_id DESC LIMIT $4

-- name: invoice_of_payment
SELECT invoice_id FROM invoices WHERE payment_intent_id = $2 AND org_id = $1

-- name: open_invoices
-- What somebody still has to pay, the oldest debt first: Stripe's since it was finalized, ours since it was due.
SELECT invoice_id, collected_by, currency, amount_due - amount_paid AS amount, attempts, subscription_id,
       CASE collected_by WHEN 'stripe' THEN finalized_at ELSE due_at END AS since
FROM invoices
WHERE org_id = $1 AND status = 'open' AND amount_due > amount_paid
ORDER BY since, invoice_id

-- name: own_among
SELECT invoice_id FROM invoices WHERE org_id = $1 AND invoice_id = ANY ($2::text[]) AND collected_by = 'operator'
