"""A service's connection to the bus, and whether the service can do its work."""

from typing import TYPE_CHECKING, Any

import structlog
from faststream.nats import NatsBroker
from faststream.security import SASLPlaintext

from aragora.chassis.sql import Pool
from aragora.contracts.topology import Account

if TYPE_CHECKING:
    from aragora.chassis.probes import Check  # a worker without probes needs no web framework

POSTGRES_SECONDS = 2.0

_log = structlog.get_logger(__name__)


def connect_bus(url: str, user: str | None, password: str | None, account: Account, **policy: Any) -> NatsBroker:
    """A connection that is not yet open, and that reconnects for ever.

    Args:
        url: of the bus, or of each of its servers, separated by commas.
        user: its user there; None where the bus asks for none.
        password: the user's.
        account: whose inbox prefix answers come back on.
        **policy: further arguments of `NatsBroker`, such as those of `consume.consume_policy`.
    """
    return NatsBroker(
        url.split(","),
        security=None if user is None else SASLPlaintext(username=user, password=password or ""),
        inbox_prefix=account.inbox_prefix,
        max_reconnect_attempts=-1,
        reconnect_time_wait=1,
        ping_interval=5,  # a server that vanished without a word is left after three of them
        logger=None,
        error_cb=_log_error,
        graceful_timeout=20,
        **policy,
    )


async def _log_error(error: Exception) -> None:
    _log.warning("bus_error", error=str(error) or type(error).__name__)


def readiness(pool: Pool, broker: NatsBroker) -> "dict[str, Check]":
    """What must answer before a service can do its work: its database and the bus."""

    async def postgres() -> None:
        # With a timeout the connection has as long to come back, and is given up then.
        async with pool.acquire(timeout=POSTGRES_SECONDS) as connection:
            await connection.fetchval("SELECT 1")

    async def bus() -> None:
        if not await broker.ping(timeout=1):
            raise ConnectionError("not connected to NATS")

    return {"postgres": postgres, "nats": bus}
