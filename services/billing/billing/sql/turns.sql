-- Turns: one lock per organization, held by a session.

-- name: take_turn
SELECT pg_advisory_lock(hashtextextended('stripe/' || $1::text, 0))

-- name: end_turn
SELECT pg_advisory_unlock(hashtextextended('stripe/' || $1::text, 0))
