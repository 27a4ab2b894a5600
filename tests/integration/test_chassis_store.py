import asyncio
from datetime import UTC, datetime
from typing import Any, ClassVar

import asyncpg
import pytest
from structlog.contextvars import bound_contextvars

from aragora.chassis import store
from aragora.chassis.migrate import migrate
from aragora.chassis.store import VersionConflict, append, append_each, decide_and_append, load
from aragora.contracts import envelope
from aragora.contracts.envelope import DomainEvent

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ABOUT: dict[str, Any] = {"org_id": "o1", "occurred_at": NOW}


@pytest.fixture
def added(monkeypatch) -> type[DomainEvent]:
    """An event of this test's own, which no other test knows."""
    monkeypatch.setattr(envelope, "_events", dict(envelope._events))

    class Added(DomainEvent):
        type_name: ClassVar[str] = "aragora.testing.Added.v1"
        n: int

    return Added


@pytest.fixture
async def pool(empty_database_url):
    async with asyncpg.create_pool(empty_database_url, min_size=1, max_size=12) as one:
        async with one.acquire() as conn:
            await migrate(conn)
        yield one


async def test_what_is_appended_is_loaded_in_order_and_queued(pool, added):
    async with pool.acquire() as conn:
        first = await append(conn, "o1/a", 0, [added(n=1), added(n=2)], **ABOUT, causation_id="cause")
        second = await append(conn, "o1/a", 2, [added(n=3)], **ABOUT)
        assert [one.version for one in first + second] == [1, 2, 3]
        assert [one.position for one in first + second] == [1, 2, 3]
        assert await load(conn, "o1/a", org_id="o1") == (3, [added(n=1), added(n=2), added(n=3)])
        assert await load(conn, "o1/a", org_id="o2") == (0, [])
        assert await append(conn, "o1/a", 3, [], **ABOUT) == []
        queued = await conn.fetch("SELECT e.id, e.causation_id FROM outbox JOIN events e USING (org_id, position)")
        assert {row["id"] for row in queued} == {one.id for one in first + second}
        assert [row["causation_id"] for row in queued] == ["cause", "cause", None]


async def test_events_have_the_current_correlation_id_or_begin_one(pool, added):
    async with pool.acquire() as conn:
        with bound_contextvars(correlation_id="order-17"):
            await append(conn, "o1/a", 0, [added(n=1)], **ABOUT)
            await append_each(conn, [("o1", "o1/b", added(n=2))], occurred_at=NOW)
        alone = await append(conn, "o1/c", 0, [added(n=3), added(n=4)], **ABOUT)
        await append_each(conn, [("o1", "o1/d", added(n=5))], occurred_at=NOW)
        rows = await conn.fetch("SELECT id::text, correlation_id FROM events ORDER BY position")
        given = [row["correlation_id"] for row in rows]
        assert given == ["order-17"] * 2 + [str(alone[0].id)] * 2 + [rows[-1]["id"]]


@pytest.mark.parametrize("expected", [0, 1, 3])
async def test_a_wrong_expected_version_writes_nothing(pool, added, expected):
    async with pool.acquire() as conn:
        await append(conn, "o1/a", 0, [added(n=1), added(n=2)], **ABOUT)
        with pytest.raises(VersionConflict, match=f"no longer has {expected} events"):
            await append(conn, "o1/a", expected, [added(n=9), added(n=9), added(n=9)], **ABOUT)
        assert (await load(conn, "o1/a", org_id="o1"))[0] == 2


async def test_of_two_concurrent_appends_one_wins(pool, added):
    async with pool.acquire() as slow, pool.acquire() as fast:
        async with slow.transaction():
            await append(slow, "o1/a", 0, [added(n=1)], **ABOUT)
            waiting = asyncio.create_task(append(fast, "o1/a", 0, [added(n=2)], **ABOUT))
            while not await slow.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                pass  # until the other append waits for this transaction
        with pytest.raises(VersionConflict):
            await waiting
        assert await load(fast, "o1/a", org_id="o1") == (1, [added(n=1)])


async def test_an_append_belongs_to_the_callers_transaction(pool, added):
    async with pool.acquire() as conn:
        failing = conn.transaction()
        await failing.start()
        await append(conn, "o1/a", 0, [added(n=1)], **ABOUT)
        await failing.rollback()
        assert await load(conn, "o1/a", org_id="o1") == (0, [])
        assert await conn.fetchval("SELECT count(*) FROM outbox") == 0


@pytest.mark.parametrize("change", ["UPDATE events SET stream = 'x'", "DELETE FROM events", "TRUNCATE events CASCADE"])
async def test_the_log_refuses_to_be_changed(pool, added, change):
    async with pool.acquire() as conn:
        await append(conn, "o1/a", 0, [added(n=1)], **ABOUT)
        with pytest.raises(asyncpg.RestrictViolationError, match="events is append-only: correct a mistake"):
            await conn.execute(change)
        assert (await load(conn, "o1/a", org_id="o1"))[0] == 1


async def test_a_loser_loads_and_decides_again(pool, added):
    """Ten deciders add one each, at most ten in all may; every decision is made on what is really there."""

    async def add_one() -> int:
        async with pool.acquire() as conn:
            total, _ = await decide_and_append(
                conn,
                "o1/a",
                lambda total: [added(n=1)] if total < 7 else [],
                lambda total, event: total + event.model_dump()["n"],
                0,
                **ABOUT,
                tries=50,
            )
            return total

    totals = await asyncio.gather(*(add_one() for _ in range(10)))
    assert sorted(totals) == [1, 2, 3, 4, 5, 6, 7, 7, 7, 7]
    async with pool.acquire() as conn:
        assert (await load(conn, "o1/a", org_id="o1"))[0] == 7


async def test_after_three_lost_tries_it_gives_up(pool, added, monkeypatch):
    tries = []
    async with pool.acquire() as conn, pool.acquire() as faster:

        def decide(version: int) -> list[DomainEvent]:
            tries.append(version)
            return [added(n=version)]

        async def somebody_is_faster(*args: Any, **kwargs: Any):
            await append_really(faster, "o1/a", tries[-1], [added(n=0)], **ABOUT)
            return await append_really(*args, **kwargs)

        append_really = store.append
        monkeypatch.setattr(store, "append", somebody_is_faster)
        with pytest.raises(VersionConflict):
            await decide_and_append(conn, "o1/a", decide, lambda version, _: version + 1, 0, **ABOUT)
    assert tries == [0, 1, 2]


async def test_old_versions_are_read_as_the_latest(pool, added, monkeypatch):
    monkeypatch.setattr(envelope, "_upcasters", {})
    async with pool.acquire() as conn:
        await append(conn, "o1/a", 0, [added(n=1)], **ABOUT)
        envelope._events.pop("aragora.testing.Added.v1")

        class Added(DomainEvent):
            type_name: ClassVar[str] = "aragora.testing.Added.v2"
            count: int

        envelope.upcaster("aragora.testing.Added.v1")(lambda fields: {"count": fields["n"]})
        assert await load(conn, "o1/a", org_id="o1") == (1, [Added(count=1)])
