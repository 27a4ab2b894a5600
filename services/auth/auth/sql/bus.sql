-- What is heard and answered on the bus (handlers.py).

-- name: keep_entitlements
-- An event with a lower revision comes late.
INSERT INTO entitlements AS e (org_id, revision, plan_name, seats, api_access)
SELECT org_id, revision, plan_name, seats, api_access
FROM unnest($1::text[], $2::integer[], $3::text[], $4::bigint[], $5::boolean[])
     AS n (org_id, revision, plan_name, seats, api_access)
ORDER BY org_id
ON CONFLICT (org_id) DO UPDATE
SET revision = excluded.revision, plan_name = excluded.plan_name, seats = excluded.seats,
    api_access = excluded.api_access
WHERE e.revision <= excluded.revision

-- name: message_to_send
SELECT m.kind, m.email, m.expires_at, o.name AS org_name
FROM messages AS m
LEFT JOIN organizations AS o ON o.org_id = m.org_id
LEFT JOIN invitations AS i ON i.org_id = m.org_id AND i.invitation_id = m.message_id
WHERE m.message_id = $1 AND m.used_at IS NULL AND m.expires_at > $2
  AND (m.kind <> 'invitation' OR (i.status = 'open' AND o.deleted_at IS NULL))

-- name: contacts_in
SELECT m.user_id, u.email, u.name, u.email_verified_at IS NOT NULL AS verified, m.role, o.name AS org_name
FROM organizations AS o
JOIN members AS m ON m.org_id = o.org_id AND m.left_at IS NULL
JOIN users AS u ON u.user_id = m.user_id AND u.erased_at IS NULL
WHERE o.org_id = $1 AND o.deleted_at IS NULL AND ($2::text IS NULL OR m.user_id > $2)
ORDER BY m.user_id
LIMIT $3

-- name: contact_of
SELECT user_id, email, name, email_verified_at IS NOT NULL AS verified, NULL::text AS role, NULL::text AS org_name
FROM users WHERE user_id = $1 AND erased_at IS NULL
