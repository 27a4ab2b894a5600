"""What happens by itself: trials and comps that end, and changes that were put off to the end of the period.

The moments are in the database, so that any worker finds them, also after it was away. Two workers that find the same
one decide on the same stream: the first appends, and there is nothing left for the second.
"""

import asyncio
from datetime import datetime

import structlog

from aragora.chassis.sql import Pool
from aragora.chassis.store import VersionConflict
from aragora.chassis.transient import is_transient
from billing import subscriptions
from billing.commands import Settle
from billing.handlers import Clock
from billing.subscriptions import queries

POLL_SECONDS = 1.0
"""How late a transition may be. It takes effect as of its moment all the same."""
BATCH = 500

_log = structlog.get_logger(__name__)


async def follow_the_clock(pool: Pool, clock: Clock, stop: asyncio.Event) -> None:
    """Settle what is due, again and again until `stop`."""
    while not stop.is_set():
        try:
            await settle_due(pool, clock())
        except Exception as error:
            if not is_transient(error) and not isinstance(error, VersionConflict):
                raise
            _log.warning("what is due was not settled; trying again", reason=repr(error))
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await stop.wait()
        except TimeoutError:
            continue


async def settle_due(pool: Pool, now: datetime) -> int:
    """Settle what is due by `now`, each organization in a transaction of its own. Returns how many there were."""
    settled = 0
    async with pool.acquire() as connection:
        while due := [row["org_id"] for row in await connection.fetch(queries.due_organizations, now, BATCH)]:
            known = await subscriptions.load_plans(connection)
            for org_id in due:
                await subscriptions.execute(connection, org_id, Settle(), known, now=now)
            settled += len(due)
    return settled
