"""What is done for one message costs the same, however much its endpoint was sent before."""

import json
from collections.abc import Sequence

import asyncpg
import pytest
from servers import PostgresServer

from notifier import endpoints, recording

MAX_BUFFERS = 60
HISTORY = 20_000

some_endpoints = """
INSERT INTO webhook_endpoints
    (org_id, endpoint_id, url, description, event_types, format, secret, status, created_at, created_by)
SELECT 'org_' || n / 5, 'ep_' || n, '', '', '{}', 'standard', '', 'enabled', now(), '' FROM generate_series(1, 2000) n
"""
history = """
INSERT INTO webhook_deliveries
    (org_id, endpoint_id, delivery_id, event_id, about_org_id, kind, body, status, due_at, created_at)
SELECT e.org_id, e.endpoint_id, uuidv7(), uuidv7(), e.org_id, 'payment.failed', '{}', 'delivered', now(), now()
FROM webhook_endpoints e, generate_series(1, CASE e.endpoint_id WHEN 'ep_5' THEN $1::integer ELSE 5 END)
"""


@pytest.mark.parametrize("plan", ["force_custom_plan", "force_generic_plan"])
async def test_one_message_of_a_long_history(postgres_server: PostgresServer, notifier_template: str, plan: str):
    database = await postgres_server.create_database(notifier_template)
    connection = await asyncpg.connect(postgres_server.url_of(database))
    try:
        await connection.execute(some_endpoints)
        await connection.execute("INSERT INTO webhook_lanes SELECT org_id, endpoint_id FROM webhook_endpoints")
        await connection.execute(history, HISTORY)
        await connection.execute("ANALYZE")
        await connection.execute(f"SET plan_cache_mode = {plan}")
        delivery = await connection.fetchval(
            "SELECT delivery_id FROM webhook_deliveries WHERE endpoint_id = 'ep_5' ORDER BY position LIMIT 1"
        )
        lane, now = ("org_1", "ep_5"), "now"
        for query, *arguments in (
            (recording.queries.keep_attempted, ["org_1"], ["ep_5"], [delivery], ["delivered"], now),
            (
                recording.queries.log_attempts, ["org_1"], ["ep_5"], [delivery], [now], [1], ["{}"], [200], ["thanks"],
                ["none"],
            ),
            (endpoints.queries.delivery, *lane, delivery),
            (endpoints.queries.redeliver_one, *lane, now, delivery),
            (endpoints.queries.deliveries_page, *lane, None, None, None, 5),
            (endpoints.queries.first_waiting, *lane),
        ):  # fmt: skip
            found = await buffers(connection, query, arguments)
            assert found <= MAX_BUFFERS, f"{found} buffers for: {query}"
    finally:
        await connection.close()
        await postgres_server.drop_database(database)


async def buffers(connection: asyncpg.Connection, query: str, arguments: Sequence[object]) -> int:
    """How many pages a statement looks at."""
    prepared = await connection.prepare(query)
    kinds = [f"{one.name.removesuffix('[]')}{'[]' * (one.kind == 'array')}" for one in prepared.get_parameters()]
    given = ", ".join(f"{_literal(one)}::{kind}" for one, kind in zip(arguments, kinds, strict=True))
    rolled_back = connection.transaction()
    await rolled_back.start()
    await connection.execute(f"PREPARE looked_at ({', '.join(kinds)}) AS {query}")
    (told,) = json.loads(
        await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT json) EXECUTE looked_at ({given})")
    )
    await connection.execute("DEALLOCATE looked_at")
    await rolled_back.rollback()
    top = told["Plan"]
    return int(top["Shared Hit Blocks"]) + int(top["Shared Read Blocks"])


def _literal(value: object) -> str:
    if isinstance(value, list):
        return f"ARRAY[{', '.join(map(_literal, value))}]"
    return "NULL" if value is None else f"'{value}'"
