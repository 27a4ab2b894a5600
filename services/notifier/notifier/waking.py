"""Working through a queue as soon as something is put there: Postgres says so, and each second one looks anyway.

Who works shows that they are there, by a lock that their session holds. So what a worker had claimed that died is
taken up within a second, and not only when the claim runs out.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from uuid import UUID

import asyncpg
import structlog

from aragora.chassis import sql
from aragora.chassis.relay import backoff
from aragora.chassis.sql import Pool
from aragora.chassis.transient import is_transient

POLL_SECONDS = 1.0

queries = sql.load("notifier", "sql/waking.sql")
log = structlog.get_logger(__name__)


async def keep_at(
    work: Callable[[], Awaitable[bool]],
    pool: Pool,
    channel: str,
    stop: asyncio.Event,
    *,
    worker_id: UUID,
    release_of_the_dead: str,
    woken: asyncio.Event | None = None,
) -> None:
    """Do `work` until `stop`: again at once if it says that there is more, else when `channel` is notified, or the
    caller sets `woken`.

    What `work` claims, it claims as `worker_id`; `release_of_the_dead` is the statement that gives back what workers
    have claimed that are gone. A server that is away is waited for; whatever else `work` raises is the caller's.
    """
    loop = asyncio.get_running_loop()
    woken = woken or asyncio.Event()
    failures = 0

    def wake(*_: object) -> None:
        woken.set()

    while not stop.is_set():
        try:
            async with pool.acquire() as connection:
                connection.add_termination_listener(wake)
                await connection.execute(queries.show_presence, worker_id)
                await connection.add_listener(channel, wake)
                look_at = loop.time()
                try:
                    while not stop.is_set() and not connection.is_closed():
                        woken.clear()
                        if loop.time() >= look_at:
                            await connection.execute(release_of_the_dead)
                            look_at = loop.time() + POLL_SECONDS
                        if not await work():
                            await _first_of(woken, stop)
                        failures = 0
                finally:
                    # Ends presence and listening at once. A connection that broke, the pool has taken back already.
                    with suppress(asyncpg.InterfaceError):
                        connection.terminate()
        except Exception as error:
            # asyncpg's InterfaceError: a connection that broke was taken back by the pool
            if not is_transient(error) and not isinstance(error, asyncpg.InterfaceError):
                raise
            failures += 1
            log.warning("interrupted; trying again", channel=channel, reason=repr(error))
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), backoff(failures))


async def _first_of(woken: asyncio.Event, stop: asyncio.Event) -> None:
    waiting = {asyncio.ensure_future(woken.wait()), asyncio.ensure_future(stop.wait())}
    try:
        await asyncio.wait(waiting, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
