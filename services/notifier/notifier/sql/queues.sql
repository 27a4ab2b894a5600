-- What is due and was not done yet (metrics.py). By the indexes of what waits; in each queue up to $2 are counted.

-- name: read_queues
SELECT 'alerts' AS queue, count(*) AS messages, coalesce(extract(epoch FROM $1::timestamptz - min(due_at)), 0) AS seconds
FROM (SELECT queued_at AS due_at FROM unaddressed_alerts WHERE queued_at <= $1 ORDER BY queued_at LIMIT $2) AS due
UNION ALL
SELECT 'mail', count(*), coalesce(extract(epoch FROM $1 - min(due_at)), 0)
FROM (
    SELECT send_at AS due_at FROM email_deliveries WHERE status = 'pending' AND mode = 'mail' AND send_at <= $1 LIMIT $2
) AS due
UNION ALL
SELECT 'digests', count(*), coalesce(extract(epoch FROM $1 - min(due_at)), 0)
FROM (
    SELECT send_at AS due_at FROM email_deliveries
    WHERE status = 'pending' AND mode = 'digest' AND message_id IS NULL AND send_at <= $1
    LIMIT $2
) AS due
UNION ALL
SELECT 'webhooks', count(*), coalesce(extract(epoch FROM $1 - min(due_at)), 0)
FROM (SELECT next_attempt_at AS due_at FROM webhook_lanes WHERE failures = 0 AND next_attempt_at <= $1 LIMIT $2) AS due
UNION ALL
SELECT 'failing_webhooks', count(*), coalesce(extract(epoch FROM $1 - min(due_at)), 0)
FROM (SELECT next_attempt_at AS due_at FROM webhook_lanes WHERE failures > 0 AND next_attempt_at <= $1 LIMIT $2) AS due
