"""Addresses that get no mail: kept by a keyed hash, which nobody can read an address from."""

from datetime import datetime

from aragora.chassis.sealing import Sealer
from aragora.chassis.sql import Pool
from notifier.failover import queries
from notifier.mailroom import digests_of


async def suppress(pool: Pool, sealer: Sealer, email: str, now: datetime) -> None:
    """Nothing is sent to this address until it is released.

    Raises:
        ValueError: it is no address; the message is a sentence, and does not repeat it.
    """
    await pool.execute(queries.suppress, digests_of(sealer, email)[0], "operator", now)


async def release(pool: Pool, sealer: Sealer, email: str) -> None:
    """Mail may be sent to this address again.

    Raises:
        ValueError: as `suppress`.
    """
    await pool.execute(queries.release, digests_of(sealer, email))
