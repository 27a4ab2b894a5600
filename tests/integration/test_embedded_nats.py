import asyncio
import json
from collections.abc import Awaitable, Callable

import nats.errors
import pytest
from nats.aio.client import Client
from servers import NATS_PASSWORDS

from aragora_nats.configuration import STREAM_MAX_BYTES
from aragora_nats.topology import apply_topology
from standalone.nats import EmbeddedNats
from standalone.problems import StartFailed

StartNats = Callable[[], Awaitable[EmbeddedNats]]


async def _apply(client: Client) -> list[str]:
    return await apply_topology(client.jetstream(), replicas=1, max_bytes=STREAM_MAX_BYTES)


async def test_an_acknowledged_message_survives_a_kill(private_nats: StartNats) -> None:
    server = await private_nats()
    client = await server.connect()
    await _apply(client)
    for number in range(100):
        await client.jetstream().publish("usage.recorded.0", str(number).encode())
    await client.close()
    await server.kill()
    await server.start()
    client = await server.connect()
    info = await client.jetstream().stream_info("USAGE")
    await client.close()
    assert info.state.messages == 100


async def test_the_topology_applies_twice(private_nats: StartNats) -> None:
    server = await private_nats()
    client = await server.connect()
    first, second = await _apply(client), await _apply(client)
    await client.close()
    assert "stream USAGE created" in first
    assert "stream USAGE up to date" in second


async def test_every_message_is_synced_and_8_mb_fit(private_nats: StartNats) -> None:
    server = await private_nats()
    path = server.data_dir / "nats" / "nats.conf"
    assert json.loads(path.read_text())["jetstream"]["sync_interval"] == "always"
    assert path.stat().st_mode & 0o777 == 0o600
    client = await server.connect()
    assert client.max_payload == 8 * 1024 * 1024
    await client.close()


async def test_a_publisher_may_publish_usage_and_nothing_else(private_nats: StartNats) -> None:
    server = await private_nats()
    operator = await server.connect()
    await _apply(operator)
    await operator.close()
    publisher = await server.connect("publisher")
    refused: asyncio.Queue[Exception] = asyncio.Queue()
    publisher._error_cb = refused.put
    acknowledged = await publisher.jetstream().publish("usage.recorded.3", b"{}")
    assert acknowledged.stream == "USAGE"
    await publisher.publish("events.metering.LimitReached.acme", b"{}")
    await publisher.flush()
    assert "permissions violation" in str(await asyncio.wait_for(refused.get(), 5)).lower()
    await publisher.subscribe("usage.recorded.*")
    await publisher.flush()
    assert "permissions violation" in str(await asyncio.wait_for(refused.get(), 5)).lower()
    await publisher.close()


async def test_a_wrong_password_is_refused(private_nats: StartNats) -> None:
    server = await private_nats()
    stranger = EmbeddedNats(server.data_dir, {**NATS_PASSWORDS, "publisher": "wrong"}, server.port)
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        await stranger.connect("publisher")


async def test_a_taken_port_is_said_with_the_log(private_nats: StartNats) -> None:
    server = await private_nats()
    other = EmbeddedNats(server.data_dir / "other", NATS_PASSWORDS, server.port)
    with pytest.raises(StartFailed, match=r"(?s)NATS ended with 1 while starting.*address already in use"):
        await other.start()
