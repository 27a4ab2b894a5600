-- What is forgotten (housekeeping.py).

-- name: forget_alerts
-- An alert whose mail still waits stays: the mail has its words from it.
DELETE FROM usage_alerts a
WHERE created_at < $1
  AND NOT EXISTS (SELECT FROM email_deliveries e
                  WHERE e.org_id = a.org_id AND e.event_id = a.alert_id AND e.status = 'pending')

-- name: forget_reads
DELETE FROM alert_reads WHERE read_at < $1

-- name: forget_mail
DELETE FROM email_deliveries WHERE finished_at < $1

-- name: forget_webhooks
-- What somebody is at just now is forgotten later: so nobody waits for ever.
DELETE FROM webhook_deliveries WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM webhook_deliveries WHERE created_at < $1 AND status <> 'pending' FOR UPDATE SKIP LOCKED
))

-- name: forget_former_secrets
UPDATE webhook_endpoints SET former_secret = NULL, former_until = NULL WHERE former_until < $1

-- name: forget_erased
DELETE FROM erased_people WHERE erased_at < $1
