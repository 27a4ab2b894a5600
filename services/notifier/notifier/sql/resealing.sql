-- Sealing anew (resealing.py): two columns that name the row, then what is sealed in it.

-- name: sealed_contacts
SELECT org_id, user_id, email, name FROM contacts WHERE (org_id, user_id) > ($1, $2) ORDER BY org_id, user_id LIMIT $3

-- name: reseal_contact
UPDATE contacts SET email = $5, name = $6
WHERE org_id = $1 AND user_id = $2 AND email = $3 AND name IS NOT DISTINCT FROM $4

-- name: sealed_names
SELECT org_id, '' AS nothing, name FROM directories
WHERE name IS NOT NULL AND (org_id, '') > ($1, $2) ORDER BY org_id LIMIT $3

-- name: reseal_name
UPDATE directories SET name = $4 WHERE org_id = $1 AND name = $3 AND $2::text = ''

-- name: sealed_endpoints
SELECT org_id, endpoint_id, url, secret, former_secret FROM webhook_endpoints
WHERE (org_id, endpoint_id) > ($1, $2) ORDER BY org_id, endpoint_id LIMIT $3

-- name: reseal_endpoint
UPDATE webhook_endpoints SET url = $6, secret = $7, former_secret = $8
WHERE org_id = $1 AND endpoint_id = $2 AND url = $3 AND secret = $4 AND former_secret IS NOT DISTINCT FROM $5

-- name: operator_secret
SELECT secret FROM webhook_endpoints WHERE org_id = 'platform' AND endpoint_id = 'operator'
