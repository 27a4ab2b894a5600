"""What a worker does beside recording: end reservations in time, open and close months, forget what nobody asks for."""

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import structlog

from aragora.chassis import inbox
from aragora.chassis.sql import Pool
from aragora.chassis.store import VersionConflict
from metering import erasure, limit_store
from metering.log_months import open_due_month
from metering.periods import close_due

EXPIRY_SECONDS = 0.5
"""How long after its time a reservation ends at the latest, where nobody asks; a new reservation ends it at once."""
HOUSEKEEPING_SECONDS = 60.0
FORGET_FAILURES_AFTER = timedelta(days=35)
FORGET_RESERVATIONS_AFTER = timedelta(days=1)
FORGET_AT_ONCE = 5_000
FORGET_ERASED_AFTER = timedelta(days=35)
"""The bus delivers nothing any more from before that, and a repeat of usage is no longer known as one either."""

log = structlog.get_logger()


async def keep_house(pool: Pool, stop: asyncio.Event) -> None:
    """Until `stop` is set. Any number of workers may do so at once."""
    swept_at: datetime | None = None
    while not stop.is_set():
        now = datetime.now(UTC)
        try:
            await end_reservations(pool, now)
            if swept_at is None or (now - swept_at).total_seconds() >= HOUSEKEEPING_SECONDS:
                await sweep(pool, now)
                swept_at = now
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            # Nothing depends on it at once; in a moment this is tried again.
            log.warning("housekeeping_failed", error=str(error))
        await _wait(stop, EXPIRY_SECONDS)


async def close_months(pool: Pool, stop: asyncio.Event, close_days: int) -> None:
    """Until `stop` is set, beside the rest: a month of many organizations takes its time. `pool`: see `close_due`."""
    while not stop.is_set():
        try:
            await close_due(pool, datetime.now(UTC), close_days, stop)
        except (
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            OSError,
            VersionConflict,
        ) as error:
            log.warning("closing_failed", error=str(error))
        await _wait(stop, HOUSEKEEPING_SECONDS)


async def end_reservations(pool: Pool, now: datetime) -> None:
    """End every reservation that is past its time."""
    async with pool.acquire() as connection:
        while await limit_store.expire_due(connection, now):
            continue


async def sweep(pool: Pool, now: datetime) -> None:
    """Open the month that is due, forget old failures of deliveries, old reservations, and who was erased."""
    await open_due_month(pool, now)
    async with pool.acquire() as connection:
        await inbox.forget_before(connection, now - FORGET_FAILURES_AFTER)
        await connection.execute(erasure.queries.forget_erased, now - FORGET_ERASED_AFTER)
        while await limit_store.forget_ended(connection, now - FORGET_RESERVATIONS_AFTER, FORGET_AT_ONCE):
            continue


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
