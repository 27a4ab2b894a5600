"""What a worker reads every ten seconds costs the same after a day and after three years."""

import json
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from aragora.chassis import metrics as chassis
from aragora.chassis.sql import Connection
from billing import metrics as billing
from notifier import metrics as notifier

HISTORY = 20_000
MAX_BUFFERS = 60
EVENTS = """
INSERT INTO events (org_id, stream, version, id, type, data, occurred_at, correlation_id)
SELECT 'org_' || n % 100, 's' || n, 1, uuidv7(), 'aragora.auth.UserErased.v1', '{}', now(), 'c'
FROM generate_series(1, $1::integer) AS n
"""
LETTERS = """
INSERT INTO dead_letters (id, digest, subject, payload, reason, attempts, status, resolved_at)
SELECT uuidv7(), n::text::bytea, 's', '', 'bad', 1, 'discarded', now() FROM generate_series(1, $1::integer) AS n
"""
STRIPE_EVENTS = """
INSERT INTO stripe_events (event_id, type, created_at, received_at, payload, state, next_attempt_at, handled_at)
SELECT 'evt_' || n, 'invoice.paid', now(), now(), '{}', 'handled', now(), now()
FROM generate_series(1, $1::integer) AS n
"""
INTENTS = """
INSERT INTO stripe_intents
    (org_id, intent_id, kind, parameters, state, requested_at, next_attempt_at, finished_at)
SELECT 'org_' || n % 100, n::text, 'cancel_now', '{}', 'done', now(), now(), now()
FROM generate_series(1, $1::integer) AS n
"""
MAILS = """
INSERT INTO email_deliveries
    (org_id, delivery_id, event_id, kind, user_id, mode, status, send_at, created_at, finished_at)
SELECT 'org_' || n % 100, uuidv7(), uuidv7(), 'limit.reached', 'u' || n,
       CASE n % 2 WHEN 0 THEN 'mail' ELSE 'digest' END, 'sent', now(), now(), now()
FROM generate_series(1, $1::integer) AS n
"""
ENDPOINTS = """
INSERT INTO webhook_endpoints
    (org_id, endpoint_id, url, description, event_types, format, secret, status, created_at, created_by)
SELECT 'org_' || n % 100, 'ep_' || n, '', '', '{}', 'standard', '', 'enabled', now(), ''
FROM generate_series(1, $1::integer) AS n
"""
LANES = "INSERT INTO webhook_lanes SELECT org_id, endpoint_id FROM webhook_endpoints LIMIT $1"


async def buffers(connection: Connection, query: str, *arguments: Any) -> int:
    """How many pages a query looks at."""
    (told,) = json.loads(await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}", *arguments))
    return int(told["Plan"]["Shared Hit Blocks"]) + int(told["Plan"]["Shared Read Blocks"])


@pytest.mark.parametrize(
    ("service", "history", "query", "arguments"),
    [
        (
            "billing", [EVENTS, LETTERS], chassis.queries.read_waiting,
            (chassis.MAX_OUTBOX_COUNTED, chassis.MAX_LETTERS_COUNTED),
        ),
        ("billing", [STRIPE_EVENTS, INTENTS], billing.queries.read_waiting, ()),
        (
            "notifier", [MAILS, ENDPOINTS, LANES], notifier.queries.read_queues,
            (datetime(2100, 1, 1, tzinfo=UTC), notifier.MAX_COUNTED),
        ),
    ],
    ids=["chassis", "billing", "notifier"],
)  # fmt: skip
async def test_a_reading_looks_at_what_waits_only(
    billing_database_url: str,
    notifier_database_url: str,
    service: str,
    history: list[str],
    query: str,
    arguments: tuple[Any, ...],
):
    connection = await asyncpg.connect({"billing": billing_database_url, "notifier": notifier_database_url}[service])
    try:
        for statement in history:
            await connection.execute(statement, HISTORY)
        assert await buffers(connection, query, *arguments) <= MAX_BUFFERS, "before its tables were ever analyzed"
        await connection.execute("VACUUM ANALYZE")
        assert await buffers(connection, query, *arguments) <= MAX_BUFFERS
    finally:
        await connection.close()
