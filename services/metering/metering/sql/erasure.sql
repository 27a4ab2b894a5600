-- A person's name goes, what was used stays (erasure.py). $1: organizations, $2: the person's pseudonym in each, $3: who.

-- name: begin_erasing
SELECT set_config('aragora.erasing', 'on', true)

-- name: note_erased
INSERT INTO erased_people AS e (org_id, digest, pseudonym, erased_at)
SELECT org_id, sha256(convert_to($3, 'UTF8')), pseudonym, $4
FROM unnest($1::text[], $2::text[]) AS n (org_id, pseudonym)
ON CONFLICT (org_id, digest) DO UPDATE SET pseudonym = excluded.pseudonym, erased_at = excluded.erased_at

-- name: erase_from_log
UPDATE usage_events AS e
SET user_id = n.pseudonym, metadata = NULL, endpoint = NULL
FROM unnest($1::text[], $2::text[]) AS n (org_id, pseudonym)
WHERE e.org_id = n.org_id AND e.user_id = $3

-- name: erase_from_days
UPDATE usage_daily AS d
SET user_id = n.pseudonym
FROM unnest($1::text[], $2::text[]) AS n (org_id, pseudonym)
WHERE d.org_id = n.org_id AND d.user_id = $3

-- name: erase_from_limits
UPDATE limit_usage AS u
SET user_id = n.pseudonym
FROM unnest($1::text[], $2::text[]) AS n (org_id, pseudonym)
WHERE u.org_id = n.org_id AND u.user_id = $3

-- name: erase_from_users
UPDATE limit_users AS u
SET user_id = n.pseudonym
FROM unnest($1::text[], $2::text[]) AS n (org_id, pseudonym)
WHERE u.org_id = n.org_id AND u.user_id = $3

-- name: erase_from_holds
UPDATE limit_holds AS h
SET user_id = n.pseudonym
FROM unnest($1::text[], $2::text[]) AS n (org_id, pseudonym)
WHERE h.org_id = n.org_id AND h.user_id = $3

-- name: erase_from_reservations
-- The idempotency key is the caller's own text; the digest is of what was asked, the id among it.
UPDATE reservations AS r
SET user_id = n.pseudonym, idempotency_key = NULL, digest = NULL, holds = (
        SELECT coalesce(jsonb_agg(CASE hold ->> 'user_id'
            WHEN $3 THEN hold || jsonb_build_object('user_id', n.pseudonym) ELSE hold END), '[]')
        FROM jsonb_array_elements(r.holds) AS hold
    )
FROM unnest($1::text[], $2::text[]) AS n (org_id, pseudonym)
WHERE r.org_id = n.org_id AND r.user_id = $3

-- name: drop_letters
-- What could not be recorded has no total to keep. $2: the id as JSON writes it. A message that could not even be taken
-- apart names no organization: then it says one of theirs somewhere.
DELETE FROM dead_letters AS l
WHERE EXISTS (SELECT FROM unnest($2::bytea[]) AS s (spelling) WHERE position(s.spelling IN l.payload) > 0)
    AND (l.org_id = ANY ($1::text[]) OR (l.org_id IS NULL AND EXISTS (
        SELECT FROM unnest($1::text[]) AS o (org_id)
        WHERE position(convert_to('"' || o.org_id || '"', 'UTF8') IN l.payload) > 0
    )))

-- name: erased_among
-- Of these people, those who were erased. Asked by every recording transaction: the order of the conditions is cheap.
SELECT n.org_id, n.user_id, e.pseudonym
FROM unnest($1::text[], $2::text[]) AS n (org_id, user_id)
JOIN erased_people AS e ON e.org_id = n.org_id AND e.digest = sha256(convert_to(n.user_id, 'UTF8'))

-- name: forget_erased
DELETE FROM erased_people WHERE erased_at < $1
