"""What nobody needs any more is forgotten, once an hour."""

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta

import structlog

from aragora.chassis import inbox, sql
from aragora.chassis.sql import Pool
from aragora.chassis.transient import is_transient
from notifier.handlers import Clock

EVERY_SECONDS = 3600.0
KEEP_ALERTS = timedelta(days=400)
KEEP_DELIVERIES = timedelta(days=30)
"""Of mail and of webhooks: as long as one may redeliver."""
KEEP_ERASED = timedelta(days=35)
"""The bus delivers nothing any more from before that."""

queries = sql.load("notifier", "sql/housekeeping.sql")
log = structlog.get_logger(__name__)


async def keep_house(pool: Pool, clock: Clock, stop: asyncio.Event) -> None:
    """Again and again until `stop`."""
    while not stop.is_set():
        try:
            await forget(pool, clock())
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("housekeeping was interrupted; trying again", reason=repr(error))
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), EVERY_SECONDS)


async def forget(pool: Pool, now: datetime) -> None:
    """Delete what has become old. What still waits to be delivered is never old."""
    async with pool.acquire() as connection:
        await connection.execute(queries.forget_alerts, now - KEEP_ALERTS)
        await connection.execute(queries.forget_reads, now - KEEP_ALERTS)
        await connection.execute(queries.forget_mail, now - KEEP_DELIVERIES)
        await connection.execute(queries.forget_webhooks, now - KEEP_DELIVERIES)
        await connection.execute(queries.forget_former_secrets, now)
        await connection.execute(queries.forget_erased, now - KEEP_ERASED)
        await inbox.forget_before(connection, now - KEEP_ERASED)
