-- The fold: what usage events add to the projections. There is this one and no other.
--
-- It sums `usage_to_fold`, which each session binds by itself: a worker to a temporary table of events that are new,
-- `verify` and `rebuild` to a stretch of the log, closing (periods.sql) to the events of the months that it closes.
-- Months, and what is used of limits (limit_sums.sql), are sums of days. What one event counts as (debates, api_calls)
-- and costs was decided when it was recorded (projections.py), so that all that is left here is addition.

-- name: daily_sums
CREATE TEMP VIEW daily_sums AS
SELECT
    org_id,
    (occurred_at AT TIME ZONE 'UTC')::date AS day,
    coalesce(user_id, '') AS user_id,
    event_type,
    coalesce(provider, '') AS provider,
    coalesce(model, '') AS model,
    count(*) AS events,
    sum(debates) AS debates,
    sum(api_calls) AS api_calls,
    sum(tokens_in) AS tokens_in,
    sum(tokens_out) AS tokens_out,
    coalesce(sum(tokens_cached), 0) AS tokens_cached,
    coalesce(sum(tokens_cache_write), 0) AS tokens_cache_write,
    coalesce(sum(tokens_reasoning), 0) AS tokens_reasoning,
    coalesce(sum(tokens_audio_in), 0) AS tokens_audio_in,
    coalesce(sum(tokens_audio_out), 0) AS tokens_audio_out,
    coalesce(sum(requests), 0) AS requests,
    coalesce(sum(searches), 0) AS searches,
    coalesce(sum(images), 0) AS images,
    coalesce(sum(pages), 0) AS pages,
    coalesce(sum(seconds::numeric), 0) AS seconds,
    coalesce(sum(cost_usd::numeric), 0) AS cost_usd,
    count(*) FILTER (WHERE cost_usd IS NULL) AS unpriced_events,
    count(*) FILTER (WHERE status >= 400) AS failed_events,
    count(response_time_ms) AS timed_events,
    coalesce(sum(response_time_ms), 0) AS response_time_ms
FROM usage_to_fold
GROUP BY 1, 2, 3, 4, 5, 6

-- name: monthly_sums
-- Of the days, which each session binds too: a worker to those of its chunk, `verify` and `rebuild` to all of them.
CREATE TEMP VIEW monthly_sums AS
SELECT
    org_id,
    to_char(day, 'YYYY-MM') AS month,
    sum(debates)::bigint AS debates,
    sum(api_calls) AS api_calls,
    sum(tokens_in + tokens_out) AS total_tokens,
    sum(cost_usd) AS total_cost,
    sum(events)::bigint AS events,
    sum(unpriced_events)::bigint AS unpriced_events
FROM days_to_fold
GROUP BY 1, 2

-- name: sum_days
INSERT INTO days_to_fold (
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
FROM daily_sums

-- name: fold_daily
-- In key order, so that workers that meet on the same rows wait for each other and never in a circle.
INSERT INTO usage_daily AS d (
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
FROM days_to_fold
ORDER BY org_id, day, user_id, event_type, provider, model
ON CONFLICT (org_id, day, user_id, event_type, provider, model) DO UPDATE SET
    events = d.events + excluded.events,
    debates = d.debates + excluded.debates,
    api_calls = d.api_calls + excluded.api_calls,
    tokens_in = d.tokens_in + excluded.tokens_in,
    tokens_out = d.tokens_out + excluded.tokens_out,
    tokens_cached = d.tokens_cached + excluded.tokens_cached,
    tokens_cache_write = d.tokens_cache_write + excluded.tokens_cache_write,
    tokens_reasoning = d.tokens_reasoning + excluded.tokens_reasoning,
    tokens_audio_in = d.tokens_audio_in + excluded.tokens_audio_in,
    tokens_audio_out = d.tokens_audio_out + excluded.tokens_audio_out,
    requests = d.requests + excluded.requests,
    searches = d.searches + excluded.searches,
    images = d.images + excluded.images,
    pages = d.pages + excluded.pages,
    seconds = d.seconds + excluded.seconds,
    cost_usd = d.cost_usd + excluded.cost_usd,
    unpriced_events = d.unpriced_events + excluded.unpriced_events,
    failed_events = d.failed_events + excluded.failed_events,
    timed_events = d.timed_events + excluded.timed_events,
    response_time_ms = d.response_time_ms + excluded.response_time_ms

-- name: fold_monthly
-- A month that is being closed, or is closed, gets late usage: that is noted here, and closes it once more (periods.py).
WITH folded AS (
    INSERT INTO usage_monthly AS m (
        org_id, month, debates, api_calls, total_tokens, total_cost, events, unpriced_events
    )
    SELECT org_id, month, debates, api_calls, total_tokens, total_cost, events, unpriced_events
    FROM monthly_sums
    ORDER BY org_id, month
    ON CONFLICT (org_id, month) DO UPDATE SET
        debates = m.debates + excluded.debates,
        api_calls = m.api_calls + excluded.api_calls,
        total_tokens = m.total_tokens + excluded.total_tokens,
        total_cost = m.total_cost + excluded.total_cost,
        events = m.events + excluded.events,
        unpriced_events = m.unpriced_events + excluded.unpriced_events
    RETURNING m.org_id, m.month
)
INSERT INTO periods_to_close AS p (org_id, month, noted)
SELECT org_id, month, 1 FROM folded WHERE month <= (SELECT max(month) FROM closing_months)
ON CONFLICT (org_id, month) DO UPDATE SET noted = p.noted + 1
