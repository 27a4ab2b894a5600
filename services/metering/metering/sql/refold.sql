-- `verify` and `rebuild` (refold.py). The lead's transaction holds the snapshot; the folders import it.

-- name: hold_log_for_session
-- The lock of `share_log`, until the session ends: recording waits.
SELECT pg_advisory_lock(hashtextextended('aragora.usage_log', 0))

-- name: export_snapshot
SELECT pg_export_snapshot()

-- name: log_tables
SELECT child.relname AS name, pg_relation_size(child.oid) / 8192 AS blocks
FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
WHERE inhparent = 'usage_events'::regclass
ORDER BY child.relname

-- name: make_daily_parts
CREATE TEMP TABLE daily_parts (LIKE usage_daily) ON COMMIT DROP

-- name: make_monthly_parts
CREATE TEMP TABLE monthly_parts (LIKE usage_monthly) ON COMMIT DROP

-- name: make_refolded_daily
CREATE TEMP TABLE refolded_daily ON COMMIT DROP AS
SELECT
    org_id, day, user_id, event_type, provider, model,
    sum(events)::bigint AS events, sum(debates)::bigint AS debates, sum(api_calls) AS api_calls,
    sum(tokens_in) AS tokens_in, sum(tokens_out) AS tokens_out, sum(tokens_cached) AS tokens_cached,
    sum(tokens_cache_write) AS tokens_cache_write, sum(tokens_reasoning) AS tokens_reasoning,
    sum(tokens_audio_in) AS tokens_audio_in, sum(tokens_audio_out) AS tokens_audio_out,
    sum(requests) AS requests, sum(searches) AS searches, sum(images) AS images, sum(pages) AS pages,
    sum(seconds) AS seconds, sum(cost_usd) AS cost_usd, sum(unpriced_events)::bigint AS unpriced_events,
    sum(failed_events)::bigint AS failed_events, sum(timed_events)::bigint AS timed_events,
    sum(response_time_ms) AS response_time_ms
FROM daily_parts
GROUP BY 1, 2, 3, 4, 5, 6

-- name: make_refolded_monthly
CREATE TEMP TABLE refolded_monthly ON COMMIT DROP AS
SELECT
    org_id, month, sum(debates)::bigint AS debates, sum(api_calls) AS api_calls, sum(total_tokens) AS total_tokens,
    sum(total_cost) AS total_cost, sum(events)::bigint AS events, sum(unpriced_events)::bigint AS unpriced_events
FROM monthly_parts
GROUP BY 1, 2

-- name: make_daily_differences
CREATE TEMP TABLE daily_differences ON COMMIT DROP AS
SELECT
    coalesce(live.org_id, refolded.org_id) AS org_id, coalesce(live.day, refolded.day) AS day,
    coalesce(live.user_id, refolded.user_id) AS user_id, coalesce(live.event_type, refolded.event_type) AS event_type,
    coalesce(live.provider, refolded.provider) AS provider, coalesce(live.model, refolded.model) AS model,
    live::text AS live, refolded::text AS refolded
FROM usage_daily AS live
FULL JOIN refolded_daily AS refolded
    ON live.org_id = refolded.org_id AND live.day = refolded.day AND live.user_id = refolded.user_id
    AND live.event_type = refolded.event_type AND live.provider = refolded.provider AND live.model = refolded.model
WHERE (live.*)::usage_daily IS DISTINCT FROM
    CASE WHEN refolded.org_id IS NOT NULL THEN ROW (refolded.*)::usage_daily END

-- name: make_monthly_differences
CREATE TEMP TABLE monthly_differences ON COMMIT DROP AS
SELECT coalesce(live.org_id, refolded.org_id) AS org_id, coalesce(live.month, refolded.month) AS month,
       live::text AS live, refolded::text AS refolded
FROM usage_monthly AS live
FULL JOIN refolded_monthly AS refolded ON live.org_id = refolded.org_id AND live.month = refolded.month
WHERE (live.*)::usage_monthly IS DISTINCT FROM
    CASE WHEN refolded.org_id IS NOT NULL THEN ROW (refolded.*)::usage_monthly END

-- name: count_rows
SELECT (SELECT coalesce(sum(events), 0) FROM refolded_monthly) AS events,
       (SELECT count(*) FROM refolded_daily) AS daily_rows,
       (SELECT count(*) FROM refolded_monthly) AS monthly_rows,
       (SELECT count(*) FROM daily_differences) + (SELECT count(*) FROM monthly_differences) AS different_rows

-- name: first_differences
SELECT 'usage_daily' AS projection,
       concat_ws('/', org_id, day, user_id, event_type, provider, model) AS key, live, refolded
FROM daily_differences
UNION ALL
SELECT 'usage_monthly', concat_ws('/', org_id, month), live, refolded FROM monthly_differences
ORDER BY projection, key
LIMIT $1

-- name: delete_wrong_daily
DELETE FROM usage_daily AS live
USING daily_differences AS wrong
WHERE live.org_id = wrong.org_id AND live.day = wrong.day AND live.user_id = wrong.user_id
    AND live.event_type = wrong.event_type AND live.provider = wrong.provider AND live.model = wrong.model

-- name: insert_right_daily
INSERT INTO usage_daily (
    org_id, day, user_id, event_type, provider, model,
    events, debates, api_calls, tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning,
    tokens_audio_in, tokens_audio_out, requests, searches, images, pages, seconds, cost_usd,
    unpriced_events, failed_events, timed_events, response_time_ms
)
SELECT
    org_id, day, user_id, event_type, provider, model,
    events, debates, api_calls, tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning,
    tokens_audio_in, tokens_audio_out, requests, searches, images, pages, seconds, cost_usd,
    unpriced_events, failed_events, timed_events, response_time_ms
FROM refolded_daily AS refolded
JOIN daily_differences AS wrong USING (org_id, day, user_id, event_type, provider, model)

-- name: delete_wrong_monthly
DELETE FROM usage_monthly AS live
USING monthly_differences AS wrong
WHERE live.org_id = wrong.org_id AND live.month = wrong.month

-- name: insert_right_monthly
INSERT INTO usage_monthly (org_id, month, debates, api_calls, total_tokens, total_cost, events, unpriced_events)
SELECT org_id, month, debates, api_calls, total_tokens, total_cost, events, unpriced_events
FROM refolded_monthly AS refolded
JOIN monthly_differences AS wrong USING (org_id, month)

-- name: daily_part
-- The folder's sums of one stretch, in the types and order of `usage_daily`.
SELECT
    org_id, day, user_id, event_type, provider, model, events, debates::bigint, api_calls::numeric, tokens_in::numeric,
    tokens_out::numeric, tokens_cached::numeric, tokens_cache_write::numeric, tokens_reasoning::numeric,
    tokens_audio_in::numeric, tokens_audio_out::numeric, requests::numeric, searches::numeric, images::numeric,
    pages::numeric, seconds, cost_usd, unpriced_events, failed_events, timed_events, response_time_ms::numeric
FROM daily_sums

-- name: monthly_part
SELECT org_id, month, debates::bigint, api_calls::numeric, total_tokens, total_cost, events, unpriced_events
FROM monthly_sums
