"""A worker at its queue: seen by others while it is there, and there again after its connection was cut."""

import asyncio

import asyncpg
import servers

from aragora.contracts.ids import new_id
from notifier.failover import queries
from notifier.waking import keep_at

PRESENT = "SELECT EXISTS (SELECT FROM present_workers WHERE key = worker_key($1))"
WHO_IS_PRESENT = (
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


async def test_who_was_cut_off_is_there_again_and_works_on(notifier_database_url):
    worker_id, stop, turns, goes_on = new_id(), asyncio.Event(), 0, asyncio.Event()

    async def work() -> bool:
        nonlocal turns
        turns += 1
        if turns == 1:
            await goes_on.wait()
        return False

    async with asyncpg.create_pool(notifier_database_url, min_size=1, max_size=4) as pool:

        async def is_there() -> bool:
            return bool(await pool.fetchval(PRESENT, worker_id))

        async def is_gone() -> bool:
            return not await is_there()

        release = queries.release_mail_of_the_dead
        working = asyncio.create_task(
            keep_at(work, pool, "mail", stop, worker_id=worker_id, release_of_the_dead=release)
        )
        await servers.eventually(lambda: turns == 1, 10, what="the first turn")
        assert await is_there()
        assert await servers.cut(notifier_database_url, WHO_IS_PRESENT) == 1
        await servers.eventually(is_gone, 10, what="the cut")
        goes_on.set()
        await servers.eventually(is_there, 10, what="the worker to be there again")
        await servers.eventually(lambda: turns > 1, 10, what="another turn")
        stop.set()
        await asyncio.wait_for(working, 10)
        await servers.eventually(is_gone, 10, what="the worker to be gone")
