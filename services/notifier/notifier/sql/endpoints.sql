-- Endpoints of organizations, and what was and is to be sent there (endpoints.py, deliveries.py).

-- name: count_endpoints
SELECT count(*) FROM webhook_endpoints WHERE org_id = $1

-- name: add_endpoint
WITH added AS (
    INSERT INTO webhook_endpoints
        (org_id, endpoint_id, url, description, event_types, format, secret, status, created_at, created_by)
    VALUES ($1, $2, $3, $4, $5, $6, $7, 'enabled', $8, $9)
    RETURNING org_id, endpoint_id
)
INSERT INTO webhook_lanes (org_id, endpoint_id) SELECT org_id, endpoint_id FROM added

-- name: endpoints_of
-- $2: one of them; null: all.
SELECT e.org_id, e.endpoint_id, e.url, e.description, e.event_types, e.format, e.former_until, e.status,
       e.disabled_because, e.disabled_at, e.created_at, e.created_by, l.next_attempt_at, l.failures, l.failing_since,
       (SELECT count(*) FROM webhook_deliveries d
        WHERE d.org_id = e.org_id AND d.endpoint_id = e.endpoint_id AND d.status = 'pending') AS waiting
FROM webhook_endpoints e
JOIN webhook_lanes l ON l.org_id = e.org_id AND l.endpoint_id = e.endpoint_id
WHERE e.org_id = $1 AND ($2::text IS NULL OR e.endpoint_id = $2)
ORDER BY e.created_at, e.endpoint_id

-- name: hold_endpoint
-- Whoever changes an endpoint or what it is to be sent holds it and then its lane, as those do who record what was sent.
SELECT status, format FROM webhook_endpoints WHERE org_id = $1 AND endpoint_id = $2 FOR NO KEY UPDATE

-- name: hold_lane
SELECT failures FROM webhook_lanes WHERE org_id = $1 AND endpoint_id = $2 FOR UPDATE

-- name: change_endpoint
UPDATE webhook_endpoints
SET url = coalesce($3, url), description = coalesce($4, description), event_types = coalesce($5, event_types),
    format = coalesce($6, format)
WHERE org_id = $1 AND endpoint_id = $2

-- name: rotate_secret
UPDATE webhook_endpoints
SET secret = $3, former_secret = CASE WHEN $4::timestamptz > $5 THEN secret END,
    former_until = CASE WHEN $4::timestamptz > $5 THEN $4::timestamptz END
WHERE org_id = $1 AND endpoint_id = $2

-- name: delete_endpoint
DELETE FROM webhook_endpoints WHERE org_id = $1 AND endpoint_id = $2

-- name: disable_endpoint
UPDATE webhook_endpoints SET status = 'disabled', disabled_because = 'chosen', disabled_at = $3
WHERE org_id = $1 AND endpoint_id = $2 AND status = 'enabled'

-- name: enable_endpoint
UPDATE webhook_endpoints SET status = 'enabled', disabled_because = NULL, disabled_at = NULL
WHERE org_id = $1 AND endpoint_id = $2

-- name: clear_lane
UPDATE webhook_lanes SET failures = 0, failing_since = NULL, warned_at = NULL WHERE org_id = $1 AND endpoint_id = $2

-- name: wake_lane
-- What waits there is tried now; if nothing does, there is nothing to try.
WITH woken AS (
    UPDATE webhook_lanes l
    SET next_attempt_at = CASE WHEN EXISTS (
        SELECT FROM webhook_deliveries d
        WHERE d.org_id = l.org_id AND d.endpoint_id = l.endpoint_id AND d.status = 'pending'
    ) THEN $3::timestamptz END
    WHERE l.org_id = $1 AND l.endpoint_id = $2
    RETURNING l.org_id
)
SELECT pg_notify('deliveries', '') FROM woken

-- name: still_lane
UPDATE webhook_lanes SET next_attempt_at = NULL WHERE org_id = $1 AND endpoint_id = $2

