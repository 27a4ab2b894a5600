"""The lockout ladder: who fails again and again waits, longer each time; by account and by network address.

It is climbed in the same way whether there is an account or not. An attempt is looked up and counted within one turn of
the hasher, so that many at once get no further than there are turns.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from aragora.chassis.problems import Problem
from aragora.chassis.sealing import Sealer
from aragora.chassis.sql import Connection
from auth.acts import queries

LADDER = ((15, timedelta(hours=1)), (10, timedelta(minutes=15)), (5, timedelta(minutes=1)))
"""From so many failures on, the highest step first. Past the top, every failure locks anew."""
FORGOTTEN_AFTER = timedelta(hours=24)

Keys = Sequence[tuple[str, bytes]]


def lock_after(failures: int) -> timedelta | None:
    """How long nobody may try after so many failures in a row; None: try again at once."""
    top, longest = LADDER[0]
    if failures >= top:
        return longest
    return dict(LADDER).get(failures)


def keys_of(sealer: Sealer, email: str, address: str) -> Keys:
    """Under which an attempt is counted. Neither can be read out of the table."""
    return [("account", sealer.digest("account", email)), ("address", sealer.digest("address", address))]


async def demand_unlocked(connection: Connection, keys: Keys, now: datetime) -> None:
    """Let nobody pass who has to wait.

    Raises:
        Problem: 429, with the seconds to wait.
    """
    kinds, digests = zip(*keys, strict=True)
    until = await connection.fetchval(queries.locked_until, kinds, digests, now)
    if until is not None:
        seconds = max(1, round((until - now).total_seconds()))
        detail = f"Too many attempts failed; wait {_spoken(seconds)}, then try again."
        raise Problem(429, detail, headers={"Retry-After": str(seconds)})


def _spoken(seconds: int) -> str:
    return f"{seconds} seconds" if seconds < 120 else f"{-(-seconds // 60)} minutes"


async def count_failure(connection: Connection, keys: Keys, now: datetime) -> tuple[int, datetime] | None:
    """Count one more. If it locks the account: how many there were, and until when."""
    locked = None
    for kind, digest in sorted(keys):
        failures = await connection.fetchval(queries.count_failure, kind, digest, now, now - FORGOTTEN_AFTER)
        if (pause := lock_after(failures)) is not None:
            await connection.execute(queries.lock, kind, digest, now + pause)
            if kind == "account":
                locked = failures, now + pause
    return locked


async def forget_failures(connection: Connection, keys: Keys) -> None:
    """Begin anew for the account: it was its owner. The address keeps its count, which others may have added to."""
    for kind, digest in keys:
        if kind == "account":
            await connection.execute(queries.forget_failures, kind, digest)
