-- name: append_events
WITH appended AS (
    INSERT INTO events (org_id, stream, version, id, type, data, occurred_at, correlation_id, causation_id)
    SELECT $1, $2, $3 + n, id, type, data::jsonb, $7, $8, $9
    FROM unnest($4::uuid[], $5::text[], $6::text[]) WITH ORDINALITY AS e (id, type, data, n)
    WHERE $3 = (SELECT coalesce(max(version), 0) FROM events WHERE org_id = $1 AND stream = $2)
    ORDER BY n
    RETURNING position, version, recorded_at
), queued AS (
    INSERT INTO outbox (org_id, position) SELECT $1, position FROM appended
)
SELECT position, version, recorded_at, pg_notify('outbox', '') FROM appended ORDER BY version

-- name: append_each
WITH incoming AS (
    SELECT org_id, stream, id, type, data, n, row_number() OVER (PARTITION BY org_id, stream ORDER BY n) AS place
    FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::text[])
         WITH ORDINALITY AS e (org_id, stream, id, type, data, n)
), appended AS (
    INSERT INTO events (org_id, stream, version, id, type, data, occurred_at, correlation_id)
    SELECT org_id, stream,
           place + coalesce((SELECT max(e.version) FROM events e WHERE e.org_id = i.org_id AND e.stream = i.stream), 0),
           id, type, data::jsonb, $6, coalesce($7, id::text)
    FROM incoming i ORDER BY n
    RETURNING org_id, position
), queued AS (
    INSERT INTO outbox (org_id, position) SELECT org_id, position FROM appended
)
SELECT pg_notify('outbox', '')

-- name: load_stream
SELECT version, type, data::text FROM events WHERE org_id = $1 AND stream = $2 ORDER BY version

-- name: fetch_unpublished
-- FOR UPDATE makes this a transaction that writes, and ends only when a synchronous standby has it and all before it. A
-- command that gave up waiting for the standby is seen at once by who only reads: a failover would undo what was said.
-- It costs one flush per batch, about a millisecond of a single event's way.
SELECT e.org_id, e.position, e.stream, e.id, e.type, e.data::text, e.occurred_at, e.correlation_id, e.causation_id
FROM outbox o JOIN events e ON e.org_id = o.org_id AND e.position = o.position
ORDER BY o.position LIMIT $1 FOR UPDATE OF o

-- name: delete_published
DELETE FROM outbox o USING unnest($1::text[], $2::bigint[]) AS p (org_id, position)
WHERE o.org_id = p.org_id AND o.position = p.position

-- name: record_seen
INSERT INTO inbox (consumer, event_id) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING true

-- name: forget_seen
DELETE FROM inbox WHERE seen_at < $1

-- name: forget_failures
DELETE FROM failed_deliveries WHERE failed_at < $1

-- name: count_failures
INSERT INTO failed_deliveries AS f (consumer, source_stream, source_sequence, attempts)
SELECT $1, stream, sequence, 1 FROM unnest($2::text[], $3::bigint[]) AS d (stream, sequence)
ON CONFLICT (consumer, source_stream, source_sequence) DO UPDATE SET attempts = f.attempts + 1, failed_at = now()
RETURNING source_stream, source_sequence, attempts

-- name: record_letters
INSERT INTO dead_letters AS l
    (id, digest, org_id, source_stream, source_sequence, subject, payload, reason, field, attempts)
SELECT id, digest, org_id, source_stream, source_sequence, subject, payload, reason, field, attempts
FROM unnest($1::uuid[], $2::bytea[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::bytea[], $8::text[],
            $9::text[], $10::integer[])
     AS n (id, digest, org_id, source_stream, source_sequence, subject, payload, reason, field, attempts)
ORDER BY digest
ON CONFLICT (digest) DO UPDATE
SET status = 'open', resolved_at = NULL, resolved_by = NULL, reason = excluded.reason, field = excluded.field,
    source_stream = excluded.source_stream, source_sequence = excluded.source_sequence,
    attempts = l.attempts + excluded.attempts
WHERE l.status = 'retried'
RETURNING l.id

-- name: page_letters
SELECT id, org_id, source_stream, source_sequence, subject, payload, reason, field, attempts, first_seen_at, status,
       resolved_at, resolved_by
FROM dead_letters
WHERE ($1::text IS NULL OR status = $1) AND ($2::text IS NULL OR org_id = $2) AND ($3::uuid IS NULL OR id < $3)
ORDER BY id DESC LIMIT $4

-- name: fetch_letter
SELECT id, org_id, source_stream, source_sequence, subject, payload, reason, field, attempts, first_seen_at, status,
       resolved_at, resolved_by
FROM dead_letters WHERE id = $1

-- name: resolve_letter
UPDATE dead_letters SET status = $2, resolved_at = $3, resolved_by = $4 WHERE id = $1 AND status = 'open' RETURNING id

-- name: read_waiting
-- By the indexes, over what waits and not over what was done: the outbox up to $1, dead letters up to $2.
SELECT (SELECT count(*) FROM (SELECT FROM outbox LIMIT $1) AS unpublished) AS events,
       coalesce((SELECT extract(epoch FROM clock_timestamp() - e.recorded_at)
                 FROM outbox o JOIN events e ON e.org_id = o.org_id AND e.position = o.position
                 ORDER BY o.position LIMIT 1), 0) AS oldest_seconds,
       (SELECT count(*) FROM (SELECT FROM dead_letters WHERE status = 'open' LIMIT $2) AS open_letters) AS letters
