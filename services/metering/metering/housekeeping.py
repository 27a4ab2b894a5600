"""What a worker does beside recording: end reservations in time, open and close months, look for days that are not like
the others, forget what nobody asks for.
"""

import asyncio
from datetime import UTC, date, datetime, timedelta

import asyncpg
import structlog

from aragora.billing.rating import trimmed
from aragora.chassis import inbox, sql, store
from aragora.chassis.sql import Connection, Pool
from aragora.chassis.store import VersionConflict
from aragora.contracts.events import UsageAnomalySeen
from metering import erasure, limit_store, metrics
from metering.anomalies import FLOORS, LOOK_EVERY, WINDOW_DAYS, is_unusual
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
anomaly_queries = sql.load("metering", "sql/anomalies.sql")

_PASSING = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, VersionConflict)
"""In a moment it is tried again."""


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
        except _PASSING as error:
            # Nothing depends on it at once; in a moment this is tried again.
            metrics.housekeeping_failures.labels("reservations").inc()
            log.warning("housekeeping_failed", error=str(error))
        await _wait(stop, EXPIRY_SECONDS)


async def close_months(pool: Pool, stop: asyncio.Event, close_days: int) -> None:
    """Until `stop` is set, beside the rest: a month of many organizations takes its time. `pool`: see `close_due`."""
    while not stop.is_set():
        try:
            await close_due(pool, datetime.now(UTC), close_days, stop)
        except _PASSING as error:
            metrics.housekeeping_failures.labels("months").inc()
            log.warning("closing_failed", error=str(error))
        await _wait(stop, HOUSEKEEPING_SECONDS)


async def watch_days(pool: Pool, stop: asyncio.Event) -> None:
    """Until `stop` is set, beside the rest: a look at many organizations takes its time."""
    while not stop.is_set():
        try:
            await look_for_anomalies(pool, datetime.now(UTC))
        except _PASSING as error:
            metrics.housekeeping_failures.labels("anomalies").inc()
            log.warning("looking_for_anomalies_failed", error=str(error))
        await _wait(stop, HOUSEKEEPING_SECONDS)


async def look_for_anomalies(pool: Pool, now: datetime) -> int:
    """Raise `UsageAnomalySeen` for days that are not like the others, if nobody has looked for an hour.

    Today, as far as it has come, and yesterday too if the last look was then: every day is looked at whole. It is one
    transaction, the note of the look included: after a crash somebody looks again, and nothing is said twice.

    Args:
        pool: any number of workers may do so at once; one of them looks.
        now: in UTC.

    Returns:
        How many were raised.

    Raises:
        asyncpg.PostgresError, OSError: nothing was raised; do it again.
    """
    async with pool.acquire() as connection, connection.transaction():
        looked_at = await connection.fetchval(anomaly_queries.begin_look, now, now - LOOK_EVERY)
        if looked_at is None:
            return 0
        days = [now.date()] if looked_at.date() >= now.date() else [now.date() - timedelta(days=1), now.date()]
        found = [row for day in days for row in await _unusual(connection, day)]
        if found:
            orgs, seen = zip(*found, strict=True)
            await connection.execute(
                anomaly_queries.note_anomalies, orgs, [one.day for one in seen], [one.meter for one in seen]
            )
            streams = [f"anomaly/{one.day}/{one.meter}" for one in seen]
            await store.append_each(connection, list(zip(orgs, streams, seen, strict=True)), occurred_at=now)
    if found:
        log.info("usage_anomalies_seen", count=len(found))
    return len(found)


async def _unusual(connection: Connection, day: date) -> list[tuple[str, UsageAnomalySeen]]:
    asked = (day, WINDOW_DAYS, FLOORS["cost_usd"], FLOORS["api_calls"])
    # In portions: of many thousand busy organizations few are unusual, and recording goes on meanwhile.
    return [
        (
            row["org_id"],
            UsageAnomalySeen(
                day=day,
                meter=row["meter"],
                used=trimmed(row["used"]),
                usual=trimmed(row["usual"]),
                days=row["days"],
            ),
        )
        async for row in connection.cursor(anomaly_queries.busy_days, *asked, prefetch=500)
        if is_unusual(row["meter"], row["used"], row["usual"], row["days"])
    ]


async def end_reservations(pool: Pool, now: datetime) -> None:
    """End every reservation that is past its time."""
    async with pool.acquire() as connection:
        while ended := await limit_store.expire_due(connection, now):
            metrics.reserved("expired", ended)


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
