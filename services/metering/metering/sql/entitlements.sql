-- What billing says of plans and organizations (entitlements.py).

-- name: bind_days_to_fold
-- In the session that applies entitlements, limit_sums.sql adds up all days ...
CREATE TEMP VIEW days_to_fold AS
SELECT
    org_id, day, user_id, event_type, provider, events, debates, api_calls, tokens_in, tokens_out, requests, images,
    searches, pages, seconds, cost_usd
FROM usage_daily

-- name: bind_usage_to_fold
-- ... and the log, of those organizations only that have a limit on a maximum: nothing else looks at single events.
CREATE TEMP VIEW usage_to_fold AS
SELECT
    org_id, user_id, event_type, provider, occurred_at, debates, api_calls, tokens_in, tokens_out, requests, images,
    searches, pages, seconds, cost_usd
FROM usage_events
WHERE org_id IN (SELECT org_id FROM entitlement_limits WHERE aggregation = 'max' AND amount IS NOT NULL)

-- name: keep_plan
INSERT INTO plans (plan, version, name, rank, price_usd_per_month, listed, limits)
VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb)
ON CONFLICT (plan, version) DO UPDATE
SET name = excluded.name, rank = excluded.rank, price_usd_per_month = excluded.price_usd_per_month,
    listed = excluded.listed, limits = excluded.limits

-- name: hold_months
-- The rows that every recording transaction holds for the organizations whose usage it folds: from here on none folds
-- theirs, and what is counted below misses nothing. A month without usage gets a row of zeros to hold.
INSERT INTO usage_monthly AS m (org_id, month)
SELECT org_id, month FROM unnest($1::text[]) AS o (org_id), unnest($2::text[]) AS n (month)
ORDER BY org_id, month
ON CONFLICT (org_id, month) DO UPDATE SET events = m.events

-- name: keep_entitlements
-- An event with an older revision comes late. The answer is whose entitlements are these now.
INSERT INTO entitlements AS e (org_id, revision, plan, plan_version, plan_name, features, seats, changed_at)
SELECT org_id, revision, plan, plan_version, plan_name, features::jsonb, seats, changed_at
FROM unnest(
    $1::text[], $2::integer[], $3::text[], $4::integer[], $5::text[], $6::text[], $7::integer[], $8::timestamptz[]
) AS n (org_id, revision, plan, plan_version, plan_name, features, seats, changed_at)
ORDER BY org_id
ON CONFLICT (org_id) DO UPDATE
SET revision = excluded.revision, plan = excluded.plan, plan_version = excluded.plan_version,
    plan_name = excluded.plan_name, features = excluded.features, seats = excluded.seats,
    changed_at = excluded.changed_at
WHERE e.revision <= excluded.revision
RETURNING e.org_id

-- name: drop_limits
DELETE FROM entitlement_limits WHERE org_id = ANY ($1::text[])

-- name: keep_limits
INSERT INTO entitlement_limits (
    org_id, meter, per, amount, place, aggregation, quantity, event_type, providers, overage_price_usd, overage_per
)
SELECT $1, meter, per, amount::numeric, place, aggregation, quantity, event_type, string_to_array(providers, ','),
    overage_price_usd::numeric, overage_per::numeric
FROM unnest(
    $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[]
) WITH ORDINALITY AS n (
    meter, per, amount, aggregation, quantity, event_type, providers, overage_price_usd, overage_per, place
)

-- name: recount_users
WITH dropped AS (
    DELETE FROM limit_users AS u
    WHERE u.org_id = ANY ($1::text[]) AND u.month >= $2 AND NOT EXISTS (
        SELECT FROM limit_sightings AS s
        WHERE s.org_id = u.org_id AND s.month = u.month AND s.meter = u.meter AND s.user_id = u.user_id
    )
)
INSERT INTO limit_users (org_id, month, meter, user_id)
SELECT org_id, month, meter, user_id FROM limit_sightings WHERE org_id = ANY ($1::text[])
ON CONFLICT DO NOTHING

-- name: recount
-- A limit that is no more, or a meter that now counts other usage, leaves nothing behind.
WITH totals AS MATERIALIZED (
    SELECT org_id, month, user_id, meter, used FROM limit_totals WHERE org_id = ANY ($1::text[])
), dropped AS (
    DELETE FROM limit_usage AS u
    WHERE u.org_id = ANY ($1::text[]) AND NOT EXISTS (
        SELECT FROM totals AS t
        WHERE t.org_id = u.org_id AND t.month = u.month AND t.user_id = u.user_id AND t.meter = u.meter
    )
)
INSERT INTO limit_usage AS u (org_id, month, user_id, meter, used)
SELECT org_id, month, user_id, meter, used FROM totals
ON CONFLICT (org_id, month, user_id, meter) DO UPDATE SET used = excluded.used

-- name: forget_thresholds
-- Under a higher limit a threshold is no longer reached; when it is reached once more, that is said once more. Of the
-- months before $2 a change of plan says nothing: what they have reached is only noted.
UPDATE limit_usage AS u
SET reached_percent = reached_percent(u.used, l.amount)
FROM entitlement_limits AS l
WHERE u.org_id = ANY ($1::text[]) AND l.org_id = u.org_id AND l.meter = u.meter
    AND (l.per = 'user') = (u.user_id <> '')
    AND (reached_percent(u.used, l.amount) < u.reached_percent OR u.month < $2)

-- name: just_reached
SELECT u.org_id, u.month, u.user_id, u.meter, u.used, l.amount, u.reached_percent
FROM limit_usage AS u
JOIN entitlement_limits AS l ON l.org_id = u.org_id AND l.meter = u.meter AND (l.per = 'user') = (u.user_id <> '')
WHERE u.org_id = ANY ($1::text[]) AND u.month >= $2 AND reached_percent(u.used, l.amount) > u.reached_percent

-- name: open_reservations_of
SELECT org_id, id, user_id, operations::text AS operations
FROM reservations
WHERE org_id = ANY ($1::text[]) AND state = 'open'

-- name: change_holds
UPDATE reservations AS r
SET holds = n.holds::jsonb
FROM unnest($1::text[], $2::text[], $3::text[]) AS n (org_id, id, holds)
WHERE r.org_id = n.org_id AND r.id = n.id

-- name: drop_holds
DELETE FROM limit_holds WHERE org_id = ANY ($1::text[])

-- name: sum_holds
INSERT INTO limit_holds (org_id, month, user_id, meter, held)
SELECT r.org_id, r.month, h.user_id, h.meter, sum(h.amount)
FROM reservations AS r, jsonb_to_recordset(r.holds) AS h (user_id text, meter text, amount numeric)
WHERE r.org_id = ANY ($1::text[]) AND r.state = 'open'
GROUP BY 1, 2, 3, 4
