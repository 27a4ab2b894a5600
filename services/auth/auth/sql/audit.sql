-- The audit log, read newest first. Its ids are in the order of time, so an index that ends in the id gives the order.

-- name: audit_organization
-- The organization that is meant by an id or a slug, and what a person is in it.
SELECT o.org_id, m.role
FROM organizations AS o
LEFT JOIN members AS m ON m.org_id = o.org_id AND m.user_id = $2 AND m.left_at IS NULL
WHERE o.org_id = $1 OR o.slug = $1
ORDER BY o.org_id = $1 DESC LIMIT 1

-- name: audit_of_organization
SELECT event_id, occurred_at, action, actor, user_id, org_id, succeeded, address, program, detail
FROM security_events
WHERE org_id = $1 AND ($2::uuid IS NULL OR event_id < $2) AND ($3::text IS NULL OR action = $3)
  AND ($4::text IS NULL OR actor = $4) AND ($5::boolean IS NULL OR succeeded = $5)
  AND ($6::timestamptz IS NULL OR occurred_at >= $6) AND ($7::timestamptz IS NULL OR occurred_at < $7)
  AND ($8::text IS NULL OR user_id = $8)
ORDER BY event_id DESC LIMIT $9

-- name: audit_of_person
SELECT event_id, occurred_at, action, actor, user_id, org_id, succeeded, address, program, detail
FROM security_events
WHERE user_id = $1 AND ($2::uuid IS NULL OR event_id < $2) AND ($3::text IS NULL OR action = $3)
  AND ($4::text IS NULL OR actor = $4) AND ($5::boolean IS NULL OR succeeded = $5)
  AND ($6::timestamptz IS NULL OR occurred_at >= $6) AND ($7::timestamptz IS NULL OR occurred_at < $7)
ORDER BY event_id DESC LIMIT $8

-- name: audit_of_all
SELECT event_id, occurred_at, action, actor, user_id, org_id, succeeded, address, program, detail
FROM security_events
WHERE ($1::uuid IS NULL OR event_id < $1) AND ($2::text IS NULL OR action = $2)
  AND ($3::text IS NULL OR actor = $3) AND ($4::boolean IS NULL OR succeeded = $4)
  AND ($5::timestamptz IS NULL OR occurred_at >= $5) AND ($6::timestamptz IS NULL OR occurred_at < $6)
ORDER BY event_id DESC LIMIT $7
