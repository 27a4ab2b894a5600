-- Acts.

-- name: note_security_event
INSERT INTO security_events
    (event_id, org_id, user_id, actor, action, succeeded, address, program, detail, occurred_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::jsonb, $10)

-- Accounts.

-- name: open_account
INSERT INTO users (user_id, email, name, password_hash, is_operator, created_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (email) DO NOTHING
RETURNING user_id, email, name, password_hash, is_operator, email_verified_at, totp_secret, totp_enabled_at, created_at

-- name: user_by_email
SELECT user_id, email, name, password_hash, is_operator, email_verified_at, totp_secret, totp_enabled_at, created_at
FROM users WHERE email = $1

-- name: user_by_id
SELECT user_id, email, name, password_hash, is_operator, email_verified_at, totp_secret, totp_enabled_at, created_at
FROM users WHERE user_id = $1 AND erased_at IS NULL

-- name: email_of
SELECT email FROM users WHERE user_id = $1

-- name: email_exists
SELECT true FROM users WHERE email = $1

-- name: hold_user
SELECT true FROM users WHERE user_id = $1 FOR NO KEY UPDATE

-- name: rename_user
UPDATE users SET name = $2 WHERE user_id = $1 AND erased_at IS NULL

-- name: verify_email
UPDATE users SET email_verified_at = coalesce(email_verified_at, $2) WHERE user_id = $1

-- name: set_password
UPDATE users SET password_hash = $2 WHERE user_id = $1

-- name: renew_hash
-- Unless the password was changed meanwhile.
UPDATE users SET password_hash = $3 WHERE user_id = $1 AND password_hash = $2

-- name: set_operator
UPDATE users SET is_operator = $2 WHERE user_id = $1

-- name: memberships_of
SELECT m.org_id, o.name, o.slug, m.role FROM members m JOIN organizations o ON o.org_id = m.org_id
WHERE m.user_id = $1 AND m.left_at IS NULL AND o.deleted_at IS NULL ORDER BY m.joined_at, m.org_id

-- name: resolve_organization
SELECT org_id FROM organizations WHERE org_id = $1 OR slug = $1 ORDER BY org_id <> $1 LIMIT 1

-- The second factor.

-- name: set_up_totp
UPDATE users SET totp_secret = $2, totp_last_step = NULL WHERE user_id = $1 AND totp_enabled_at IS NULL RETURNING true

-- name: enable_totp
UPDATE users SET totp_enabled_at = $2, totp_last_step = $3 WHERE user_id = $1

-- name: disable_totp
UPDATE users SET totp_secret = NULL, totp_enabled_at = NULL, totp_last_step = NULL WHERE user_id = $1

-- name: use_totp_step
UPDATE users SET totp_last_step = $2 WHERE user_id = $1 AND coalesce(totp_last_step, 0) < $2 RETURNING true

-- name: keep_recovery_codes
INSERT INTO recovery_codes (user_id, digest) SELECT $1, digest FROM unnest($2::bytea[]) AS c (digest)

-- name: drop_recovery_codes
DELETE FROM recovery_codes WHERE user_id = $1

-- name: use_recovery_code
UPDATE recovery_codes SET used_at = $3 WHERE user_id = $1 AND digest = $2 AND used_at IS NULL RETURNING true

-- Failed attempts.

-- name: locked_until
SELECT max(f.locked_until) FROM unnest($1::text[], $2::bytea[]) AS k (kind, digest)
JOIN login_failures f ON f.kind = k.kind AND f.digest = k.digest
WHERE f.locked_until > $3

-- name: count_failure
INSERT INTO login_failures AS f (kind, digest, failures, last_failed_at) VALUES ($1, $2, 1, $3)
ON CONFLICT (kind, digest) DO UPDATE SET
    failures = CASE WHEN f.last_failed_at < $4 THEN 1 ELSE f.failures + 1 END, last_failed_at = excluded.last_failed_at
RETURNING failures

-- name: lock
UPDATE login_failures SET locked_until = $3 WHERE kind = $1 AND digest = $2

-- name: forget_failures
DELETE FROM login_failures WHERE kind = $1 AND digest = $2

-- Letters.

-- name: write_message
INSERT INTO messages (message_id, kind, user_id, org_id, email, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)

-- name: read_message
SELECT message_id, kind, user_id, org_id, email FROM messages
WHERE message_id = $1 AND kind = $2 AND used_at IS NULL AND expires_at > $3

-- name: redeem_message
UPDATE messages SET used_at = $3 WHERE message_id = $1 AND kind = $2 AND used_at IS NULL AND expires_at > $3
RETURNING message_id, kind, user_id, org_id, email

-- name: letter_written_lately
SELECT true FROM messages WHERE user_id = $1 AND kind = $2 AND created_at > $3::timestamptz - interval '1 minute' LIMIT 1

-- name: use_up_letters
UPDATE messages SET used_at = $3 WHERE user_id = $1 AND kind = $2 AND used_at IS NULL

-- name: waiting_letters
SELECT message_id, kind, email, created_at, expires_at FROM messages
WHERE used_at IS NULL AND expires_at > $1 ORDER BY message_id DESC LIMIT $2

-- name: request_reset
INSERT INTO reset_requests (request_id, email, requested_at) VALUES ($1, $2, $3)

-- name: take_reset_requests
DELETE FROM reset_requests WHERE request_id IN (
    SELECT request_id FROM reset_requests ORDER BY request_id LIMIT $1 FOR UPDATE SKIP LOCKED
)
RETURNING email

-- Sessions.

-- name: begin_session
INSERT INTO sessions
    (session_id, user_id, org_id, refresh_jti, rotated_at, created_at, expires_at, address, program)
VALUES ($1, $2, $3, $4, $5, $5, $6, $7, $8)

-- name: session_to_refresh
SELECT org_id, refresh_jti, previous_jti, rotated_at FROM sessions
WHERE session_id = $1 AND user_id = $2 AND ended_at IS NULL AND expires_at > $3 FOR UPDATE

-- name: rotate_session
UPDATE sessions SET previous_jti = refresh_jti, refresh_jti = $2, org_id = $3, rotated_at = $4, expires_at = $5
WHERE session_id = $1

-- name: move_session
UPDATE sessions SET org_id = $3 WHERE session_id = $1 AND user_id = $2 AND ended_at IS NULL RETURNING true

-- name: end_session
UPDATE sessions SET ended_at = $3, ended_because = $4
WHERE session_id = $1 AND user_id = $2 AND ended_at IS NULL RETURNING true

-- name: end_sessions_of_user
UPDATE sessions SET ended_at = $2, ended_because = $3 WHERE user_id = $1 AND ended_at IS NULL

-- name: sessions_of
SELECT session_id, org_id, created_at, rotated_at AS last_used_at, expires_at, address, program FROM sessions
WHERE user_id = $1 AND ended_at IS NULL AND expires_at > now() ORDER BY rotated_at DESC, session_id

-- Housekeeping.

-- name: forget_sessions
DELETE FROM sessions WHERE expires_at < $1

-- name: forget_old_failures
DELETE FROM login_failures WHERE last_failed_at < $1

-- name: forget_messages
DELETE FROM messages WHERE expires_at < $1

-- name: forget_security_events
DELETE FROM security_events WHERE occurred_at < $1

-- name: announce_revocations
-- Into the outbox once more, what was revoked since a moment, so that a bus that lost it knows it again.
INSERT INTO outbox (org_id, position)
SELECT org_id, position FROM events
WHERE type IN ('aragora.auth.TokenRevoked.v1', 'aragora.auth.UserTokensRevoked.v1') AND recorded_at > $1
ON CONFLICT DO NOTHING
