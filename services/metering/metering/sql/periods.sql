-- Closing months (periods.py). A session that closes binds the fold to the events of the periods in hand, and the sums of
-- limits to every meter that they may be charged by.

-- name: hold_closing
-- One session closes at a time; the others leave it to that one.
SELECT pg_try_advisory_lock(hashtextextended('aragora.closing_periods', 0))

-- name: release_closing
SELECT pg_advisory_unlock(hashtextextended('aragora.closing_periods', 0))

-- name: latest_closing_month
SELECT month, listed_at FROM closing_months ORDER BY month DESC LIMIT 1

-- name: begin_closing
-- While nobody records: what was recorded before is in `usage_monthly`, and what comes after is noted as late.
INSERT INTO closing_months (month, begun_at) VALUES ($1, $2) ON CONFLICT DO NOTHING

-- name: list_periods
-- Of any month up to $1, what was never closed, or has other events than were last said. In key order, like the fold.
INSERT INTO periods_to_close (org_id, month, noted)
SELECT m.org_id, m.month, 1
FROM usage_monthly AS m
WHERE m.month <= $1 AND m.events > 0 AND NOT EXISTS (
    SELECT FROM closed_periods AS c WHERE c.org_id = m.org_id AND c.month = m.month AND c.events = m.events
)
ORDER BY m.org_id, m.month
ON CONFLICT DO NOTHING

-- name: end_listing
UPDATE closing_months SET listed_at = $2 WHERE month = $1

-- name: due_periods
-- After ($1, $2), at most $4, with what was last said of them; not those of which something was said since $3.
SELECT p.org_id, p.month, p.noted, c.sequence, c.totals::text AS totals, c.events, c.unpriced_events, c.digest
FROM periods_to_close AS p
LEFT JOIN LATERAL (
    SELECT sequence, closed_at, totals, events, unpriced_events, digest
    FROM closed_periods
    WHERE org_id = p.org_id AND month = p.month
    ORDER BY sequence DESC
    LIMIT 1
) AS c ON true
WHERE (p.org_id, p.month) > ($1, $2) AND (c.closed_at IS NULL OR c.closed_at <= $3)
ORDER BY p.org_id, p.month
LIMIT $4

-- name: make_periods_in_hand
CREATE TEMP TABLE periods_in_hand (
    org_id text COLLATE "C", month text COLLATE "C", begins_at timestamptz, ends_at timestamptz, log_month date
) ON COMMIT DELETE ROWS

-- name: make_meters_in_hand
CREATE TEMP TABLE meters_in_hand (
    org_id text COLLATE "C", meter text COLLATE "C", aggregation text, quantity text, event_type text, providers text[],
    PRIMARY KEY (org_id, meter)
) ON COMMIT DELETE ROWS

-- name: bind_usage_to_fold
-- By the index of each of the log's tables that may hold events of the month: none was recorded more than an hour before
-- it occurred, hence the month before too.
CREATE TEMP VIEW usage_to_fold AS
SELECT
    e.org_id, e.id, e.occurred_at, e.event_type, e.user_id, e.provider, e.model, e.tokens_in, e.tokens_out,
    e.tokens_cached, e.tokens_cache_write, e.tokens_reasoning, e.tokens_audio_in, e.tokens_audio_out, e.requests,
    e.searches, e.images, e.pages, e.seconds, e.cost_usd, e.debates, e.api_calls, e.status, e.response_time_ms
FROM periods_in_hand AS p
CROSS JOIN LATERAL (
    SELECT
        org_id, id, occurred_at, event_type, user_id, provider, model, tokens_in, tokens_out, tokens_cached,
        tokens_cache_write, tokens_reasoning, tokens_audio_in, tokens_audio_out, requests, searches, images, pages,
        seconds, cost_usd, debates, api_calls, status, response_time_ms
    FROM usage_events
    WHERE org_id = p.org_id AND occurred_at >= p.begins_at AND occurred_at < p.ends_at AND log_month >= p.log_month
    OFFSET 0
) AS e

-- name: bind_limits_to_count
CREATE TEMP VIEW limits_to_count AS
SELECT org_id, meter, 'organization' AS per, aggregation, quantity, event_type, providers FROM meters_in_hand

-- name: take_in_hand
INSERT INTO periods_in_hand (org_id, month, begins_at, ends_at, log_month)
SELECT org_id, month, begins_at, begins_at + interval '1 month', ((begins_at AT TIME ZONE 'UTC') - interval '1 month')::date
FROM (
    SELECT org_id, month, (month || '-01')::timestamp AT TIME ZONE 'UTC' AS begins_at
    FROM unnest($1::text[], $2::text[]) AS n (org_id, month)
) AS taken

-- name: providers_in_hand
SELECT DISTINCT org_id, lower(provider) AS provider FROM days_to_fold WHERE provider <> ''

