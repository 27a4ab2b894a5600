-- What people ask. Only the event log itself is read from the log; everything else is a sum over `usage_daily`.

-- name: organizations_of_user
SELECT DISTINCT org_id FROM usage_daily WHERE user_id = $1 ORDER BY org_id LIMIT 2

-- name: usage_by_provider
-- An organization's days from $2 to $3, by provider, with the share of person $4 beside it.
SELECT
    provider,
    sum(events) AS events, sum(debates) AS debates, sum(api_calls) AS calls, sum(tokens_in + tokens_out) AS tokens,
    sum(cost_usd) AS cost, sum(unpriced_events) AS unpriced_events, sum(failed_events) AS failed_events,
    sum(timed_events) AS timed_events, sum(response_time_ms) AS response_time_ms,
    coalesce(sum(events) FILTER (WHERE user_id = $4), 0) AS user_events,
    coalesce(sum(debates) FILTER (WHERE user_id = $4), 0) AS user_debates,
    coalesce(sum(api_calls) FILTER (WHERE user_id = $4), 0) AS user_calls,
    coalesce(sum(tokens_in + tokens_out) FILTER (WHERE user_id = $4), 0) AS user_tokens,
    coalesce(sum(cost_usd) FILTER (WHERE user_id = $4), 0) AS user_cost,
    coalesce(sum(unpriced_events) FILTER (WHERE user_id = $4), 0) AS user_unpriced_events
FROM usage_daily
WHERE org_id = $1 AND day BETWEEN $2 AND $3
GROUP BY provider
ORDER BY provider

-- name: usage_by_month
SELECT to_char(day, 'YYYY-MM') AS month, provider, sum(api_calls) AS calls, sum(tokens_in + tokens_out) AS tokens,
       sum(cost_usd) AS cost
FROM usage_daily
WHERE org_id = $1 AND day BETWEEN $2 AND $3
GROUP BY 1, 2
ORDER BY 1, 2

-- name: summarize
-- One scan, every way to cut it; `grouping` says which cut a row belongs to.
SELECT
    grouping(provider, model, user_id, day, event_type) AS cut,
    provider, model, user_id, day, event_type,
    sum(events) AS events, sum(debates) AS debates, sum(api_calls) AS api_calls,
    sum(tokens_in) AS tokens_in, sum(tokens_out) AS tokens_out, sum(tokens_cached) AS tokens_cached,
    sum(tokens_cache_write) AS tokens_cache_write, sum(tokens_reasoning) AS tokens_reasoning,
    sum(requests) AS requests, sum(searches) AS searches, sum(images) AS images, sum(pages) AS pages,
    sum(seconds) AS seconds, sum(cost_usd) AS cost_usd, sum(unpriced_events) AS unpriced_events,
    sum(failed_events) AS failed_events
FROM usage_daily
WHERE org_id = $1 AND day BETWEEN $2 AND $3
GROUP BY GROUPING SETS ((), (provider), (provider, model), (user_id), (day), (event_type))
ORDER BY cut, provider, model, user_id, day, event_type

-- name: event_page
-- The newest first. $7, $8: the last (occurred_at, id) of the page before.
SELECT
    id, org_id, user_id, event_type, provider, model, occurred_at, recorded_at,
    tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, tokens_audio_in, tokens_audio_out,
    requests, searches, images, pages, seconds, cost_usd, price_source, unpriced_reason,
    reservation_id, endpoint, method, status, response_time_ms, metadata
FROM usage_events
WHERE org_id = $1 AND occurred_at >= $2 AND occurred_at < $3
    AND ($4::text IS NULL OR user_id = $4)
    AND ($5::text IS NULL OR event_type = $5)
    AND ($6::text IS NULL OR provider = $6)
    AND ($9::text IS NULL OR model = $9)
    AND ($10::text IS NULL OR id = $10)
    AND ($7::timestamptz IS NULL OR occurred_at <= $7)
    AND ($7::timestamptz IS NULL OR (occurred_at, id) < ($7, $8::text))
ORDER BY occurred_at DESC, id DESC
LIMIT $11

-- name: log_span
-- The first and last day that anything is known of an organization: the range of a summary that names none.
SELECT min(day) AS first_day, max(day) AS last_day FROM usage_daily WHERE org_id = $1

-- name: limit_uses
-- The plan of organization $1 and its limits, with what is used and held of them in the month $2: of the organization's,
-- and of person $3's own. A plan without limits has one row, without a meter. A meter of unique users holds the places of
-- people who are not counted yet.
SELECT e.plan, e.plan_name, l.meter, l.per, l.amount, l.overage_price_usd, l.overage_per, coalesce(u.used, 0) AS used,
    CASE l.aggregation WHEN 'unique_users' THEN (
        SELECT count(*) FROM limit_holds AS w
        WHERE w.org_id = e.org_id AND w.month = $2 AND w.meter = l.meter AND w.user_id <> '' AND w.held > 0
            AND NOT EXISTS (
                SELECT FROM limit_users AS c
                WHERE c.org_id = w.org_id AND c.month = w.month AND c.meter = w.meter AND c.user_id = w.user_id
            )
    ) ELSE coalesce(h.held, 0) END AS held
FROM entitlements AS e
LEFT JOIN entitlement_limits AS l ON l.org_id = e.org_id
LEFT JOIN limit_usage AS u
    ON u.org_id = e.org_id AND u.month = $2 AND u.meter = l.meter
    AND u.user_id = CASE l.per WHEN 'user' THEN $3 ELSE '' END
LEFT JOIN limit_holds AS h
    ON h.org_id = e.org_id AND h.month = $2 AND h.meter = l.meter
    AND h.user_id = CASE l.per WHEN 'user' THEN $3 ELSE '' END
WHERE e.org_id = $1
ORDER BY l.place, l.meter, l.per
