"""Revocations on a cluster: said until they are on disk, and heard by a process that follows them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import nats.errors
import nats.js.errors
from faststream.nats import NatsBroker
from nats_cluster import NatsCluster
from servers import NATS_PASSWORDS, eventually
from trust import say

from aragora.chassis.bus import connect_bus
from aragora.chassis.consume import disconnect
from aragora.chassis.following import follow
from aragora.contracts.envelope import decode
from aragora.contracts.events import TokenRevoked
from aragora.contracts.topology import METERING, REVOCATIONS


@asynccontextmanager
async def metering_bus(cluster: NatsCluster) -> AsyncIterator[NatsBroker]:
    """Metering's connection, as it has it in production."""
    broker = connect_bus(cluster.addresses, "metering", NATS_PASSWORDS["metering"], METERING)
    await broker.connect()
    try:
        yield broker
    finally:
        await disconnect(broker)


@asynccontextmanager
async def following(cluster: NatsCluster) -> AsyncIterator[list[str]]:
    """The tokens of whose end a process has heard."""
    heard: list[str] = []

    def hear(message: bytes) -> None:
        _, event = decode(message)
        assert isinstance(event, TokenRevoked)
        if (token := str(event.token_jti)) not in heard:
            heard.append(token)

    async with metering_bus(cluster) as broker:
        caught_up = asyncio.Event()
        since = datetime.now(UTC) - timedelta(hours=1)
        task = asyncio.create_task(follow(await broker.connect(), REVOCATIONS[0], since, hear, caught_up))
        try:
            await asyncio.wait_for(caught_up.wait(), 20)
            yield heard
        finally:
            while not task.done():  # Python 3.11's `wait_for` forgets a cancellation that comes with a message
                task.cancel()
                await asyncio.wait([task], timeout=1)


async def revoke(cluster: NatsCluster, token: str) -> None:
    """Say that a token was revoked; it is on disk afterwards. Said twice, it is heard twice, and changes nothing."""
    ends_at = datetime.now(UTC) + timedelta(days=1)
    revoked = TokenRevoked(user_id="user_a", token_jti=token, expires_at=ends_at, reason="logout")

    async def said() -> bool:
        with suppress(nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError):
            client = await cluster.connect()
            try:
                await say(client, revoked)
            finally:
                await client.close()
            return True
        return False

    await eventually(said, 60)
