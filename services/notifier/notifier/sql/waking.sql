-- Working through a queue (waking.py).

-- name: show_presence
-- Held by the worker's session, and gone with it.
SELECT pg_advisory_lock_shared(worker_key($1))
