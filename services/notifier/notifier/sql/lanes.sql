-- The lanes in which messages leave for endpoints (lanes.py, recording.py).

-- name: release_lanes_of_the_dead
WITH dead AS (
    SELECT org_id, endpoint_id FROM webhook_lanes
    WHERE claimed_by IS NOT NULL
      AND NOT EXISTS (SELECT FROM present_workers p WHERE p.key = worker_key(claimed_by))
    FOR UPDATE SKIP LOCKED
)
UPDATE webhook_lanes l SET claimed_by = NULL, claimed_until = NULL
FROM dead d WHERE l.org_id = d.org_id AND l.endpoint_id = d.endpoint_id

-- name: claim_lanes
-- Lanes that are well and lanes that fail have room apart: $4 and $5.
WITH well AS (
    SELECT l.org_id, l.endpoint_id
    FROM webhook_lanes l JOIN webhook_endpoints e ON e.org_id = l.org_id AND e.endpoint_id = l.endpoint_id
    WHERE l.failures = 0 AND l.next_attempt_at <= $3 AND (l.claimed_until IS NULL OR l.claimed_until <= $3)
      AND e.status = 'enabled'
    ORDER BY l.next_attempt_at LIMIT $4
    FOR UPDATE OF l SKIP LOCKED
), failing AS (
    SELECT l.org_id, l.endpoint_id
    FROM webhook_lanes l JOIN webhook_endpoints e ON e.org_id = l.org_id AND e.endpoint_id = l.endpoint_id
    WHERE l.failures > 0 AND l.next_attempt_at <= $3 AND (l.claimed_until IS NULL OR l.claimed_until <= $3)
      AND e.status = 'enabled'
    ORDER BY l.next_attempt_at LIMIT $5
    FOR UPDATE OF l SKIP LOCKED
)
UPDATE webhook_lanes l SET claimed_by = $1, claimed_until = $2
FROM (SELECT org_id, endpoint_id FROM well UNION ALL SELECT org_id, endpoint_id FROM failing) d
WHERE l.org_id = d.org_id AND l.endpoint_id = d.endpoint_id
RETURNING l.org_id, l.endpoint_id, l.failures

-- name: read_messages
-- The first of what waits in each lane.
SELECT e.org_id, e.endpoint_id, e.url, e.format, e.secret, e.former_secret, e.former_until,
       d.delivery_id, d.event_id, d.kind, d.body, d.due_at
FROM unnest($1::text[], $2::text[]) AS l (org_id, endpoint_id)
JOIN webhook_endpoints e ON e.org_id = l.org_id AND e.endpoint_id = l.endpoint_id AND e.status = 'enabled'
CROSS JOIN LATERAL (
    SELECT w.delivery_id, w.event_id, w.kind, w.body, w.due_at, w.position
    FROM webhook_deliveries w
    WHERE w.org_id = e.org_id AND w.endpoint_id = e.endpoint_id AND w.status = 'pending'
    ORDER BY w.position LIMIT $3
) d
ORDER BY e.org_id, e.endpoint_id, d.position

-- name: is_ours_still
SELECT e.status = 'enabled' AND l.claimed_by = $3
FROM webhook_endpoints e JOIN webhook_lanes l ON l.org_id = e.org_id AND l.endpoint_id = e.endpoint_id
WHERE e.org_id = $1 AND e.endpoint_id = $2

-- name: lock_endpoints
-- Before their lanes, always: so nobody waits for somebody who waits.
SELECT org_id, endpoint_id, description, status
FROM webhook_endpoints e JOIN unnest($1::text[], $2::text[]) AS n (org_id, endpoint_id) USING (org_id, endpoint_id)
ORDER BY org_id, endpoint_id
FOR NO KEY UPDATE OF e

-- name: lock_lanes
SELECT org_id, endpoint_id, next_attempt_at, failures, failing_since, warned_at, claimed_by, claimed_until
FROM webhook_lanes l JOIN unnest($1::text[], $2::text[]) AS n (org_id, endpoint_id) USING (org_id, endpoint_id)
ORDER BY org_id, endpoint_id
FOR UPDATE OF l

-- name: keep_attempted
-- What is no longer waiting was settled by somebody else meanwhile.
UPDATE webhook_deliveries d
SET status = n.status, attempts = d.attempts + 1, finished_at = CASE WHEN n.status <> 'pending' THEN $5::timestamptz END
FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[]) AS n (org_id, endpoint_id, delivery_id, status)
WHERE d.org_id = n.org_id AND d.endpoint_id = n.endpoint_id AND d.delivery_id = n.delivery_id AND d.status = 'pending'
RETURNING d.org_id, d.endpoint_id, d.delivery_id, d.event_id, d.kind, d.attempts, d.status

-- name: log_attempts
-- Of what is deleted meanwhile there is no log.
INSERT INTO webhook_attempts
    (org_id, endpoint_id, delivery_id, attempted_at, milliseconds, request_headers, status_code, answer, failure)
SELECT n.org_id, n.endpoint_id, n.delivery_id, n.attempted_at, n.milliseconds, n.request_headers::jsonb, n.status_code,
       n.answer, n.failure
FROM unnest($1::text[], $2::text[], $3::uuid[], $4::timestamptz[], $5::integer[], $6::text[], $7::integer[], $8::text[],
            $9::text[])
     AS n (org_id, endpoint_id, delivery_id, attempted_at, milliseconds, request_headers, status_code, answer, failure)
JOIN webhook_deliveries d
  ON d.org_id = n.org_id AND d.endpoint_id = n.endpoint_id AND d.delivery_id = n.delivery_id
FOR KEY SHARE OF d
ON CONFLICT (org_id, endpoint_id, delivery_id, attempted_at) DO NOTHING

-- name: disable_endpoints
UPDATE webhook_endpoints e SET status = 'disabled', disabled_because = n.because, disabled_at = $4
FROM unnest($1::text[], $2::text[], $3::text[]) AS n (org_id, endpoint_id, because)
WHERE e.org_id = n.org_id AND e.endpoint_id = n.endpoint_id

-- name: release_lanes
-- Whoever adds a message and whoever releases its lane lock the lane first: one of the two sees that something waits.
UPDATE webhook_lanes l
SET failures = n.failures, failing_since = n.failing_since, warned_at = n.warned_at, claimed_by = NULL,
    claimed_until = NULL,
    next_attempt_at = CASE WHEN EXISTS (
        SELECT FROM webhook_deliveries d JOIN webhook_endpoints e ON e.org_id = d.org_id AND e.endpoint_id = d.endpoint_id
        WHERE d.org_id = l.org_id AND d.endpoint_id = l.endpoint_id AND d.status = 'pending' AND e.status = 'enabled'
    ) THEN n.next_attempt_at END
FROM unnest($1::text[], $2::text[], $3::integer[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[])
     AS n (org_id, endpoint_id, failures, failing_since, warned_at, next_attempt_at)
WHERE l.org_id = n.org_id AND l.endpoint_id = n.endpoint_id
