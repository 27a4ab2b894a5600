-- What changes an organization waits here for the one before it. Whoever needs people's rows too holds them afterwards.

-- name: hold_organization
SELECT true FROM organizations WHERE org_id = $1 FOR NO KEY UPDATE

-- name: hold_person
SELECT true FROM users WHERE user_id = $1 AND erased_at IS NULL FOR NO KEY UPDATE

-- From events.

-- name: add_organization
INSERT INTO organizations (org_id, name, slug, created_at) VALUES ($1, $2, $3, $4)

-- name: rename_organization
UPDATE organizations SET name = $2, slug = $3 WHERE org_id = $1

-- name: delete_organization
UPDATE organizations SET deleted_at = $2 WHERE org_id = $1

-- name: add_member
-- Whoever comes back has a row from before.
INSERT INTO members (org_id, user_id, role, joined_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (org_id, user_id) DO UPDATE SET role = excluded.role, joined_at = excluded.joined_at, left_at = NULL

-- name: change_role
UPDATE members SET role = $3 WHERE org_id = $1 AND user_id = $2

-- name: remove_member
UPDATE members SET left_at = $3 WHERE org_id = $1 AND user_id = $2

-- name: remove_members
UPDATE members SET left_at = $2 WHERE org_id = $1 AND left_at IS NULL

-- name: add_invitation
-- To whom, its letter knows.
INSERT INTO invitations (org_id, invitation_id, email, role, invited_by, created_at, expires_at, status)
VALUES ($1, $2, (SELECT email FROM messages WHERE message_id = $2), $3, $4, $5, $6, 'open')

-- name: end_invitation
UPDATE invitations SET status = $3 WHERE org_id = $1 AND invitation_id = $2

-- name: withdraw_invitations
UPDATE invitations SET status = 'withdrawn' WHERE org_id = $1 AND status = 'open'

-- name: cancel_letter
UPDATE messages SET used_at = $2 WHERE message_id = $1 AND used_at IS NULL

-- name: cancel_letters
UPDATE messages SET used_at = $2
WHERE message_id IN (SELECT invitation_id FROM invitations WHERE org_id = $1 AND status = 'open') AND used_at IS NULL

-- Reading.

-- name: find_organization
-- An id goes before a slug that looks like one.
SELECT org_id FROM organizations WHERE (org_id = $1 OR slug = $1) AND deleted_at IS NULL
ORDER BY org_id = $1 DESC LIMIT 1

-- name: organization_for
SELECT o.org_id, o.name, o.slug, o.created_at, m.role, e.plan_name, e.seats,
       (SELECT count(*) FROM members AS c WHERE c.org_id = o.org_id AND c.left_at IS NULL) AS members
FROM organizations AS o
LEFT JOIN members AS m ON m.org_id = o.org_id AND m.user_id = $2 AND m.left_at IS NULL
LEFT JOIN entitlements AS e ON e.org_id = o.org_id
WHERE o.org_id = $1

-- name: organizations_for
SELECT o.org_id, o.name, o.slug, o.created_at, m.role, e.plan_name, e.seats,
       (SELECT count(*) FROM members AS c WHERE c.org_id = o.org_id AND c.left_at IS NULL) AS members
FROM members AS m
JOIN organizations AS o ON o.org_id = m.org_id
LEFT JOIN entitlements AS e ON e.org_id = o.org_id
WHERE m.user_id = $1 AND m.left_at IS NULL
ORDER BY m.joined_at, o.org_id

-- name: role_of
SELECT role FROM members WHERE org_id = $1 AND user_id = $2 AND left_at IS NULL

-- name: first_membership
SELECT org_id, role FROM members WHERE user_id = $1 AND left_at IS NULL ORDER BY joined_at, org_id LIMIT 1

-- name: memberships_ever
SELECT org_id, left_at IS NULL AS is_present FROM members WHERE user_id = $1 ORDER BY org_id

-- name: members_of
SELECT m.user_id, u.name, u.email, m.role, m.joined_at
FROM members AS m JOIN users AS u ON u.user_id = m.user_id
WHERE m.org_id = $1 AND m.left_at IS NULL
ORDER BY m.joined_at, m.user_id

-- name: member
SELECT m.user_id, u.name, u.email, m.role, m.joined_at
FROM members AS m JOIN users AS u ON u.user_id = m.user_id
WHERE m.org_id = $1 AND m.user_id = $2 AND m.left_at IS NULL

-- name: seats_of
SELECT seats FROM entitlements WHERE org_id = $1

-- name: open_invitations
SELECT invitation_id, email, role, invited_by, created_at, expires_at
FROM invitations WHERE org_id = $1 AND status = 'open' AND expires_at > $2
ORDER BY created_at, invitation_id

-- name: invitation
SELECT invitation_id, email, role, invited_by, created_at, expires_at
FROM invitations WHERE org_id = $1 AND invitation_id = $2

-- name: is_members_address
SELECT true FROM users AS u JOIN members AS m ON m.user_id = u.user_id
WHERE u.email = $2 AND m.org_id = $1 AND m.left_at IS NULL

-- name: is_invited
SELECT true FROM invitations
WHERE org_id = $1 AND email = $2 AND invitation_id <> $3 AND status = 'open' AND expires_at > $4
LIMIT 1
