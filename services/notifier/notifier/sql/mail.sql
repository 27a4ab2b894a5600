-- Mail that is to be sent (mailing.py, digests.py), what became of it (outcomes.py), and addresses that get none.

-- name: claim_mail
-- What is due and nobody else is at; letters first, for which somebody waits. Mail of the same topic and a higher rank,
-- about something that did not happen earlier, has taken its place: if it was sent, or still may be. (Events come nearly
-- in their order: later mail may have been queued a little earlier.)
UPDATE email_deliveries d SET claimed_until = $2, claimed_by = $4
FROM (
    SELECT org_id, delivery_id FROM email_deliveries
    WHERE status = 'pending' AND mode = 'mail' AND send_at <= $1 AND (claimed_until IS NULL OR claimed_until <= $1)
    ORDER BY (message_id IS NULL), send_at LIMIT $3
    FOR UPDATE SKIP LOCKED
) c
JOIN email_deliveries e ON e.org_id = c.org_id AND e.delivery_id = c.delivery_id
LEFT JOIN usage_alerts a ON a.org_id = e.org_id AND a.alert_id = e.event_id AND e.message_id IS NULL
WHERE d.org_id = c.org_id AND d.delivery_id = c.delivery_id
RETURNING d.org_id, d.delivery_id, d.event_id, d.kind, d.user_id, d.message_id, d.attempts, d.created_at, d.expires_at,
          d.claimed_until, a.severity, a.title, a.message, a.facts::text, a.place, a.occurred_at,
          EXISTS (
              SELECT FROM email_deliveries o
              JOIN usage_alerts l ON l.org_id = o.org_id AND l.alert_id = o.event_id
              WHERE o.user_id = d.user_id AND o.org_id = d.org_id AND o.created_at > d.created_at - interval '1 hour'
                AND l.occurred_at >= a.occurred_at AND o.mode = 'mail' AND o.topic = d.topic
                AND o.topic_rank > d.topic_rank AND (o.status = 'sent' OR o.status = 'pending' AND o.expires_at > $1)
          ) AS is_superseded

-- name: one_claims_digests
-- So that what waits for one person is claimed by one worker.
SELECT pg_advisory_xact_lock(7887331211931)

-- name: claim_digests
-- All that waits for the people whose digest is due, and whether they have read it in the product meanwhile, or chosen
-- not to be told of it by e-mail any more.
UPDATE email_deliveries d SET claimed_until = $2, claimed_by = $4
FROM (
    SELECT DISTINCT org_id, user_id
    FROM (
        SELECT org_id, user_id FROM email_deliveries
        WHERE status = 'pending' AND mode = 'digest' AND message_id IS NULL AND send_at <= $1
          AND (claimed_until IS NULL OR claimed_until <= $1)
        ORDER BY send_at LIMIT $3
    ) due
) c
JOIN email_deliveries e ON e.org_id = c.org_id AND e.user_id = c.user_id
 AND e.status = 'pending' AND e.send_at <= $1 AND e.mode = 'digest' AND (e.claimed_until IS NULL OR e.claimed_until <= $1)
LEFT JOIN usage_alerts a ON a.org_id = e.org_id AND a.alert_id = e.event_id
LEFT JOIN alert_reads r ON r.org_id = e.org_id AND r.user_id = e.user_id AND r.alert_id = e.event_id
LEFT JOIN alert_marks m ON m.org_id = e.org_id AND m.user_id = e.user_id AND m.read_through >= a.position
LEFT JOIN notification_preferences p
  ON p.org_id = e.org_id AND p.user_id = e.user_id AND p.kind = e.kind AND p.email = 'off'
WHERE d.org_id = e.org_id AND d.delivery_id = e.delivery_id
RETURNING d.org_id, d.delivery_id, d.event_id, d.kind, d.user_id, d.message_id, d.attempts, d.created_at, d.expires_at,
          d.claimed_until, a.severity, a.title, a.message, a.facts::text, a.place, a.occurred_at,
          CASE WHEN p.kind IS NOT NULL THEN 'unsubscribed'
               WHEN r.alert_id IS NOT NULL OR m.user_id IS NOT NULL THEN 'read' END AS needless_because

