-- What is used of limits: the second half of the fold, summed from the same `days_to_fold` and `usage_to_fold`.
--
-- A worker adds what its chunk sums up to. When a plan changes, and in `verify` and `rebuild`, the same views are bound to
-- all days and to the log, and give the totals. The setting `aragora.counted_from` is the first day of the month before
-- the current one: nobody asks for the limits of months before that.
--
-- Which limits are counted is bound by each session too, as `limits_to_count`: those of the organizations that are not
-- unlimited (`bind_limits`), or, where a month is closed (periods.sql), every meter that may be charged.
--
-- An organization's limits are looked up from its usage, always by their index (LATERAL … OFFSET 0): a planner that has
-- not seen the table since it was empty would otherwise go through all organizations' limits for every chunk.

-- name: count_from
SELECT set_config('aragora.counted_from', $1, true)

-- name: bind_limits
CREATE TEMP VIEW limits_to_count AS
SELECT org_id, meter, per, aggregation, quantity, event_type, providers
FROM entitlement_limits
WHERE amount IS NOT NULL

-- name: limit_sums
-- Of organizations. Their days are first summed without people and models: few rows are left to hold against limits.
CREATE TEMP VIEW limit_sums AS
SELECT
    d.org_id, to_char(d.month, 'YYYY-MM') AS month, '' AS user_id, l.meter,
    sum(CASE l.aggregation WHEN 'count' THEN d.events ELSE quantity_of(
        l.quantity, d.debates, d.api_calls, d.tokens_in, d.tokens_out, d.requests, d.images, d.searches, d.pages,
        d.seconds, d.cost_usd
    ) END) AS used
FROM (
    SELECT
        org_id, date_trunc('month', day)::date AS month, event_type, provider,
        sum(events) AS events, sum(debates) AS debates, sum(api_calls) AS api_calls, sum(tokens_in) AS tokens_in,
        sum(tokens_out) AS tokens_out, sum(requests) AS requests, sum(images) AS images, sum(searches) AS searches,
        sum(pages) AS pages, sum(seconds) AS seconds, sum(cost_usd) AS cost_usd
    FROM days_to_fold
    WHERE day >= current_setting('aragora.counted_from')::date
    GROUP BY 1, 2, 3, 4
) AS d
CROSS JOIN LATERAL (
    SELECT meter, aggregation, quantity, event_type, providers FROM limits_to_count
    WHERE org_id = d.org_id AND per = 'organization' AND aggregation IN ('sum', 'count')
    OFFSET 0
) AS l
WHERE (l.event_type IS NULL OR l.event_type = d.event_type)
    AND (l.providers IS NULL OR lower(d.provider) = ANY (l.providers))
GROUP BY d.org_id, d.month, l.meter

-- name: limit_user_sums
-- Of people.
CREATE TEMP VIEW limit_user_sums AS
SELECT
    d.org_id, to_char(d.day, 'YYYY-MM') AS month, d.user_id, l.meter,
    sum(CASE l.aggregation WHEN 'count' THEN d.events ELSE quantity_of(
        l.quantity, d.debates, d.api_calls, d.tokens_in, d.tokens_out, d.requests, d.images, d.searches, d.pages,
        d.seconds, d.cost_usd
    ) END) AS used
FROM days_to_fold AS d
CROSS JOIN LATERAL (
    SELECT meter, aggregation, quantity, event_type, providers FROM limits_to_count
    WHERE org_id = d.org_id AND per = 'user' AND aggregation IN ('sum', 'count')
    OFFSET 0
) AS l
WHERE d.user_id <> '' AND d.day >= current_setting('aragora.counted_from')::date
    AND (l.event_type IS NULL OR l.event_type = d.event_type)
    AND (l.providers IS NULL OR lower(d.provider) = ANY (l.providers))
GROUP BY 1, 2, 3, 4

