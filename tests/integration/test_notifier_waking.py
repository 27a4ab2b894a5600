"""Working through a queue goes on through whatever happens to the connection that listens."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest
from servers import eventually

from aragora.chassis.sql import Pool
from aragora.contracts.ids import new_id
from notifier.addressing import queries
from notifier.waking import keep_at


@pytest.fixture
async def pool(notifier_database_url: str) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(notifier_database_url, min_size=1, max_size=4) as found:
        yield found


async def present(pool: Pool, worker_id: UUID) -> bool:
    return bool(await pool.fetchval("SELECT count(*) FROM present_workers WHERE key = worker_key($1)", worker_id))


async def test_a_listener_that_postgres_ends_listens_again(pool: Pool):
    worker_id, stop, looks = new_id(), asyncio.Event(), []

    async def work() -> bool:
        looks.append(1)
        return False

    release = queries.release_alerts_of_the_dead
    keeping = asyncio.create_task(keep_at(work, pool, "mail", stop, worker_id=worker_id, release_of_the_dead=release))
    await eventually(lambda: present(pool, worker_id), 5)
    for _ in range(3):
        before = len(looks)
        await pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE locktype = 'advisory' AND datname = current_database() AND pid <> pg_backend_pid()"
        )
        await eventually(lambda before=before: len(looks) > before, 10)  # type: ignore[misc]
        await eventually(lambda: present(pool, worker_id), 10)
        assert not keeping.done()
    before = len(looks)
    await pool.execute("SELECT pg_notify('mail', '')")
    await eventually(lambda: len(looks) > before, 0.9, what="it is woken before it looks by itself")
    stop.set()
    await keeping
    assert not await present(pool, worker_id)


async def test_what_the_dead_have_claimed_is_given_back_and_what_the_living_have_is_not(pool: Pool):
    dead, living, stop = new_id(), new_id(), asyncio.Event()
    add = (
        "INSERT INTO unaddressed_alerts"
        " (org_id, alert_id, topic_rank, expires_at, queued_at, claimed_by, claimed_until)"
        " VALUES ('org', uuidv7(), 0, now(), now(), $1, now() + interval '1 hour')"
    )

    async def work() -> bool:
        return False

    release = queries.release_alerts_of_the_dead
    keeping = asyncio.create_task(keep_at(work, pool, "mail", stop, worker_id=living, release_of_the_dead=release))
    await eventually(lambda: present(pool, living), 5)
    await pool.execute(add, dead)
    await pool.execute(add, living)

    async def claimed_by() -> set[UUID]:
        return {row[0] for row in await pool.fetch("SELECT claimed_by FROM unaddressed_alerts")}

    async def given_back() -> bool:
        return await claimed_by() == {None, living}

    await eventually(given_back, 5)
    stop.set()
    await keeping