-- name: finish
-- Only what is still ours: who took longer than the claim lasts has lost it to somebody else.
UPDATE email_deliveries d
SET status = $4, reason = $5, finished_at = $6, attempts = d.attempts + $7, claimed_until = NULL, claimed_by = NULL
FROM unnest($1::text[], $2::uuid[]) AS f (org_id, delivery_id)
WHERE d.org_id = f.org_id AND d.delivery_id = f.delivery_id AND d.status = 'pending' AND d.claimed_until = $3
RETURNING d.delivery_id, d.attempts

-- name: put_back
UPDATE email_deliveries d SET send_at = $4, attempts = d.attempts + $5, claimed_until = NULL, claimed_by = NULL
FROM unnest($1::text[], $2::uuid[]) AS f (org_id, delivery_id)
WHERE d.org_id = f.org_id AND d.delivery_id = f.delivery_id AND d.status = 'pending' AND d.claimed_until = $3

-- name: release_mail_of_the_dead
UPDATE email_deliveries d SET claimed_by = NULL, claimed_until = NULL
WHERE claimed_by IS NOT NULL AND NOT EXISTS (SELECT FROM present_workers p WHERE p.key = worker_key(d.claimed_by))

-- name: may_be_sent
-- The last look before mail leaves: whether it still waits as it was claimed (who left, or was erased, gets no more), and
-- whether the address, by one of the digests that it has, is to get none.
SELECT EXISTS (
           SELECT FROM email_deliveries
           WHERE org_id = $1 AND delivery_id = $2 AND status = 'pending' AND claimed_until = $3
       ) AS is_ours,
       EXISTS (SELECT FROM suppressed_addresses WHERE digest = ANY ($4::bytea[])) AS is_suppressed

-- name: suppress
INSERT INTO suppressed_addresses (digest, reason, suppressed_at) VALUES ($1, $2, $3) ON CONFLICT (digest) DO NOTHING

-- name: release
DELETE FROM suppressed_addresses WHERE digest = ANY ($1::bytea[])

-- name: operator_listens
SELECT EXISTS (
    SELECT FROM webhook_endpoints
    WHERE org_id = 'platform' AND endpoint_id = 'operator' AND status = 'enabled'
      AND (event_types = '{}' OR 'notification.undelivered' = ANY (event_types))
)

-- name: operator_knows
-- How many of these events the operator's webhook is told of by itself.
SELECT count(*)::integer FROM webhook_deliveries
WHERE org_id = 'platform' AND endpoint_id = 'operator' AND event_id = ANY ($1::uuid[]) AND status <> 'skipped'

-- name: choices
SELECT user_id, kind, email, in_app FROM notification_preferences WHERE org_id = $1 AND user_id = ANY ($2::text[])

-- name: choose
-- By a link that is good for ever: of who has left, or was erased, nothing is kept.
INSERT INTO notification_preferences AS p (org_id, user_id, kind, email, changed_at)
SELECT $1, $2, kind, $4, $5 FROM unnest($3::text[]) AS k (kind)
WHERE EXISTS (SELECT FROM contacts WHERE org_id = $1 AND user_id = $2)
ON CONFLICT (org_id, user_id, kind) DO UPDATE SET email = excluded.email, changed_at = excluded.changed_at

-- name: choose_again
UPDATE notification_preferences SET email = $4, changed_at = $5
WHERE org_id = $1 AND user_id = $2 AND kind = ANY ($3::text[]) AND email = 'off'

-- name: drop_unwanted
UPDATE email_deliveries SET status = 'superseded', reason = 'unsubscribed', finished_at = $4
WHERE org_id = $1 AND user_id = $2 AND kind = ANY ($3::text[]) AND message_id IS NULL AND status = 'pending'
  AND (claimed_until IS NULL OR claimed_until <= $4)
