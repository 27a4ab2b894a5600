"""The inbox: a consumer handles each event once, however often the bus delivers it."""

from datetime import datetime
from uuid import UUID

from aragora.chassis import sql
from aragora.chassis.sql import Connection

queries = sql.load("aragora.chassis")


async def first_time(conn: Connection, consumer: str, event_id: UUID | str) -> bool:
    """Whether `consumer` sees this event for the first time. Call it in the transaction that handles the event."""
    return await conn.fetchval(queries.record_seen, consumer, event_id) is True


async def forget_before(conn: Connection, moment: datetime) -> None:
    """Forgets what was seen before `moment`. Keep at least as much as the bus could still deliver again."""
    await conn.execute(queries.forget_seen, moment)
    await conn.execute(queries.forget_failures, moment)