-- name: limit_peaks
-- A maximum cannot be had from a day's sums: these meters look at the events.
CREATE TEMP VIEW limit_peaks AS
SELECT
    e.org_id, to_char(e.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM') AS month,
    CASE l.per WHEN 'user' THEN e.user_id ELSE '' END AS user_id, l.meter,
    max(quantity_of(
        l.quantity, e.debates, e.api_calls, e.tokens_in, e.tokens_out, e.requests, e.images, e.searches, e.pages,
        e.seconds::numeric, e.cost_usd::numeric
    )) AS used
FROM usage_to_fold AS e
CROSS JOIN LATERAL (
    SELECT meter, per, aggregation, quantity, event_type, providers FROM limits_to_count
    WHERE org_id = e.org_id AND aggregation = 'max'
    OFFSET 0
) AS l
WHERE e.occurred_at >= current_setting('aragora.counted_from')::timestamp AT TIME ZONE 'UTC'
    AND (l.per = 'organization' OR e.user_id <> '')
    AND (l.event_type IS NULL OR l.event_type = e.event_type)
    AND (l.providers IS NULL OR lower(e.provider) = ANY (l.providers))
GROUP BY 1, 2, 3, 4

-- name: limit_sightings
CREATE TEMP VIEW limit_sightings AS
SELECT DISTINCT d.org_id, to_char(d.day, 'YYYY-MM') AS month, l.meter, d.user_id
FROM days_to_fold AS d
CROSS JOIN LATERAL (
    SELECT meter, aggregation, quantity, event_type, providers FROM limits_to_count
    WHERE org_id = d.org_id AND aggregation = 'unique_users'
    OFFSET 0
) AS l
WHERE d.user_id <> '' AND d.day >= current_setting('aragora.counted_from')::date
    AND (l.event_type IS NULL OR l.event_type = d.event_type)
    AND (l.providers IS NULL OR lower(d.provider) = ANY (l.providers))

-- name: limit_totals
CREATE TEMP VIEW limit_totals AS
SELECT org_id, month, user_id, meter, used FROM limit_sums WHERE used > 0
UNION ALL
SELECT org_id, month, user_id, meter, used FROM limit_user_sums WHERE used > 0
UNION ALL
SELECT org_id, month, user_id, meter, used FROM limit_peaks WHERE used > 0
UNION ALL
SELECT org_id, month, '', meter, count(*) FROM limit_sightings GROUP BY 1, 2, 4

-- A worker's part. Each statement gives the limits whose next threshold was just reached.

-- name: limit_kinds
-- Asked after the months' rows are held: from then on nobody changes these organizations' plans and budgets. Whether any
-- of them has a budget is asked here too: those without have no statement more for it.
WITH organizations AS MATERIALIZED (SELECT DISTINCT org_id FROM days_to_fold)
SELECT DISTINCT l.aggregation, l.per
FROM organizations AS d
JOIN entitlement_limits AS l ON l.org_id = d.org_id
WHERE l.amount IS NOT NULL
UNION ALL
SELECT 'budget', ''
WHERE EXISTS (
    SELECT FROM organizations AS d
    CROSS JOIN LATERAL (SELECT FROM budgets WHERE org_id = d.org_id LIMIT 1) AS b
)

-- name: fold_limit_sums
WITH folded AS (
    INSERT INTO limit_usage AS u (org_id, month, user_id, meter, used)
    SELECT org_id, month, user_id, meter, used FROM limit_sums WHERE used > 0 ORDER BY org_id, month, user_id, meter
    ON CONFLICT (org_id, month, user_id, meter) DO UPDATE SET used = u.used + excluded.used
    RETURNING u.org_id, u.month, u.user_id, u.meter, u.used, u.reached_percent
)
SELECT f.org_id, f.month, f.user_id, f.meter, f.used, l.amount, f.reached_percent
FROM folded AS f
JOIN entitlement_limits AS l ON l.org_id = f.org_id AND l.meter = f.meter AND l.per = 'organization'
WHERE reached_percent(f.used, l.amount) > f.reached_percent

-- name: fold_limit_user_sums
WITH folded AS (
    INSERT INTO limit_usage AS u (org_id, month, user_id, meter, used)
    SELECT org_id, month, user_id, meter, used FROM limit_user_sums WHERE used > 0 ORDER BY org_id, month, user_id, meter
    ON CONFLICT (org_id, month, user_id, meter) DO UPDATE SET used = u.used + excluded.used
    RETURNING u.org_id, u.month, u.user_id, u.meter, u.used, u.reached_percent
)
SELECT f.org_id, f.month, f.user_id, f.meter, f.used, l.amount, f.reached_percent
FROM folded AS f
JOIN entitlement_limits AS l ON l.org_id = f.org_id AND l.meter = f.meter AND l.per = 'user'
WHERE reached_percent(f.used, l.amount) > f.reached_percent

-- name: fold_limit_peaks
WITH folded AS (
    INSERT INTO limit_usage AS u (org_id, month, user_id, meter, used)
    SELECT org_id, month, user_id, meter, used FROM limit_peaks WHERE used > 0 ORDER BY org_id, month, user_id, meter
    ON CONFLICT (org_id, month, user_id, meter) DO UPDATE SET used = excluded.used WHERE u.used < excluded.used
    RETURNING u.org_id, u.month, u.user_id, u.meter, u.used, u.reached_percent
)
SELECT f.org_id, f.month, f.user_id, f.meter, f.used, l.amount, f.reached_percent
FROM folded AS f
JOIN entitlement_limits AS l ON l.org_id = f.org_id AND l.meter = f.meter AND (l.per = 'user') = (f.user_id <> '')
WHERE reached_percent(f.used, l.amount) > f.reached_percent

-- name: fold_limit_users
WITH seen AS (
    INSERT INTO limit_users (org_id, month, meter, user_id)
    SELECT org_id, month, meter, user_id FROM limit_sightings ORDER BY org_id, month, meter, user_id
    ON CONFLICT DO NOTHING
    RETURNING org_id, month, meter
), folded AS (
    INSERT INTO limit_usage AS u (org_id, month, user_id, meter, used)
    SELECT org_id, month, '', meter, count(*) FROM seen GROUP BY 1, 2, 4 ORDER BY 1, 2, 4
    ON CONFLICT (org_id, month, user_id, meter) DO UPDATE SET used = u.used + excluded.used
    RETURNING u.org_id, u.month, u.user_id, u.meter, u.used, u.reached_percent
)
SELECT f.org_id, f.month, f.user_id, f.meter, f.used, l.amount, f.reached_percent
FROM folded AS f
JOIN entitlement_limits AS l ON l.org_id = f.org_id AND l.meter = f.meter AND l.per = 'organization'
WHERE reached_percent(f.used, l.amount) > f.reached_percent

-- name: note_reached
UPDATE limit_usage AS u
SET reached_percent = n.percent
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::smallint[]) AS n (org_id, month, user_id, meter, percent)
WHERE u.org_id = n.org_id AND u.month = n.month AND u.user_id = n.user_id AND u.meter = n.meter

