-- The operator's own endpoint (operator_endpoint.py).

-- name: keep_operator_endpoint
INSERT INTO webhook_endpoints AS e
    (org_id, endpoint_id, url, description, event_types, format, secret, status, created_at, created_by)
VALUES ($1, $2, $3, 'The operator''s webhook', '{}', $4, $5, 'enabled', $7, 'configuration')
ON CONFLICT (org_id, endpoint_id) DO UPDATE
SET url = excluded.url, format = excluded.format, status = 'enabled', disabled_because = NULL, disabled_at = NULL,
    secret = CASE WHEN $6::boolean THEN excluded.secret ELSE e.secret END

-- name: try_operator_lane
INSERT INTO webhook_lanes AS l (org_id, endpoint_id) VALUES ($1, $2)
ON CONFLICT (org_id, endpoint_id) DO UPDATE
SET next_attempt_at = CASE WHEN l.next_attempt_at IS NOT NULL OR EXISTS (
    SELECT FROM webhook_deliveries d WHERE d.org_id = $1 AND d.endpoint_id = $2 AND d.status = 'pending'
) THEN $3::timestamptz END
