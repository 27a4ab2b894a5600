-- Reservations, as the limit desk decides them in batches (limit_desk.py).

-- name: hold_gates
-- Whoever holds an organization's row decides alone. In one order everywhere, so that nobody waits in a circle.
SELECT org_id, revision, plan, plan_version, plan_name
FROM entitlements
WHERE org_id = ANY ($1::text[])
ORDER BY org_id
FOR NO KEY UPDATE

-- name: look_at_gates
SELECT org_id, revision, plan, plan_version, plan_name FROM entitlements WHERE org_id = ANY ($1::text[])

-- name: limits_of
SELECT org_id, meter, per, amount, aggregation, quantity, event_type, providers, overage_price_usd, overage_per
FROM entitlement_limits
WHERE org_id = ANY ($1::text[])
ORDER BY org_id, place, meter, per

-- name: counters
-- Of the organizations $1 in the month $2: what is used and held by everybody ('') and by the people among $3. A row
-- without a meter says that a reservation of the organization should have expired by $4.
SELECT org_id, meter, user_id, trim_scale(used)::text AS used, NULL AS held
FROM limit_usage
WHERE org_id = ANY ($1::text[]) AND month = $2 AND user_id = ANY ($3::text[])
UNION ALL
SELECT org_id, meter, user_id, NULL, trim_scale(held)::text
FROM limit_holds
WHERE org_id = ANY ($1::text[]) AND month = $2 AND user_id = ANY ($3::text[])
UNION ALL
SELECT asked.org_id, NULL, NULL, NULL, NULL
FROM unnest($1::text[]) AS asked (org_id)
WHERE EXISTS (SELECT FROM reservations AS r WHERE r.org_id = asked.org_id AND r.state = 'open' AND r.expires_at <= $4)

-- name: counted_users
-- For meters of unique users ($3): who of $4 is counted already, and who is not and has something held (how much).
SELECT org_id, meter, user_id, NULL AS held
FROM limit_users
WHERE org_id = ANY ($1::text[]) AND month = $2 AND meter = ANY ($3::text[]) AND user_id = ANY ($4::text[])
UNION ALL
SELECT org_id, meter, user_id, held::text
FROM limit_holds AS h
WHERE org_id = ANY ($1::text[]) AND month = $2 AND meter = ANY ($3::text[]) AND user_id <> '' AND held > 0
    AND NOT EXISTS (
        SELECT FROM limit_users AS u
        WHERE u.org_id = h.org_id AND u.month = h.month AND u.meter = h.meter AND u.user_id = h.user_id
    )

-- name: reservations_by_id
SELECT org_id, id, idempotency_key, digest, state, user_id, month, holds::text AS holds, expires_at
FROM reservations
WHERE (org_id, id) IN (SELECT asked.org_id, asked.id FROM unnest($1::text[], $2::text[]) AS asked (org_id, id))

-- name: reservations_by_key
SELECT org_id, id, idempotency_key, digest, state, user_id, month, holds::text AS holds, expires_at
FROM reservations
WHERE (org_id, idempotency_key) IN (
    SELECT asked.org_id, asked.key FROM unnest($1::text[], $2::text[]) AS asked (org_id, key)
)

-- name: stored_reservation
SELECT id AS reservation_id, org_id, user_id, state, operations::text AS operations, reserved_at, expires_at, ended_at,
       settled_by
FROM reservations
WHERE org_id = $1 AND id = $2

-- name: next_expiry
-- When the first of an organization's open reservations gives something back.
SELECT org_id, min(expires_at) AS expires_at
FROM reservations
WHERE org_id = ANY ($1::text[]) AND state = 'open'
GROUP BY org_id

-- name: open_reservations
INSERT INTO reservations (
    org_id, id, idempotency_key, digest, user_id, month, operations, holds, reserved_at, expires_at
)
SELECT org_id, id, idempotency_key, digest, user_id, $1, operations::jsonb, holds::jsonb, $2, expires_at
FROM unnest(
    $3::text[], $4::text[], $5::text[], $6::bytea[], $7::text[], $8::text[], $9::text[], $10::timestamptz[]
) AS opened (org_id, id, idempotency_key, digest, user_id, operations, holds, expires_at)

-- name: raise_holds
INSERT INTO limit_holds AS h (org_id, month, user_id, meter, held)
SELECT org_id, month, user_id, meter, amount::numeric
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) AS n (org_id, month, user_id, meter, amount)
ORDER BY 1, 2, 3, 4
ON CONFLICT (org_id, month, user_id, meter) DO UPDATE SET held = h.held + excluded.held

-- name: lower_holds
UPDATE limit_holds AS h
SET held = h.held - n.amount::numeric
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) AS n (org_id, month, user_id, meter, amount)
WHERE h.org_id = n.org_id AND h.month = n.month AND h.user_id = n.user_id AND h.meter = n.meter

-- name: release_reservations
UPDATE reservations AS r
SET state = 'released', ended_at = $1
FROM unnest($2::text[], $3::text[]) AS n (org_id, id)
WHERE r.org_id = n.org_id AND r.id = n.id

-- name: extend_reservations
UPDATE reservations AS r
SET expires_at = n.expires_at
FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS n (org_id, id, expires_at)
WHERE r.org_id = n.org_id AND r.id = n.id

-- name: due_organizations
SELECT DISTINCT org_id FROM (
    SELECT org_id FROM reservations WHERE state = 'open' AND expires_at <= $1 ORDER BY expires_at LIMIT $2
) AS due

-- name: expire_reservations
-- Of organizations whose gates are held; at most $3 at a time.
WITH due AS (
    SELECT org_id, id FROM reservations
    WHERE org_id = ANY ($1::text[]) AND state = 'open' AND expires_at <= $2
    ORDER BY expires_at
    LIMIT $3
), expired AS (
    UPDATE reservations AS r
    SET state = 'expired', ended_at = $2
    FROM due
    WHERE r.org_id = due.org_id AND r.id = due.id
    RETURNING r.org_id, r.id, r.user_id, r.month, r.holds, r.reserved_at, r.expires_at
), freed AS (
    SELECT e.org_id, e.month, h.user_id, h.meter, sum(h.amount) AS amount
    FROM expired AS e, jsonb_to_recordset(e.holds) AS h (user_id text, meter text, amount numeric)
    GROUP BY 1, 2, 3, 4
), lowered AS (
    UPDATE limit_holds AS h
    SET held = h.held - freed.amount
    FROM freed
    WHERE h.org_id = freed.org_id AND h.month = freed.month AND h.user_id = freed.user_id AND h.meter = freed.meter
)
SELECT org_id, id, user_id, holds::text AS holds, reserved_at, expires_at FROM expired ORDER BY expires_at

-- name: forget_ended
-- A day after its end nobody asks for a reservation any more.
DELETE FROM reservations
WHERE (org_id, id) IN (SELECT org_id, id FROM reservations WHERE state <> 'open' AND ended_at < $1 LIMIT $2)

-- name: listed_plans
-- The current version of each plan that people may choose, the smallest first.
SELECT plan, version, name, rank, price_usd_per_month, limits::text AS limits
FROM (SELECT DISTINCT ON (plan) plan, version, name, rank, price_usd_per_month, listed, limits FROM plans
      ORDER BY plan, version DESC) AS current
WHERE listed
ORDER BY rank, plan

-- name: declared_meters
-- Every meter that any version of any plan limits.
SELECT DISTINCT l.value -> 'meter' ->> 'name' AS name FROM plans, jsonb_array_elements(limits) AS l