-- What reservations held, given back by the usage that they were for. The last thing before the commit, because the
-- gates it takes are those at which new reservations wait.

-- name: hold_gates_of_settled
SELECT org_id
FROM entitlements
WHERE org_id IN (SELECT org_id FROM usage_to_fold WHERE reservation_id IS NOT NULL)
ORDER BY org_id
FOR NO KEY UPDATE

-- name: settle
WITH named AS (
    SELECT DISTINCT ON (org_id, reservation_id) org_id, reservation_id, id
    FROM usage_to_fold
    WHERE reservation_id IS NOT NULL
    ORDER BY org_id, reservation_id, occurred_at, id
), settled AS (
    UPDATE reservations AS r
    SET state = 'settled', ended_at = $1, settled_by = named.id
    FROM named
    WHERE r.org_id = named.org_id AND r.id = named.reservation_id AND r.state = 'open'
    RETURNING r.org_id, r.month, r.holds
), freed AS (
    SELECT s.org_id, s.month, h.user_id, h.meter, sum(h.amount) AS amount
    FROM settled AS s, jsonb_to_recordset(s.holds) AS h (user_id text, meter text, amount numeric)
    GROUP BY 1, 2, 3, 4
), lowered AS (
    UPDATE limit_holds AS h
    SET held = h.held - freed.amount
    FROM freed
    WHERE h.org_id = freed.org_id AND h.month = freed.month AND h.user_id = freed.user_id AND h.meter = freed.meter
)
SELECT count(*)::integer FROM settled
