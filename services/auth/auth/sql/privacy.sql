-- A person's data: all of it to be read, or to be erased.

-- name: person
SELECT user_id, email, name, is_operator, email_verified_at, totp_enabled_at, created_at
FROM users WHERE user_id = $1 AND erased_at IS NULL

-- name: memberships_ever
SELECT m.org_id, o.name, o.slug, m.role, m.joined_at, m.left_at
FROM members AS m JOIN organizations AS o ON o.org_id = m.org_id
WHERE m.user_id = $1 ORDER BY m.joined_at, m.org_id

-- name: sessions_of_person
SELECT session_id, org_id, created_at, rotated_at AS last_used_at, expires_at, address, program, ended_at, ended_because
FROM sessions WHERE user_id = $1 ORDER BY created_at, session_id

-- name: keys_of_person
SELECT org_id, key_id, user_id, name, prefix, scopes, created_at, expires_at, last_used_at, revoked_at
FROM api_keys WHERE user_id = $1 ORDER BY key_id

-- name: invitations_to
SELECT i.org_id, o.name AS org_name, i.role, i.created_at, i.expires_at, i.status
FROM invitations AS i JOIN organizations AS o ON o.org_id = i.org_id
WHERE i.email = $1 ORDER BY i.created_at, i.invitation_id

-- name: letters_to
SELECT kind, created_at, expires_at, used_at FROM messages
WHERE email = $1 ORDER BY created_at, message_id

-- name: reset_requests_for
SELECT requested_at FROM reset_requests WHERE email = $1 ORDER BY requested_at

-- name: events_of_person
SELECT event_id, occurred_at, action, actor, user_id, org_id, succeeded, address, program, detail
FROM security_events WHERE user_id = $1 OR actor = $1 ORDER BY event_id

-- name: standing
SELECT email, erased_at FROM users WHERE user_id = $1

-- name: hold_organizations_around
-- Those that the person is or was in, or may join just now.
SELECT o.org_id FROM organizations AS o
WHERE o.org_id IN (
    SELECT m.org_id FROM members AS m WHERE m.user_id = $1
    UNION ALL
    SELECT i.org_id FROM invitations AS i WHERE i.email = $2 AND i.status = 'open'
)
ORDER BY o.org_id FOR NO KEY UPDATE

-- name: erase_user
-- The answer is the address that the account had.
WITH before AS (SELECT user_id, email FROM users WHERE user_id = $1 AND erased_at IS NULL FOR UPDATE)
UPDATE users AS u
SET email = NULL, name = NULL, password_hash = NULL, is_operator = false, email_verified_at = NULL,
    totp_secret = NULL, totp_enabled_at = NULL, totp_last_step = NULL, erased_at = $2
FROM before AS b WHERE u.user_id = b.user_id
RETURNING b.email

-- name: erase_recovery_codes
DELETE FROM recovery_codes WHERE user_id = $1

-- name: erase_messages
DELETE FROM messages WHERE user_id = $1 OR email = $2

-- name: erase_invitations
UPDATE invitations SET email = NULL WHERE email = $1

-- name: erase_reset_requests
DELETE FROM reset_requests WHERE email = $1

-- name: erase_sessions
UPDATE sessions SET address = NULL, program = NULL WHERE user_id = $1

-- name: erase_events
UPDATE security_events SET address = NULL, program = NULL
WHERE (user_id = $1 OR actor = $1) AND (address IS NOT NULL OR program IS NOT NULL)
