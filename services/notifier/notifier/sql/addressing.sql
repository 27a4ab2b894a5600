-- From an alert to mail for those who must know (addressing.py).

-- name: claim_unaddressed
UPDATE unaddressed_alerts u SET claimed_by = $3, claimed_until = $1 + interval '1 minute'
FROM (
    SELECT org_id, alert_id FROM unaddressed_alerts
    WHERE claimed_until IS NULL OR claimed_until <= $1
    ORDER BY queued_at LIMIT $2
    FOR UPDATE SKIP LOCKED
) c
WHERE u.org_id = c.org_id AND u.alert_id = c.alert_id
RETURNING u.org_id, u.alert_id, u.topic, u.topic_rank, u.expires_at, u.queued_at,
          (SELECT a.kind FROM usage_alerts a WHERE a.org_id = u.org_id AND a.alert_id = u.alert_id),
          (SELECT a.user_id FROM usage_alerts a WHERE a.org_id = u.org_id AND a.alert_id = u.alert_id)

-- name: release_alerts_of_the_dead
UPDATE unaddressed_alerts u SET claimed_by = NULL, claimed_until = NULL
WHERE claimed_by IS NOT NULL AND NOT EXISTS (SELECT FROM present_workers p WHERE p.key = worker_key(u.claimed_by))

-- name: choices_of
SELECT user_id, kind, email, in_app FROM notification_preferences WHERE org_id = $1

-- name: sent_lately
SELECT org_id, user_id, count(*)::integer AS sent
FROM email_deliveries
WHERE org_id = ANY ($1::text[]) AND user_id = ANY ($2::text[]) AND mode = 'mail' AND created_at > $3
GROUP BY org_id, user_id

-- name: add_mail
INSERT INTO email_deliveries
    (org_id, delivery_id, event_id, kind, user_id, mode, topic, topic_rank, send_at, expires_at, created_at)
SELECT n.org_id, uuidv7(), n.event_id, n.kind, n.user_id, n.mode, n.topic, n.topic_rank, n.send_at, n.expires_at, $10
FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::integer[], $8::timestamptz[],
            $9::timestamptz[])
     AS n (org_id, event_id, kind, user_id, mode, topic, topic_rank, send_at, expires_at)
JOIN unaddressed_alerts u ON u.org_id = n.org_id AND u.alert_id = n.event_id
WHERE NOT EXISTS (SELECT FROM erased_people p WHERE p.user_id = n.user_id)
ON CONFLICT (org_id, event_id, user_id) WHERE message_id IS NULL DO NOTHING

-- name: drop_addressed
DELETE FROM unaddressed_alerts u USING unnest($1::text[], $2::uuid[]) AS d (org_id, alert_id)
WHERE u.org_id = d.org_id AND u.alert_id = d.alert_id

-- name: wake_mail
SELECT pg_notify('mail', '')
