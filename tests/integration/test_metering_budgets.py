"""Who spends more than was meant is told of it: once per budget, month and amount, whatever happens meanwhile."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from limits import entitle, entitlements, equal_to_log, happened, limit
from servers import cut, eventually
from usage import NOON, cloudevent, message, recorder

from aragora.chassis.sql import Connection
from aragora.chassis.transient import is_transient
from aragora.contracts.events import BudgetExceeded, LimitReached
from metering import erasure
from metering.budgets import MAX_BUDGETS, TooManyBudgets, keep_budget
from metering.handlers import Recorder

SEED = int(os.environ.get("ARAGORA_TEST_SEED", "20261122"))
MAY = datetime(2026, 5, 20, tzinfo=UTC)
JULY = datetime(2026, 7, 1, tzinfo=UTC)


@pytest.fixture
async def database(metering_database_url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(metering_database_url)
    yield connection
    await connection.close()


async def budget(
    database: Connection, org: str, amount: int | str, user: str | None = None, name: str = "all", now: datetime = NOON
) -> None:
    async with database.transaction():
        await keep_budget(database, org, name, Decimal(amount), user, now)


def cost(org: str, usd: int | str, user: str = "ann", moment: datetime = NOON, **fields: Any) -> dict[str, Any]:
    return cloudevent(org_id=org, user_id=user, cost_usd=str(usd), occurred_at=moment.isoformat(), **fields)


async def use(rec: Recorder, *events: dict[str, Any], now: datetime = NOON) -> None:
    await rec.record([("s", 1, message(*events))], now)


async def told(url: str, org: str) -> list[tuple[Any, ...]]:
    """(budget, month, spent, amount, person) of what was said, in order."""
    fields = BudgetExceeded.model_fields.keys()
    return [tuple(getattr(one, name) for name in fields) for one in await happened(url, org, BudgetExceeded)]


async def test_it_is_told_once_when_more_is_spent(metering_database_url: str, database: Connection, org: str):
    await budget(database, org, 10)
    await entitle(metering_database_url, {org: entitlements(limit("cost_usd", 10))})
    async with recorder(metering_database_url) as rec:
        await use(rec, cost(org, "9.5"), cost("org_other", 900))
        await use(rec, last := cost(org, "0.5"))
        assert await told(metering_database_url, org) == [], "all of it is spent, and no more"
        await use(rec, over := cost(org, "0.000001"), last)
        for _ in range(2):  # delivered again, and more of it
            await use(rec, over)
            await use(rec, cost(org, 5))
    expected = [("all", "2026-06", Decimal("10.000001"), Decimal(10), None)]
    assert await told(metering_database_url, org) == expected
    assert len(await happened(metering_database_url, org, LimitReached)) == 3, "limits go on beside it"
    await equal_to_log(metering_database_url)


async def test_a_persons_budget_is_about_that_person(metering_database_url: str, database: Connection, org: str):
    await budget(database, org, 3, "bob", "of-bob")
    await budget(database, org, 3, "ann", "of-ann")
    await budget(database, org, 100)
    async with recorder(metering_database_url) as rec:
        for day in (1, 14, 15):
            when = NOON.replace(day=day)
            await use(rec, cost(org, "1.5", "ann", when), cost(org, 20, "eve", when), cost("org_other", 9, "bob", when))
        assert await told(metering_database_url, org) == [("of-ann", "2026-06", Decimal("4.5"), Decimal(3), "ann")]
        await use(rec, cost(org, 40, "bob"))
    assert [(one[0], one[2]) for one in (await told(metering_database_url, org))[1:]] == [
        ("all", Decimal("104.5")), ("of-bob", Decimal(40))
    ]  # fmt: skip


async def test_zero_is_none(metering_database_url: str, database: Connection, org: str):
    await budget(database, org, 0)
    async with recorder(metering_database_url) as rec:
        await use(rec, cost(org, 0), cloudevent(org_id=org, provider="acme-llm", model="unpriced"))
        assert await told(metering_database_url, org) == [], "nothing is known to be spent"
        await use(rec, cost(org, "0.000000000000000001"))
    assert [one[2] for one in await told(metering_database_url, org)] == [Decimal("1E-18")]


async def test_late_usage_counts_in_its_own_month(metering_database_url: str, database: Connection, org: str):
    await budget(database, org, 10, now=MAY)
    await budget(database, org, 10, name="changed", now=MAY)
    async with recorder(metering_database_url) as rec:
        await use(rec, cost(org, 8, moment=MAY), now=MAY)
        await budget(database, org, 1, name="changed")
        await use(rec, cost(org, 8))
        assert [one[:3] for one in await told(metering_database_url, org)] == [("changed", "2026-06", 8)]
        await use(rec, cost(org, 3, moment=MAY))
        await use(rec, cost(org, 3, moment=MAY.replace(month=4)), cost(org, 30, moment=MAY.replace(month=4)))
    said = (await told(metering_database_url, org))[1:]
    assert [one[:3] for one in said] == [("all", "2026-05", 11)], "not of April, which had no budget; not by June's"


async def test_a_new_month_begins_anew(metering_database_url: str, database: Connection, org: str):
    await budget(database, org, 10)
    async with recorder(metering_database_url, JULY) as rec:
        await use(rec, cost(org, 11), cost(org, 10, moment=JULY), now=JULY)
        await use(rec, cost(org, 11), cost(org, 2, moment=JULY), now=JULY)
    assert [one[1:3] for one in await told(metering_database_url, org)] == [("2026-06", 11), ("2026-07", 12)]


async def test_another_amount_is_compared_at_once(metering_database_url: str, database: Connection, org: str):
    async with recorder(metering_database_url) as rec:
        await use(rec, cost(org, 50))
        for amount in (60, 40, "40.00", 60, 40, 30, 70):
            await budget(database, org, amount)
        assert [one[2:4] for one in await told(metering_database_url, org)] == [(50, 40), (50, 30)]
        await use(rec, cost(org, 25))
    assert [one[2:4] for one in (await told(metering_database_url, org))[2:]] == [(75, 70)]


async def test_somebody_elses_is_another_budget(metering_database_url: str, database: Connection, org: str):
    async with recorder(metering_database_url) as rec:
        await use(rec, cost(org, 50), cost(org, 60, "bob"))
    for user in ("ann", "bob", "bob", None):
        await budget(database, org, 40, user)
    assert [(one[4], one[2]) for one in await told(metering_database_url, org)] == [
        ("ann", 50), ("bob", 60), (None, 110)
    ]  # fmt: skip


async def test_at_a_months_end_usage_may_be_ahead(metering_database_url: str, database: Connection, org: str):
    last = datetime(2026, 6, 30, 23, 30, tzinfo=UTC)
    async with recorder(metering_database_url, last) as rec:
        await use(rec, cost(org, 50, moment=JULY), now=last)
    await budget(database, org, 40, now=last)
    assert [one[1] for one in await told(metering_database_url, org)] == ["2026-07"]
    await equal_to_log(metering_database_url, last)


@asynccontextmanager
async def connected(url: str, count: int) -> AsyncIterator[list[Connection]]:
    connections = [await asyncpg.connect(url) for _ in range(count)]
    try:
        yield list(connections)
    finally:
        for connection in connections:
            await connection.close()


async def test_among_many_workers_it_is_told_once(metering_database_url: str):
    """Usage in any order, some of it twice, while budgets are made: whoever is the later one tells, and nobody else."""
    rnd = random.Random(SEED)
    print(f"seed {SEED}")
    orgs, people = [f"org_{number}" for number in range(4)], ["ann", "bob", "eve"]
    events = [cost(rnd.choice(orgs), rnd.randrange(1, 30), rnd.choice(people)) for _ in range(200)]
    chunks = [rnd.sample(events, 12) for _ in range(60)]
    wanted = [(org, f"of-{who}", who, rnd.randrange(400)) for org in orgs for who in (None, *people)]
    rnd.shuffle(wanted)
    waiting = list(wanted)

    async with recorder(metering_database_url) as rec, connected(metering_database_url, 2) as owners:

        async def record() -> None:
            while chunks:
                await use(rec, *chunks.pop())

        async def decide(connection: Connection) -> None:
            while waiting:
                org, name, who, amount = waiting.pop()
                await budget(connection, org, amount, who, name)

        await asyncio.gather(*(record() for _ in range(3)), *map(decide, owners))
        await use(rec, *events)
    for org in orgs:
        said = await told(metering_database_url, org)
        assert len({one[0] for one in said}) == len(said)
        spent = {
            who: sum(
                int(one["data"]["cost_usd"])
                for one in events
                if one["subject"] == org and who in (None, one["data"]["user_id"])
            )
            for who in (None, *people)
        }
        exceeded = {(name, amount) for of, name, who, amount in wanted if of == org and spent[who] > amount}
        assert {(one[0], one[3]) for one in said} == exceeded
        assert all(one[3] < one[2] <= spent[one[4]] for one in said)
    await equal_to_log(metering_database_url)


async def held_up(database: Connection, task: asyncio.Task[None], waiting: int = 1) -> None:
    """Return when so many wait for a lock in this database, or the task is done without waiting."""
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    async def is_held_up() -> bool:
        return task.done() or await database.fetchval(count) >= waiting

    await eventually(is_held_up)


async def test_no_usage_falls_between_before_and_after(metering_database_url: str, database: Connection, org: str):
    """Usage that is being recorded while a budget is made: whichever commits last sees both."""
    await entitle(metering_database_url, {org: entitlements()})
    async with recorder(metering_database_url) as rec, connected(metering_database_url, 2) as (owner, gate):
        async with owner.transaction():
            await keep_budget(owner, org, "first", Decimal(10), None, NOON)
            recording = asyncio.create_task(use(rec, cost(org, 11)))
            await held_up(database, recording)
        await recording
        async with gate.transaction():
            await gate.execute("SELECT FROM entitlements FOR UPDATE")  # the last thing before a settling chunk's commit
            recording = asyncio.create_task(use(rec, cost(org, 11, "bob", reservation_id="any")))
            await held_up(database, recording)
            deciding = asyncio.create_task(budget(owner, org, 20, None, "second"))
            await held_up(database, deciding, 2)
        await asyncio.gather(recording, deciding)
    assert [(one[0], one[2]) for one in await told(metering_database_url, org)] == [("first", 11), ("second", 22)]


async def test_a_crash_while_it_is_told_tells_it_once(metering_database_url: str, database: Connection, org: str):
    await budget(database, org, 10)
    event = cost(org, 11)
    waiting = "SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'events'::regclass"

    async def is_waiting() -> bool:
        return await database.fetchval(waiting) is not None

    async with recorder(metering_database_url) as rec:
        async with database.transaction():
            await database.execute("LOCK TABLE events IN SHARE MODE")
            recording = asyncio.create_task(use(rec, event))
            await eventually(is_waiting)
            await cut(metering_database_url, waiting)
            with pytest.raises(check=is_transient):
                await recording
        assert await told(metering_database_url, org) == []
        await asyncio.gather(use(rec, event), use(rec, event))
    assert [one[2] for one in await told(metering_database_url, org)] == [11]


async def test_an_organization_has_up_to_fifty(metering_database_url: str, database: Connection, org: str):
    for number in range(MAX_BUDGETS - 1):
        await budget(database, org, 1, name=f"b{number}")
    async with connected(metering_database_url, 3) as owners:
        made = [budget(each, org, 1, name=f"last-{number}") for number, each in enumerate(owners)]
        refused = [one for one in await asyncio.gather(*made, return_exceptions=True) if one]
    assert [type(one) for one in refused] == [TooManyBudgets] * 2
    await budget(database, org, 2, name="b0")
    await budget(database, "org_other", 2)


async def test_an_erased_persons_budget_goes(metering_database_url: str, database: Connection, org: str):
    for name, who in (("all", None), ("ann", "ann"), ("bob", "bob")):
        await budget(database, org, 1, who, name)
    await budget(database, "org_other", 1, "ann", "ann")
    async with recorder(metering_database_url) as rec:
        await use(rec, cost(org, 2), cost(org, 2, "bob"))
        async with database.transaction():
            await erasure.erase(database, "ann", [org], NOON)
        await use(rec, cost(org, 2))
    for table, left in (("budgets", {"all", "bob"}), ("budgets_exceeded", {"all", "bob"})):
        rows = await database.fetch(f"SELECT budget_id FROM {table} WHERE org_id = $1", org)
        assert {row["budget_id"] for row in rows} == left
    assert await database.fetchval("SELECT count(*) FROM budgets WHERE user_id = 'ann'") == 1
    await equal_to_log(metering_database_url)
