-- Following Stripe: what its webhooks told of, and what was lost.

-- name: take_events
-- Taken for a while, so that other workers leave them alone.
UPDATE stripe_events AS e SET next_attempt_at = $2, attempts = e.attempts + 1
FROM (
    SELECT event_id FROM stripe_events WHERE state = 'pending' AND next_attempt_at <= $1
    ORDER BY next_attempt_at, event_id LIMIT $3 FOR UPDATE SKIP LOCKED
) AS due
WHERE e.event_id = due.event_id
RETURNING e.event_id, e.type, e.object_id, e.customer_id, e.attempts,
          e.payload -> 'data' -> 'object' ->> 'object' AS object,
          coalesce(e.payload -> 'data' -> 'object' ->> 'charge', '') AS charge_id

-- name: finish_events
UPDATE stripe_events SET state = $2, reason = $3, org_id = $4, handled_at = $5 WHERE event_id = ANY ($1::text[])

-- name: put_off_events
UPDATE stripe_events SET next_attempt_at = $2, reason = $3 WHERE event_id = ANY ($1::text[]) AND state = 'pending'

-- name: again_for_customer
-- Whose a customer is, is known now.
UPDATE stripe_events SET state = 'pending', reason = NULL, next_attempt_at = $2
WHERE customer_id = $1 AND state = 'unresolved'

-- name: unresolved_since
-- What has waited in vain, and nobody was told of.
UPDATE stripe_events SET attention_at = $2
WHERE state = 'unresolved' AND attention_at IS NULL AND received_at <= $1
RETURNING event_id, reason, org_id

-- name: forget_events
-- What is done with: nobody can send it again, and Stripe's own list has forgotten it too.
DELETE FROM stripe_events WHERE received_at < $1 AND state IN ('handled', 'ignored')

-- name: save_checkout
UPDATE checkouts SET status = $3 WHERE org_id = $1 AND session_id = $2

-- name: read_until
SELECT read_until FROM stripe_reading WHERE name = $1

-- name: have_read_until
INSERT INTO stripe_reading (name, read_until) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET read_until = greatest(stripe_reading.read_until, excluded.read_until)

-- name: try_alone
-- Whether this worker is the only one that does it now.
SELECT pg_try_advisory_lock(hashtextextended($1::text, 1))

-- name: end_alone
SELECT pg_advisory_unlock(hashtextextended($1::text, 1))
