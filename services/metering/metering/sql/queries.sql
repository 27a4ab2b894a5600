-- The worker's statements, in the order of one recording transaction.

-- name: make_usage_to_fold
-- Once per session: where a chunk of events waits on its way into the log. Decimals come as text and are cast once.
CREATE TEMP TABLE usage_to_fold (
    org_id text COLLATE "C", id text COLLATE "C", occurred_at timestamptz, event_type text COLLATE "C",
    user_id text COLLATE "C", provider text COLLATE "C", model text COLLATE "C",
    tokens_in bigint, tokens_out bigint, tokens_cached bigint, tokens_cache_write bigint, tokens_reasoning bigint,
    tokens_audio_in bigint, tokens_audio_out bigint, requests bigint, searches bigint, images bigint, pages bigint,
    seconds text, cost_usd text, price_source text, unpriced_reason text, debates smallint, api_calls bigint,
    reservation_id text, endpoint text, method text, status smallint, response_time_ms bigint, metadata text
) ON COMMIT DELETE ROWS

-- name: make_days_to_fold
-- Once per session: what the chunk adds to `usage_daily`.
CREATE TEMP TABLE days_to_fold (LIKE usage_daily) ON COMMIT DELETE ROWS

-- name: share_log
-- Held to the end of every recording transaction: a new month is opened only when nobody holds it.
SELECT pg_advisory_xact_lock_shared(hashtextextended('aragora.usage_log', 0))

-- name: log_months
-- The months in which a copy recorded in the last 35 days may lie, the current one first.
SELECT log_month
FROM (SELECT log_month, lead(opened_at) OVER (ORDER BY log_month) AS closed_at FROM usage_log_months) AS months
WHERE closed_at IS NULL OR closed_at > now() - interval '35 days'
ORDER BY log_month DESC

-- name: append_to_log
-- $1: the current log month, $2: the earlier ones that may hold a copy. A copy in the current month meets its unique
-- index, also while another worker is just committing it.
INSERT INTO usage_events (
    org_id, id, log_month, occurred_at, event_type, user_id, provider, model,
    tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, tokens_audio_in, tokens_audio_out,
    requests, searches, images, pages, seconds, cost_usd, price_source, unpriced_reason, debates, api_calls,
    reservation_id, endpoint, method, status, response_time_ms, metadata
)
SELECT
    org_id, id, $1::date, occurred_at, event_type, user_id, provider, model,
    tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, tokens_audio_in, tokens_audio_out,
    requests, searches, images, pages, seconds::numeric, cost_usd::numeric, price_source, unpriced_reason,
    debates, api_calls, reservation_id, endpoint, method, status, response_time_ms, metadata
FROM usage_to_fold AS incoming
WHERE NOT EXISTS (
    SELECT FROM usage_events AS earlier
    WHERE earlier.log_month = ANY ($2::date[]) AND earlier.org_id = incoming.org_id AND earlier.id = incoming.id
)
ORDER BY org_id, id
ON CONFLICT DO NOTHING

-- name: drop_repeats
-- Leaves in `usage_to_fold` what this transaction itself has written to the log.
DELETE FROM usage_to_fold AS incoming
WHERE NOT EXISTS (
    SELECT FROM usage_events AS written
    WHERE written.log_month = $1 AND written.org_id = incoming.org_id AND written.id = incoming.id
        AND written.xmin = pg_current_xact_id()::xid
)

-- name: note_unpriced
-- Said once per organization, month, provider and model; the answer is what was not said yet.
INSERT INTO unpriced_usage (org_id, month, provider, model, reason, first_event_id)
SELECT DISTINCT ON (org_id, month, provider, model) org_id, month, provider, model, reason, id
FROM (
    SELECT org_id, id, to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM') AS month,
           coalesce(provider, '') AS provider, coalesce(model, '') AS model, coalesce(unpriced_reason, '') AS reason
    FROM usage_to_fold
    WHERE cost_usd IS NULL
) AS unpriced
ORDER BY org_id, month, provider, model, id
ON CONFLICT DO NOTHING
RETURNING org_id, month, provider, model, reason, first_event_id

-- The log's months.

-- name: hold_log
-- Held while a month is opened or the projections are replaced: waits for the recording transactions in flight.
SELECT pg_advisory_xact_lock(hashtextextended('aragora.usage_log', 0))

-- name: current_log_month
SELECT max(log_month) FROM usage_log_months

-- name: make_partition
SELECT make_usage_partition($1::date)

-- name: open_log_month
INSERT INTO usage_log_months (log_month)
SELECT $1::date
WHERE NOT EXISTS (SELECT FROM usage_log_months WHERE log_month >= $1::date)
RETURNING log_month