-- name: add_test
-- None, while another one waits.
INSERT INTO webhook_deliveries
    (org_id, endpoint_id, delivery_id, event_id, about_org_id, kind, body, status, due_at, created_at)
SELECT $1, $2, $3, $4, $1, $5, $6, 'pending', $7, $7
WHERE NOT EXISTS (
    SELECT FROM webhook_deliveries d
    WHERE d.org_id = $1 AND d.endpoint_id = $2 AND d.status = 'pending' AND d.kind = $5
)
RETURNING delivery_id

-- name: deliveries_page
WITH found AS (
    SELECT org_id, endpoint_id, delivery_id, position, event_id, about_org_id, kind, status, attempts, due_at, created_at,
           finished_at
    FROM webhook_deliveries
    WHERE org_id = $1 AND endpoint_id = $2
      AND ($3::bigint IS NULL OR position < $3)
      AND ($4::text IS NULL OR status = $4)
      AND ($5::text IS NULL OR kind = $5)
    ORDER BY position DESC
    LIMIT $6
)
SELECT d.delivery_id, d.position, d.event_id, d.about_org_id, d.kind, d.status, d.attempts, d.due_at, d.created_at,
       d.finished_at, a.attempted_at AS last_attempt_at, a.status_code AS last_status_code, a.failure AS last_failure
FROM found d
LEFT JOIN LATERAL (
    SELECT attempted_at, status_code, failure FROM webhook_attempts a
    WHERE a.org_id = d.org_id AND a.endpoint_id = d.endpoint_id AND a.delivery_id = d.delivery_id
    ORDER BY attempted_at DESC LIMIT 1
) a ON true
ORDER BY d.position DESC

-- name: delivery
SELECT d.delivery_id, d.event_id, d.about_org_id, d.kind, d.status, d.attempts, d.due_at, d.created_at, d.finished_at,
       a.attempted_at AS last_attempt_at, a.status_code AS last_status_code, a.failure AS last_failure, d.body, e.format
FROM webhook_deliveries d
JOIN webhook_endpoints e ON e.org_id = d.org_id AND e.endpoint_id = d.endpoint_id
LEFT JOIN LATERAL (
    SELECT attempted_at, status_code, failure FROM webhook_attempts a
    WHERE a.org_id = d.org_id AND a.endpoint_id = d.endpoint_id AND a.delivery_id = d.delivery_id
    ORDER BY attempted_at DESC LIMIT 1
) a ON true
WHERE d.org_id = $1 AND d.endpoint_id = $2 AND d.delivery_id = $3

-- name: attempts_of
SELECT attempted_at, milliseconds, request_headers, status_code, answer, failure
FROM webhook_attempts
WHERE org_id = $1 AND endpoint_id = $2 AND delivery_id = $3
ORDER BY attempted_at DESC
LIMIT $4

-- name: redeliver_one
-- It keeps its place and its id.
UPDATE webhook_deliveries SET status = 'pending', due_at = $3, finished_at = NULL
WHERE org_id = $1 AND endpoint_id = $2 AND delivery_id = $4 AND status <> 'pending'

-- name: redeliver
-- Those of some states since a moment. They keep their places and their ids.
UPDATE webhook_deliveries SET status = 'pending', due_at = $3, finished_at = NULL
WHERE org_id = $1 AND endpoint_id = $2 AND status = ANY ($4::text[]) AND created_at >= $5
  AND ($6::timestamptz IS NULL OR created_at < $6)

-- name: first_waiting
SELECT delivery_id FROM webhook_deliveries
WHERE org_id = $1 AND endpoint_id = $2 AND status = 'pending'
ORDER BY position LIMIT 1

-- name: skip_delivery
UPDATE webhook_deliveries SET status = 'skipped', finished_at = $4
WHERE org_id = $1 AND endpoint_id = $2 AND delivery_id = $3 AND status = 'pending'
