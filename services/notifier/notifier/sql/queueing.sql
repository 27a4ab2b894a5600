-- How something gets into the queues (queueing.py).

-- name: wait_for_turn
-- One writer at a time: so positions are committed in their order, and whoever reads on from one misses nothing.
SELECT pg_advisory_xact_lock(7887331211930)

-- name: add_alerts
-- Of who was erased meanwhile nothing is told that concerns them alone, and the rest does not say whom it concerns.
INSERT INTO usage_alerts
    (org_id, alert_id, kind, audience, user_id, severity, title, message, facts, place, threshold_percentage, provider,
     meter, billing_period, occurred_at, created_at)
SELECT org_id, alert_id, kind, audience,
       CASE WHEN EXISTS (SELECT FROM erased_people p WHERE p.user_id = n.user_id) THEN '' ELSE user_id END,
       severity, title, message, facts::jsonb, place, threshold_percentage,
       provider, meter, billing_period, occurred_at, $16
FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
            $10::text[], $11::integer[], $12::text[], $13::text[], $14::text[], $15::timestamptz[])
     WITH ORDINALITY AS n (org_id, alert_id, kind, audience, user_id, severity, title, message, facts, place,
                           threshold_percentage, provider, meter, billing_period, occurred_at, place_in_batch)
WHERE audience <> 'person' OR NOT EXISTS (SELECT FROM erased_people p WHERE p.user_id = n.user_id)
ORDER BY place_in_batch
ON CONFLICT (org_id, alert_id) DO NOTHING
RETURNING org_id, alert_id

-- name: tell_of_alerts
-- Whoever shows alerts live listens; a payload is an organization.
SELECT pg_notify('alerts', org_id) FROM unnest($1::text[]) AS o (org_id)

-- name: add_unaddressed
INSERT INTO unaddressed_alerts (org_id, alert_id, topic, topic_rank, expires_at, queued_at)
SELECT org_id, alert_id, topic, topic_rank, expires_at, $6
FROM unnest($1::text[], $2::uuid[], $3::text[], $4::integer[], $5::timestamptz[])
     AS n (org_id, alert_id, topic, topic_rank, expires_at)
ON CONFLICT (org_id, alert_id) DO NOTHING

-- name: add_letters
INSERT INTO email_deliveries
    (org_id, delivery_id, event_id, kind, user_id, message_id, mode, send_at, expires_at, created_at)
SELECT org_id, uuidv7(), event_id, kind, user_id, message_id, 'mail', $7, expires_at, $7
FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
     AS n (org_id, event_id, kind, user_id, message_id, expires_at)
WHERE NOT EXISTS (SELECT FROM erased_people p WHERE p.user_id = n.user_id)
ON CONFLICT (message_id) WHERE message_id IS NOT NULL DO NOTHING

-- name: add_webhooks
-- To the organization's endpoints that chose the kind, and to the operator's. What comes while an endpoint is disabled
-- is kept, to be redelivered.
WITH incoming AS (
    SELECT org_id, event_id, kind, body, for_endpoints, n
    FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::boolean[])
         WITH ORDINALITY AS i (org_id, event_id, kind, body, for_endpoints, n)
), added AS (
    INSERT INTO webhook_deliveries
        (org_id, endpoint_id, delivery_id, event_id, about_org_id, kind, body, status, due_at, created_at)
    SELECT e.org_id, e.endpoint_id, uuidv7(), i.event_id, i.org_id, i.kind, i.body,
           CASE e.status WHEN 'enabled' THEN 'pending' ELSE 'skipped' END, $6, $6
    FROM incoming i
    JOIN webhook_endpoints e
      ON (e.org_id = i.org_id AND i.for_endpoints OR e.org_id = 'platform' AND e.endpoint_id = 'operator')
     AND (e.event_types = '{}' OR i.kind = ANY (e.event_types))
    ORDER BY i.n
    ON CONFLICT (org_id, endpoint_id, event_id) DO NOTHING
    RETURNING org_id, endpoint_id, status
), locked AS (  -- in the order in which those who release lanes lock them, so that nobody waits for ever
    SELECT org_id, endpoint_id FROM webhook_lanes
    WHERE (org_id, endpoint_id) IN (SELECT org_id, endpoint_id FROM added WHERE status = 'pending')
    ORDER BY org_id, endpoint_id
    FOR UPDATE
), woken AS (
    UPDATE webhook_lanes l SET next_attempt_at = coalesce(l.next_attempt_at, $6)
    FROM locked a
    WHERE l.org_id = a.org_id AND l.endpoint_id = a.endpoint_id
    RETURNING l.org_id
)
SELECT pg_notify('deliveries', '') FROM woken LIMIT 1

-- name: wake_mail
SELECT pg_notify('mail', '')
