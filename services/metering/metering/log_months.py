"""The months of the log: partitions made ahead, and the month in which events are recorded.

The log is partitioned by the month in which an event was *recorded*, not the one in which it occurred: so a retry with
another timestamp still meets its first copy, late usage needs no old partition, and finding a repeat costs a look at
one month's index, or two in the 35 days after a month was opened (docs/decisions/0003).
"""

from datetime import date, datetime, timedelta

import structlog

from aragora.chassis import sql
from aragora.chassis.sql import Pool

log = structlog.get_logger()
queries = sql.load("metering")


async def open_due_month(pool: Pool, now: datetime) -> date:
    """Open the log month of `now` if it is not open yet, with the partition for the month after; the current month.

    Any number of workers may do so at once. Opening waits for the recording transactions in flight, so that no two
    transactions ever record into different months at the same time.
    """
    due = now.date().replace(day=1)
    async with pool.acquire() as connection:
        current: date | None = await connection.fetchval(queries.current_log_month)
        if current is None or current < due:
            async with connection.transaction():
                await connection.execute(queries.hold_log)
                await connection.execute(queries.make_partition, due)
                opened = await connection.fetchval(queries.open_log_month, due)
            if opened:
                log.info("log_month_opened", log_month=str(due))
            current = due
        ahead = next_month(current)
        async with connection.transaction():
            await connection.execute(queries.hold_log)
            if await connection.fetchval(queries.make_partition, ahead):
                log.info("log_partition_made", log_month=str(ahead))
    return current


def next_month(month: date) -> date:
    """The first day of the month after."""
    return (month.replace(day=1) + timedelta(days=32)).replace(day=1)
