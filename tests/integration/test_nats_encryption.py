"""Streams that are encrypted on disk: nobody reads them there, nor opens them without the key, and how one begins."""

import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from nats.aio.client import Client
from nats_cluster import nats_cluster
from servers import NATS_PASSWORDS, scratch_dir

from aragora.contracts.topology import CONSUMERS, STREAMS, USAGE
from aragora_nats.snapshots import back_up, restore
from aragora_nats.topology import apply_topology
from standalone import machine
from standalone.nats import EmbeddedNats

KEY = secrets.token_hex(32)
WORDS = b"who-reads-this-has-read-what-a-customer-used"
SENT = 50


@pytest.fixture
async def folder() -> AsyncIterator[Path]:
    async with scratch_dir() as path:
        yield path


@asynccontextmanager
async def running(folder: Path, key: str | None) -> AsyncIterator[tuple[Client, EmbeddedNats]]:
    """A server on these files, with this key, killed in the end."""
    server = EmbeddedNats(folder, NATS_PASSWORDS, monitoring_port=machine.free_port(), encryption_key=key)
    await server.start()
    try:
        client = await server.connect()
        yield client, server
        await client.close()
    finally:
        await server.kill()


async def fill(client: Client, replicas: int = 1) -> None:
    await apply_topology(client.jetstream(), replicas=replicas, max_bytes=2**28)
    for number in range(SENT):
        await client.jetstream().publish("usage.recorded.0", WORDS + b"%d" % number)


async def is_all_there(client: Client) -> bool:
    bus = client.jetstream()
    streams = {info.config.name: info.state.messages for info in await bus.streams_info()}
    names = [info.name for name in streams for info in await bus.consumers_info(str(name))]
    return streams.get(USAGE.name) == SENT and sorted(names) == sorted(consumer.name for consumer in CONSUMERS)


async def health(server: EmbeddedNats) -> int:
    async with httpx.AsyncClient() as client:
        return (await client.get(f"http://127.0.0.1:{server.monitoring_port}/healthz")).status_code


def files_with_words(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and WORDS in path.read_bytes()]


async def test_nothing_can_be_read_on_disk(folder: Path):
    async with running(folder / "plain", None) as (client, _):
        await fill(client)
    assert files_with_words(folder / "plain")
    async with running(folder / "encrypted", KEY) as (client, _):
        await fill(client)
        assert not files_with_words(folder / "encrypted")
    async with running(folder / "encrypted", KEY) as (client, server):
        assert await is_all_there(client)
        assert await health(server) == 200
    assert not files_with_words(folder / "encrypted")


@pytest.mark.parametrize("key", [None, secrets.token_hex(32)], ids=["none", "another"])
async def test_without_the_key_a_server_opens_nothing_and_says_so(folder: Path, key: str | None):
    async with running(folder, KEY) as (client, _):
        await fill(client)
    async with running(folder, key) as (client, server):
        assert await client.jetstream().streams_info() == []
        assert await health(server) == 503
    async with running(folder, KEY) as (client, _):
        assert await is_all_there(client)


async def test_who_has_streams_begins_with_a_backup(folder: Path):
    """To give a key to a server whose streams are plain would work for a while: it loses those that are empty."""
    async with running(folder / "plain", None) as (client, _):
        await fill(client)
        await back_up(client, folder / "backup", print)
    async with running(folder / "encrypted", KEY) as (client, _):
        await restore(client, folder / "backup", print)
    async with running(folder / "encrypted", KEY) as (client, _):
        assert await is_all_there(client)
        assert len(await client.jetstream().streams_info()) == len(STREAMS)
    assert not files_with_words(folder / "encrypted")


@pytest.mark.long
async def test_a_cluster_begins_server_by_server_while_everybody_works():
    async with nats_cluster() as cluster:
        client = await cluster.connect()
        await fill(client, replicas=len(cluster.servers))
        await client.close()
        for server in cluster.servers:
            assert files_with_words(cluster.store(server))
            await cluster.kill(server)
            shutil.rmtree(cluster.store(server))
            server.encryption_key = KEY
            await cluster.start_server(server)
            await cluster.until_whole()
            assert not files_with_words(cluster.store(server))
        for server in cluster.servers:  # and it lasts
            await cluster.kill(server)
            await cluster.start_server(server)
            await cluster.until_whole()
        client = await cluster.connect()
        assert await is_all_there(client)
        await client.close()
