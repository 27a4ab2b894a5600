-- Who belongs where, as auth says it (directory.py).

-- name: directory_of
SELECT asked_at, changed_at, closed_at FROM directories WHERE org_id = $1

-- name: keep_directory
-- Unless something has changed while auth was asked, since $4: then the answer may bring back who has left.
INSERT INTO directories AS d (org_id, name, asked_at) VALUES ($1, $2, $3)
ON CONFLICT (org_id) DO UPDATE
SET name = excluded.name, asked_at = excluded.asked_at
WHERE d.closed_at IS NULL AND d.changed_at IS NOT DISTINCT FROM $4
RETURNING org_id

-- name: drop_contacts
DELETE FROM contacts WHERE org_id = $1

-- name: keep_contacts
INSERT INTO contacts (org_id, user_id, role, email, name, verified)
SELECT $1, user_id, role, email, name, verified
FROM unnest($2::text[], $3::text[], $4::bytea[], $5::bytea[], $6::boolean[]) AS n (user_id, role, email, name, verified)
WHERE NOT EXISTS (SELECT FROM erased_people p WHERE p.user_id = n.user_id)

-- name: contacts_of
SELECT c.user_id, c.role, c.email, c.name, c.verified, d.name AS org_name
FROM contacts c JOIN directories d ON d.org_id = c.org_id
WHERE c.org_id = $1
ORDER BY c.user_id
