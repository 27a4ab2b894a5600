-- Who joins, leaves, is erased (people.py).

-- name: change_directory
-- Not before auth was asked, also where the clocks of two machines differ.
INSERT INTO directories AS d (org_id, changed_at) VALUES ($1, $2)
ON CONFLICT (org_id) DO UPDATE SET changed_at = greatest(excluded.changed_at, d.asked_at)

-- name: change_directories_of
UPDATE directories SET changed_at = greatest($2, asked_at) WHERE org_id IN (SELECT org_id FROM contacts WHERE user_id = $1)

-- name: close_directory
INSERT INTO directories (org_id, changed_at, closed_at) VALUES ($1, $2, $2)
ON CONFLICT (org_id) DO UPDATE SET changed_at = excluded.changed_at, closed_at = excluded.closed_at, name = NULL

-- name: drop_contact
DELETE FROM contacts WHERE org_id = $1 AND user_id = $2

-- name: drop_contacts_of
DELETE FROM contacts WHERE org_id = $1

-- name: drop_choices
DELETE FROM notification_preferences WHERE org_id = $1 AND user_id = $2

-- name: drop_choices_of
DELETE FROM notification_preferences WHERE org_id = $1

-- name: drop_endpoints_of
DELETE FROM webhook_endpoints WHERE org_id = $1

-- name: drop_unaddressed_of
DELETE FROM unaddressed_alerts WHERE org_id = $1

-- name: drop_mail
DELETE FROM email_deliveries WHERE org_id = $1 AND user_id = $2 AND status = 'pending'

-- name: drop_mail_about
DELETE FROM email_deliveries WHERE org_id = $1 AND user_id = $2 AND kind = ANY ($3::text[]) AND status = 'pending'

-- name: drop_mail_of
DELETE FROM email_deliveries WHERE org_id = $1 AND status = 'pending'

-- name: note_erased
INSERT INTO erased_people (user_id, erased_at) VALUES ($1, $2) ON CONFLICT (user_id) DO NOTHING

-- name: erase_contacts
DELETE FROM contacts WHERE user_id = $1

-- name: erase_choices
DELETE FROM notification_preferences WHERE user_id = $1

-- name: erase_reads
DELETE FROM alert_reads WHERE user_id = $1

-- name: erase_marks
DELETE FROM alert_marks WHERE user_id = $1

-- name: erase_mail
DELETE FROM email_deliveries WHERE user_id = $1

-- name: erase_alerts
DELETE FROM usage_alerts WHERE user_id = $1 AND audience = 'person'

-- name: erase_from_alerts
-- Of an organization's alert about a person the alert stays, and tells of nobody.
UPDATE usage_alerts SET user_id = '' WHERE user_id = $1