-- name: take_plan_meters
-- Of the organization's plan, whether or not it limits them.
INSERT INTO meters_in_hand (org_id, meter, aggregation, quantity, event_type, providers)
SELECT DISTINCT ON (org_id, meter) org_id, meter, aggregation, quantity, event_type, providers
FROM entitlement_limits
WHERE org_id IN (SELECT org_id FROM periods_in_hand)
ORDER BY org_id, meter, per

-- name: take_catalog_meters
-- And those that the catalog declares: it may have had another plan in that month. The latest version says what one is.
INSERT INTO meters_in_hand (org_id, meter, aggregation, quantity, event_type, providers)
SELECT p.org_id, m.name, m.aggregation, m.quantity, m.event_type, m.providers
FROM (SELECT DISTINCT org_id FROM periods_in_hand) AS p
CROSS JOIN (
    SELECT DISTINCT ON (m.name) m.name, m.aggregation, m.quantity, m.event_type, m.providers
    FROM plans, jsonb_array_elements(limits) AS l,
        jsonb_to_record(l -> 'meter')
        AS m (name text COLLATE "C", aggregation text, quantity text, event_type text, providers text[])
    ORDER BY m.name, version DESC
) AS m
ON CONFLICT DO NOTHING

-- name: take_built_in_meters
INSERT INTO meters_in_hand (org_id, meter, aggregation, quantity, providers)
SELECT org_id, meter, 'sum', quantity, string_to_array(providers, ',')
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS n (org_id, meter, quantity, providers)
ON CONFLICT DO NOTHING

-- name: has_peaks
SELECT EXISTS (SELECT FROM meters_in_hand WHERE aggregation = 'max')

-- name: period_totals
SELECT org_id, month, meter, used FROM limit_sums WHERE used > 0
UNION ALL
SELECT org_id, month, meter, count(*) FROM limit_sightings GROUP BY 1, 2, 3

-- name: period_peaks
SELECT org_id, month, meter, used FROM limit_peaks WHERE used > 0

-- name: period_digests
-- Of an event: SHA-256 of its fields, apart by the unit separator, which none of them may hold. Of a day: of the digests
-- of its events, in order. Of the month: of its days, each with its date. So it says nothing of people, who may be
-- erased, and nothing of the order in which events came; and no more is sorted in memory than one day of one organization.
SELECT
    org_id, to_char(day, 'YYYY-MM') AS month, sum(events)::bigint AS events, sum(unpriced_events)::bigint AS unpriced_events,
    encode(sha256(string_agg(convert_to(to_char(day, 'YYYY-MM-DD'), 'UTF8') || digest, ''::bytea ORDER BY day)), 'hex')
    AS digest
FROM (
    SELECT
        org_id, day, count(*) AS events, count(*) FILTER (WHERE is_unpriced) AS unpriced_events,
        sha256(string_agg(digest, ''::bytea ORDER BY digest)) AS digest
    FROM (
        SELECT
            org_id, (occurred_at AT TIME ZONE 'UTC')::date AS day, cost_usd IS NULL AS is_unpriced,
            sha256(convert_to(array_to_string(ARRAY[
                id, to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), event_type, provider, model,
                debates::text, api_calls::text, tokens_in::text, tokens_out::text, tokens_cached::text,
                tokens_cache_write::text, tokens_reasoning::text, tokens_audio_in::text, tokens_audio_out::text,
                requests::text, searches::text, images::text, pages::text, trim_scale(seconds::numeric)::text,
                trim_scale(cost_usd::numeric)::text
            ], chr(31), ''), 'UTF8')) AS digest
        FROM usage_to_fold
    ) AS events
    GROUP BY org_id, day
) AS days
GROUP BY org_id, to_char(day, 'YYYY-MM')

-- name: keep_closed
INSERT INTO closed_periods (org_id, month, sequence, closed_at, totals, events, unpriced_events, digest)
SELECT org_id, month, sequence, $1, totals::jsonb, events, unpriced_events, digest
FROM unnest($2::text[], $3::text[], $4::integer[], $5::text[], $6::bigint[], $7::bigint[], $8::text[])
    AS n (org_id, month, sequence, totals, events, unpriced_events, digest)

-- name: forget_noted
-- What was noted anew since stays, and so does what somebody is just noting: nobody waits for anybody here.
DELETE FROM periods_to_close AS p
USING (
    SELECT q.org_id, q.month
    FROM periods_to_close AS q
    JOIN unnest($1::text[], $2::text[], $3::bigint[]) AS n (org_id, month, noted)
        ON q.org_id = n.org_id AND q.month = n.month AND q.noted = n.noted
    FOR UPDATE OF q SKIP LOCKED
) AS done
WHERE p.org_id = done.org_id AND p.month = done.month

-- name: closed_periods
-- Of an organization, the latest word on each month, the latest month first.
SELECT DISTINCT ON (month) month, sequence, closed_at, totals::text AS totals, events, unpriced_events, digest
FROM closed_periods
WHERE org_id = $1
ORDER BY month DESC, sequence DESC
LIMIT $2
