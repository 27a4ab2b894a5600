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

-- name: bind_days_to_fold
CREATE TEMP VIEW days_to_fold AS
SELECT
    org_id, day, user_id, event_type, provider, model, events, debates, api_calls, tokens_in, tokens_out, requests,
    images, searches, pages, seconds, cost_usd, unpriced_events
FROM refolded_daily

-- name: make_refolded_monthly
CREATE TEMP TABLE refolded_monthly ON COMMIT DROP AS
SELECT org_id, month, debates, api_calls, total_tokens, total_cost, events, unpriced_events FROM monthly_sums

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
    -- A row of zeros is no row: a change of plan makes one, to hold it.
    AND coalesce(live.events, 0) + coalesce(refolded.events, 0) > 0

-- name: make_limit_differences
CREATE TEMP TABLE limit_differences ON COMMIT DROP AS
SELECT coalesce(live.org_id, refolded.org_id) AS org_id, coalesce(live.month, refolded.month) AS month,
       coalesce(live.user_id, refolded.user_id) AS user_id, coalesce(live.meter, refolded.meter) AS meter,
       live.used AS live, refolded.used AS refolded
FROM (
    SELECT org_id, month, user_id, meter, used FROM limit_usage
    WHERE month >= to_char(current_setting('aragora.counted_from')::date, 'YYYY-MM') AND used > 0
) AS live
FULL JOIN limit_totals AS refolded
    ON live.org_id = refolded.org_id AND live.month = refolded.month AND live.user_id = refolded.user_id
    AND live.meter = refolded.meter
WHERE live.used IS DISTINCT FROM refolded.used

-- name: make_user_differences
CREATE TEMP TABLE user_differences ON COMMIT DROP AS
SELECT coalesce(live.org_id, refolded.org_id) AS org_id, coalesce(live.month, refolded.month) AS month,
       coalesce(live.meter, refolded.meter) AS meter, coalesce(live.user_id, refolded.user_id) AS user_id,
       live.user_id IS NOT NULL AS is_live
FROM (
    SELECT org_id, month, meter, user_id FROM limit_users
    WHERE month >= to_char(current_setting('aragora.counted_from')::date, 'YYYY-MM')
) AS live
FULL JOIN limit_sightings AS refolded
    ON live.org_id = refolded.org_id AND live.month = refolded.month AND live.meter = refolded.meter
    AND live.user_id = refolded.user_id
WHERE live.user_id IS NULL OR refolded.user_id IS NULL

-- name: make_hold_differences
-- What is held is a sum too: of the open reservations.
CREATE TEMP TABLE hold_differences ON COMMIT DROP AS
SELECT coalesce(live.org_id, opened.org_id) AS org_id, coalesce(live.month, opened.month) AS month,
       coalesce(live.user_id, opened.user_id) AS user_id, coalesce(live.meter, opened.meter) AS meter,
       live.held AS live, opened.held AS refolded
FROM (SELECT org_id, month, user_id, meter, held FROM limit_holds WHERE held > 0) AS live
FULL JOIN (
    SELECT r.org_id, r.month, h.user_id, h.meter, sum(h.amount) AS held
    FROM reservations AS r, jsonb_to_recordset(r.holds) AS h (user_id text, meter text, amount numeric)
    WHERE r.state = 'open'
    GROUP BY 1, 2, 3, 4
) AS opened
    ON live.org_id = opened.org_id AND live.month = opened.month AND live.user_id = opened.user_id
    AND live.meter = opened.meter
WHERE live.held IS DISTINCT FROM opened.held

-- name: count_rows
SELECT (SELECT coalesce(sum(events), 0) FROM refolded_monthly) AS events,
       (SELECT count(*) FROM refolded_daily) AS daily_rows,
       (SELECT count(*) FROM refolded_monthly) AS monthly_rows,
       (SELECT count(*) FROM limit_totals) AS limit_rows,
       (SELECT count(*) FROM daily_differences) + (SELECT count(*) FROM monthly_differences)
       + (SELECT count(*) FROM limit_differences) + (SELECT count(*) FROM user_differences)
       + (SELECT count(*) FROM hold_differences) AS different_rows

-- name: first_differences
SELECT 'usage_daily' AS projection,
       concat_ws('/', org_id, day, user_id, event_type, provider, model) AS key, live, refolded
FROM daily_differences
UNION ALL
SELECT 'usage_monthly', concat_ws('/', org_id, month), live, refolded FROM monthly_differences
UNION ALL
SELECT 'limit_usage', concat_ws('/', org_id, month, user_id, meter), live::text, refolded::text FROM limit_differences
UNION ALL
SELECT 'limit_users', concat_ws('/', org_id, month, meter, user_id), CASE WHEN is_live THEN 'counted' END,
       CASE WHEN NOT is_live THEN 'counted' END
FROM user_differences
UNION ALL
SELECT 'limit_holds', concat_ws('/', org_id, month, user_id, meter), live::text, refolded::text FROM hold_differences
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

-- name: right_limit_usage
-- The thresholds that were raised stay raised.
INSERT INTO limit_usage AS u (org_id, month, user_id, meter, used)
SELECT org_id, month, user_id, meter, coalesce(refolded, 0) FROM limit_differences
ON CONFLICT (org_id, month, user_id, meter) DO UPDATE SET used = excluded.used

-- name: delete_wrong_users
DELETE FROM limit_users AS live
USING user_differences AS wrong
WHERE wrong.is_live AND live.org_id = wrong.org_id AND live.month = wrong.month AND live.meter = wrong.meter
    AND live.user_id = wrong.user_id

-- name: insert_right_users
INSERT INTO limit_users (org_id, month, meter, user_id)
SELECT org_id, month, meter, user_id FROM user_differences WHERE NOT is_live

-- name: hold_every_gate
-- Nobody reserves while what is held is put right.
LOCK TABLE entitlements IN EXCLUSIVE MODE

-- name: right_limit_holds
INSERT INTO limit_holds AS h (org_id, month, user_id, meter, held)
SELECT org_id, month, user_id, meter, coalesce(refolded, 0) FROM hold_differences
ON CONFLICT (org_id, month, user_id, meter) DO UPDATE SET held = excluded.held

-- name: daily_part
-- The folder's sums of one stretch, in the types and order of `usage_daily`.
SELECT
    org_id, day, user_id, event_type, provider, model, events, debates::bigint, api_calls::numeric, tokens_in::numeric,
    tokens_out::numeric, tokens_cached::numeric, tokens_cache_write::numeric, tokens_reasoning::numeric,
    tokens_audio_in::numeric, tokens_audio_out::numeric, requests::numeric, searches::numeric, images::numeric,
    pages::numeric, seconds, cost_usd, unpriced_events, failed_events, timed_events, response_time_ms::numeric
FROM daily_sums
