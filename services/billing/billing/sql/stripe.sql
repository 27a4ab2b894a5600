-- What is asked of Stripe, and what Stripe says.

-- name: record_intent
INSERT INTO stripe_intents (org_id, intent_id, kind, once, parameters, requested_at, next_attempt_at)
VALUES ($1, $2, $3, $4, $5::text::jsonb, $6, $7)
ON CONFLICT (org_id, once) WHERE once IS NOT NULL DO NOTHING
RETURNING org_id, intent_id, kind, parameters::text, attempts, state, outcome::text

-- name: intent_once
SELECT org_id, intent_id, kind, parameters::text, attempts, state, outcome::text
FROM stripe_intents WHERE org_id = $1 AND once = $2

-- name: finish_intent
UPDATE stripe_intents SET state = $3, outcome = $4::text::jsonb, finished_at = $5
WHERE org_id = $1 AND intent_id = $2 AND state = 'pending'
RETURNING true

-- name: take_due_intents
-- Taken for a while, so that other workers leave them alone.
UPDATE stripe_intents AS i SET next_attempt_at = $2, attempts = i.attempts + 1
FROM (
    SELECT org_id, intent_id FROM stripe_intents
    WHERE state = 'pending' AND next_attempt_at <= $1
    ORDER BY next_attempt_at LIMIT $3 FOR UPDATE SKIP LOCKED
) AS due
WHERE i.org_id = due.org_id AND i.intent_id = due.intent_id
RETURNING i.org_id, i.intent_id, i.kind, i.parameters::text, i.attempts, i.state, i.outcome::text

-- name: put_off_intent
UPDATE stripe_intents SET next_attempt_at = $3 WHERE org_id = $1 AND intent_id = $2 AND state = 'pending'

-- name: keep_event
-- Once by its id, however often it comes.
INSERT INTO stripe_events (
    event_id, type, created_at, received_at, object_id, customer_id, payload, state, reason, next_attempt_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb, $8, $9, $4)
ON CONFLICT (event_id) DO NOTHING
RETURNING true

-- name: events_page
-- What was received, the newest first, for operators; of all states, or of one.
SELECT event_id, type, created_at, received_at, object_id, customer_id, org_id, state, reason, attempts,
       next_attempt_at, handled_at
FROM stripe_events
WHERE $1::text IS NULL OR state = $1
ORDER BY received_at DESC, event_id DESC LIMIT $2

-- name: retry_event
-- Those that something is still to follow from.
UPDATE stripe_events SET state = 'pending', reason = NULL, attempts = 0, next_attempt_at = $2
WHERE event_id = $1 AND state IN ('pending', 'unresolved')
RETURNING event_id, type, created_at, received_at, object_id, customer_id, org_id, state, reason, attempts,
          next_attempt_at, handled_at

-- name: event_state
SELECT state FROM stripe_events WHERE event_id = $1

-- name: intents_page
-- What was asked of Stripe, the newest first, for operators; of all states, or of one.
SELECT org_id, intent_id, kind, once, state, outcome ->> 'code' AS code, requested_at, attempts, next_attempt_at,
       finished_at
FROM stripe_intents
WHERE $1::text IS NULL OR state = $1
ORDER BY requested_at DESC, intent_id DESC LIMIT $2

-- name: pending_intents_of
-- What an organization's last request began and did not end, the oldest first.
SELECT org_id, intent_id, kind, parameters::text, attempts, state, outcome::text
FROM stripe_intents
WHERE org_id = $1 AND state = 'pending' AND kind = ANY ($2::text[])
ORDER BY requested_at, intent_id

-- name: customers_asked_for
-- How often a customer was made for an organization, or refused: the next one is asked for under the next number.
SELECT (SELECT count(*) FROM stripe_customers WHERE org_id = $1)
     + (SELECT count(*) FROM stripe_intents WHERE org_id = $1 AND kind = $2 AND state = 'refused')

-- name: save_checkout
INSERT INTO checkouts (org_id, session_id, plan, status, opened_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (org_id, session_id) DO UPDATE SET status = excluded.status

-- name: end_checkout
UPDATE checkouts SET status = $3 WHERE org_id = $1 AND session_id = $2

-- name: open_checkouts
SELECT session_id, plan FROM checkouts WHERE org_id = $1 AND status = 'open' ORDER BY opened_at DESC

-- name: paying_subscription
-- By which subscription of Stripe's an organization pays: the one in force, else one whose grace period has run out.
SELECT coalesce(
    (SELECT payment_reference FROM subscriptions WHERE org_id = $1),
    (SELECT subscription_id FROM stripe_subscriptions
     WHERE org_id = $1 AND status IN ('active', 'trialing', 'past_due', 'unpaid', 'paused')
     ORDER BY created_at DESC LIMIT 1)
)

-- name: is_closed
SELECT EXISTS (SELECT FROM closed_organizations WHERE org_id = $1)

-- name: stripe_subscription
SELECT status, plan, current_period_start, current_period_end, cancel_at, kept_plan, kept_until
FROM stripe_subscriptions WHERE org_id = $1 AND subscription_id = $2

-- name: oldest_open_invoice
SELECT invoice_id, currency, amount_due - amount_paid AS amount, hosted_url
FROM invoices WHERE org_id = $1 AND status = 'open' AND amount_due > amount_paid
ORDER BY coalesce(finalized_at, created_at), invoice_id LIMIT 1

-- name: has_terms
SELECT EXISTS (SELECT FROM billing_terms WHERE org_id = $1 AND starts_on <= $2 AND (ends_on IS NULL OR ends_on > $2))

-- name: is_paid
SELECT EXISTS (SELECT FROM subscriptions WHERE org_id = $1 AND payment_reference IS NOT NULL)

-- name: read_waiting
-- By the indexes of what is pending.
SELECT e.waiting, coalesce(extract(epoch FROM clock_timestamp() - e.since), 0) AS events_seconds,
       i.waiting AS pending, coalesce(extract(epoch FROM clock_timestamp() - i.since), 0) AS intents_seconds
FROM (SELECT count(*) AS waiting, min(received_at) AS since FROM stripe_events WHERE state = 'pending') AS e,
     (SELECT count(*) AS waiting, min(requested_at) AS since FROM stripe_intents WHERE state = 'pending') AS i
