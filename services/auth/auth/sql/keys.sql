-- API keys.

-- name: hold_organization_for_key
-- Keys of one organization are made one after the other, so that the count below misses none.
SELECT true FROM organizations WHERE org_id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE

-- name: may_issue_key
SELECT m.role, e.api_access, (
    SELECT count(*) FROM api_keys AS k
    WHERE k.org_id = m.org_id AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > $3)
) AS live_keys
FROM members AS m
LEFT JOIN entitlements AS e ON e.org_id = m.org_id
WHERE m.org_id = $1 AND m.user_id = $2 AND m.left_at IS NULL

-- name: insert_key
INSERT INTO api_keys (org_id, key_id, user_id, name, prefix, digest, scopes, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7::text[], $8, $9)
RETURNING org_id, key_id, user_id, name, prefix, scopes, created_at, expires_at, last_used_at, revoked_at

-- name: revoke_key
UPDATE api_keys SET revoked_at = $3 WHERE org_id = $1 AND key_id = $2 AND revoked_at IS NULL
RETURNING org_id, key_id, user_id

-- name: revoke_keys
-- In the order of their ids, so that two who revoke the same ones never wait for each other.
UPDATE api_keys SET revoked_at = $3
WHERE (org_id, key_id) IN (
    SELECT k.org_id, k.key_id FROM api_keys AS k
    WHERE ($1::text IS NULL OR k.org_id = $1) AND ($2::text IS NULL OR k.user_id = $2) AND k.revoked_at IS NULL
    ORDER BY k.org_id, k.key_id FOR NO KEY UPDATE
)
RETURNING org_id, key_id, user_id

-- name: keys_of_organization
-- All of them, or one person's.
SELECT org_id, key_id, user_id, name, prefix, scopes, created_at, expires_at, last_used_at, revoked_at
FROM api_keys WHERE org_id = $1 AND ($2::text IS NULL OR user_id = $2)
ORDER BY key_id DESC LIMIT $3

-- name: key_by_id
SELECT user_id, expires_at FROM api_keys WHERE org_id = $1 AND key_id = $2

-- name: verify_keys
-- The use is noted once a minute, and by whoever gets the row at once: a verification never waits for anybody.
WITH found AS (
    SELECT k.digest, k.org_id, k.key_id, k.user_id, k.scopes, k.expires_at,
           coalesce(e.api_access, false) AS api_access
    FROM api_keys AS k
    JOIN organizations AS o ON o.org_id = k.org_id AND o.deleted_at IS NULL
    JOIN members AS m ON m.org_id = k.org_id AND m.user_id = k.user_id AND m.left_at IS NULL
    LEFT JOIN entitlements AS e ON e.org_id = k.org_id
    WHERE k.digest = ANY ($1::bytea[]) AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > $2)
), stale AS (
    SELECT k.org_id, k.key_id
    FROM found AS f JOIN api_keys AS k ON k.org_id = f.org_id AND k.key_id = f.key_id
    WHERE f.api_access AND (k.last_used_at IS NULL OR k.last_used_at <= $2 - interval '1 minute')
    FOR NO KEY UPDATE OF k SKIP LOCKED
), noted AS (
    UPDATE api_keys AS k SET last_used_at = $2
    FROM stale AS s WHERE k.org_id = s.org_id AND k.key_id = s.key_id
)
SELECT digest, org_id, key_id, user_id, scopes, expires_at, api_access FROM found
