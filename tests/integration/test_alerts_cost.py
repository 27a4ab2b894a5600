"""What reading alerts costs: rows of one's own only, and of those no more than are shown."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from aragora.chassis.sql import Connection
from notifier import alerts
from notifier.alerts import ESSENTIAL, queries
from notifier.callers import Reader

READER = Reader("org_1", "ann", administers=False, in_person=True)
OWN, OTHERS, PAGE = 2000, 20_000, 20


@pytest.fixture
async def connection(notifier_database_url: str) -> AsyncIterator[Connection]:
    """A database with a long history, most of it other people's."""
    found = await asyncpg.connect(notifier_database_url)
    insert = (
        "INSERT INTO usage_alerts (org_id, alert_id, kind, audience, user_id, severity, title, message, facts, place, "
        "occurred_at, created_at) SELECT {}, uuidv7(), 'limit.reached', {}, {}, 'info', 't', 'm', '[]', '/', now(), "
        "now() FROM generate_series(1, $1) AS n"
    )
    await found.execute(insert.format("'org_' || (2 + n % 50)", "'everybody'", "NULL"), OTHERS)
    await found.execute(insert.format("'platform'", "'person'", "'user_' || (n % 500)"), OTHERS)
    await found.execute(insert.format("'org_1'", "'everybody'", "NULL"), OWN)
    await found.execute("ANALYZE")
    yield found
    await found.close()


def scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if plan.get("Relation Name") == "usage_alerts":
        yield plan
    for each in plan.get("Plans", []):
        yield from scans(each)


async def looked_at(connection: Connection, query: str, *arguments: Any) -> int:
    """How many alerts a query looks at."""
    text = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", *arguments)
    (found,) = json.loads(text)
    return sum(
        round((scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)) * scan["Actual Loops"])
        for scan in scans(found["Plan"])
    )


async def test_a_page_costs_what_it_shows(connection: Connection):
    who = alerts._columns_of(READER)
    newest = await alerts.newest_position(connection, READER)
    assert await looked_at(connection, queries.newest_position, *who) <= 2
    for before in (None, newest - OWN // 2):
        page = (*who, before, None, None, False, PAGE)
        assert await looked_at(connection, queries.alerts_page, *page) <= 3 * PAGE
    for after, count in ((newest - 5, 5), (0, PAGE)):
        stream = ([READER.org_id], [READER.user_id], [False], [True], [after], ESSENTIAL, PAGE)
        assert await looked_at(connection, queries.alerts_after, *stream) <= 3 * count


async def test_counting_looks_at_nobody_elses_and_after_a_mark_at_what_has_come_since(connection: Connection):
    who = alerts._columns_of(READER)
    unread = ([READER.org_id], [READER.user_id], [False], [True], ESSENTIAL)
    assert await looked_at(connection, queries.count_alerts, *who, None, None, False) == OWN
    assert await looked_at(connection, queries.count_unread, *unread) == OWN
    now = await connection.fetchval("SELECT now()")
    assert await alerts.mark_all_read(connection, READER, now) == OWN
    assert await looked_at(connection, queries.count_unread, *unread) == 0
