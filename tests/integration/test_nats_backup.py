"""A backup of the bus is whole: restored to empty servers, everybody goes on where they were."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats_cluster import nats_cluster
from servers import NATS_PASSWORDS, scratch_dir

from aragora.contracts.topology import CONSUMERS, EVENTS, METERING_WORKERS, NOTIFIER_PEOPLE, STREAMS, USAGE
from aragora_nats import topology
from aragora_nats.configuration import STREAM_MAX_BYTES
from aragora_nats.snapshots import MANIFEST, SnapshotError, back_up, restore
from aragora_nats.topology import apply_topology
from standalone.nats import EmbeddedNats

StartNats = Callable[[], Awaitable[EmbeddedNats]]
SENT = 200
DELIVERED, ACKNOWLEDGED = 30, 20


@pytest.fixture
async def folder() -> AsyncIterator[Path]:
    async with scratch_dir() as path:
        yield path / "backup"


async def fill(client: Client) -> None:
    """Usage and events; two consumers have got some of them, and acknowledged fewer."""
    bus = client.jetstream()
    for subject, letter in (("usage.recorded.0", "u"), ("events.auth.MemberJoined.org_a", "e")):
        for number in range(SENT):
            await bus.publish_async(subject, body(number), headers={"Nats-Msg-Id": f"{letter}{number}"})
    await bus.publish_async_completed()
    for consumer in (METERING_WORKERS[0], NOTIFIER_PEOPLE):
        taken = await bus.pull_subscribe_bind(consumer.name, consumer.stream)
        messages = await taken.fetch(DELIVERED, timeout=5)
        await asyncio.gather(*(message.ack_sync(timeout=5) for message in messages[:ACKNOWLEDGED]))


def body(number: int) -> bytes:
    return json.dumps({"number": number, "text": "x" * 2000}).encode()


async def left(bus: JetStreamContext, name: str, stream: str, count: int) -> list[int]:
    """What a consumer gets, and acknowledges, until nothing is left."""
    taken = await bus.pull_subscribe_bind(name, stream)
    found: list[int] = []
    while len(found) < count:
        messages = await taken.fetch(count - len(found), timeout=20)
        await asyncio.gather(*(message.ack_sync(timeout=5) for message in messages))
        found += [json.loads(message.data)["number"] for message in messages]
    return found


async def judge(client: Client) -> None:
    """The streams are what `fill` left: nothing is lost, nobody gets again what was acknowledged."""
    bus = client.jetstream()
    assert (await bus.stream_info(USAGE.name)).state.messages == SENT - ACKNOWLEDGED
    assert (await bus.stream_info(EVENTS.name)).state.messages == SENT
    names = [info.name for stream in STREAMS for info in await bus.consumers_info(stream.name)]
    assert sorted(names) == sorted(consumer.name for consumer in CONSUMERS)
    for consumer in (METERING_WORKERS[0], NOTIFIER_PEOPLE):
        # What was delivered and not acknowledged comes again, in its time.
        found = await left(bus, consumer.name, consumer.stream, SENT - ACKNOWLEDGED)
        assert sorted(found) == list(range(ACKNOWLEDGED, SENT))


def modes(folder: Path) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())}


async def command(server: EmbeddedNats, *arguments: str) -> tuple[int, str]:
    """Run `aragora-nats` as somebody does who looks after a deployment."""
    settings = {"NATS_URL": server.address, "NATS_USER": "operator", "NATS_PASSWORD": NATS_PASSWORDS["operator"]}
    argv = [sys.executable, "-m", "aragora_nats.cli", *arguments]
    process = await create_subprocess_exec(*argv, stdout=PIPE, stderr=PIPE, env=os.environ | settings)
    out, err = await process.communicate()
    return process.returncode or 0, (out + err).decode()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was delivered and not acknowledged comes again soon."""
    consumers = [replace(each, ack_wait=timedelta(seconds=1)) for each in CONSUMERS]
    monkeypatch.setattr(topology, "CONSUMERS", consumers)


@pytest.mark.usefixtures("impatient")
async def test_everybody_goes_on_where_they_were(private_nats: StartNats, folder: Path):
    first, second = await private_nats(), await private_nats()
    client = await first.connect()
    await apply_topology(client.jetstream(), replicas=1, max_bytes=STREAM_MAX_BYTES)
    await fill(client)
    code, said = await command(first, "backup", str(folder))
    assert (code, len(said.splitlines())) == (0, len(STREAMS)), said
    assert f"USAGE: {SENT - ACKNOWLEDGED} messages, {len(METERING_WORKERS)} consumers" in said
    assert modes(folder) == {0o700, 0o600}
    await client.close()
    code, said = await command(second, "restore", str(folder))
    assert (code, len(said.splitlines())) == (0, len(STREAMS)), said
    await second.kill()  # it is on disk, and JetStream reads there which ids it has seen
    await second.start()
    client = await second.connect()
    again = await client.jetstream().publish("usage.recorded.0", body(0), headers={"Nats-Msg-Id": f"u{SENT - 1}"})
    assert again.duplicate
    await judge(client)
    lines = await apply_topology(client.jetstream(), replicas=1, max_bytes=STREAM_MAX_BYTES)
    assert not [line for line in lines if "created" in line or "removed" in line]
    await client.close()


async def test_nothing_is_overwritten_and_nothing_half_is_restored(private_nats: StartNats, folder: Path):
    server = await private_nats()
    client = await server.connect()
    await apply_topology(client.jetstream(), replicas=1, max_bytes=STREAM_MAX_BYTES)
    await back_up(client, folder, print)
    with pytest.raises(SnapshotError, match="is not empty"):
        await back_up(client, folder, print)
    with pytest.raises(SnapshotError, match=r"EVENTS, USAGE: there already\. .*delete the streams"):
        await restore(client, folder, print)
    for stream in STREAMS:
        await client.jetstream().delete_stream(stream.name)
    archive = folder / f"{USAGE.name}.snapshot"
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-1])
    with pytest.raises(SnapshotError, match="is not what was written"):
        await restore(client, folder, print)
    archive.write_bytes(whole)
    manifest = folder / MANIFEST
    manifest.rename(folder / "elsewhere")
    with pytest.raises(SnapshotError, match="holds no manifest"):
        await restore(client, folder, print)
    assert await client.jetstream().streams_info() == []
    await client.close()
    code, said = await command(server, "restore", str(folder))
    assert (code, "holds no manifest" in said) == (1, True)


@pytest.mark.long
@pytest.mark.usefixtures("impatient")
async def test_a_cluster_is_backed_up_and_restored_and_so_is_one_to_the_other(private_nats: StartNats, folder: Path):
    alone = await private_nats()
    async with nats_cluster() as cluster:
        client = await cluster.connect()
        await fill(client)
        await back_up(client, folder, print)
        for stream in STREAMS:
            await client.jetstream().delete_stream(stream.name)
        await restore(client, folder, print)
        await cluster.until_whole()
        info = await client.jetstream().stream_info(USAGE.name)
        assert info.config.num_replicas == len(cluster.servers)
        await judge(client)
        await client.close()
    client = await alone.connect()
    await restore(client, folder, print, replicas=1)
    assert (await client.jetstream().stream_info(USAGE.name)).config.num_replicas == 1
    await judge(client)
    await client.close()
