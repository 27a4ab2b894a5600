"""What every service says about itself: what fails on the bus, what the relay publishes, what a worker reads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from faststream.nats import JStream, NatsBroker, PullSub
from metrics_said import grown, said_here, wrong_in
from servers import eventually

from aragora.chassis import consume, metrics, relay, store
from aragora.chassis.consume import consume_policy
from aragora.chassis.dead_letters import Letter, record
from aragora.chassis.relay import Relay
from aragora.chassis.sql import Connection, Pool
from aragora.contracts.events import PLATFORM, TokenRevoked, UserErased
from aragora.contracts.topology import AUTH_ENTITLEMENTS
from aragora_nats.connecting import connect_once

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
ASKED = AUTH_ENTITLEMENTS.name


@pytest.fixture
async def pool(auth_database_url: str) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(auth_database_url, min_size=1, max_size=5) as one:
        yield one


async def test_deliveries_that_fail_are_counted_by_what_becomes_of_them(
    pool: Pool, bus_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(consume, "TRANSIENT_DELAY_SECONDS", 0.05)
    before = said_here()
    troubles: dict[bytes, list[Exception]] = {
        b"good": [],
        b"away": [ConnectionResetError()],
        b"once": [ValueError("not yet")],
        b"bad": [ValueError("never")] * 2,
    }
    broker = NatsBroker(bus_url, **consume_policy(pool, max_attempts=2, delays_seconds=(0.05,)), logger=None)

    @broker.subscriber(
        "events.billing.*.*",
        durable=ASKED,
        stream=JStream(AUTH_ENTITLEMENTS.stream, declare=False),
        pull_sub=PullSub(batch_size=1, timeout=0.1, batch=True),
    )
    async def _(bodies: list[bytes]) -> None:
        for body in bodies:
            if troubles[body]:
                raise troubles[body].pop()

    client = await connect_once(bus_url)
    await broker.start()
    try:
        for body in troubles:
            await client.jetstream().publish("events.billing.EntitlementsChanged.org_1", body)

        async def settled() -> bool:
            info = await client.jetstream().consumer_info(AUTH_ENTITLEMENTS.stream, ASKED)
            return not info.num_pending and not info.num_ack_pending and not any(troubles.values())

        await eventually(settled)
    finally:
        await broker.stop()
        await client.close()
    assert {
        outcome: grown(before, "bus_deliveries_failed_total", consumer=ASKED, outcome=outcome)
        for outcome in ("transient", "retried", "dead")
    } == {"transient": 1, "retried": 2, "dead": 1}
    assert grown(before, "bus_handler_seconds", "count", consumer=ASKED) == 7
    assert wrong_in(said_here()) == []


async def test_the_relay_counts_what_the_bus_has_and_every_interruption(pool: Pool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(relay, "MAX_BACKOFF_SECONDS", 0.05)
    before, is_away = said_here(), True

    async def publish(_subject: str, _payload: bytes, _headers: dict[str, str]) -> None:
        if is_away:
            raise ConnectionResetError

    revoked = TokenRevoked(user_id="ann", token_jti="one", expires_at=NOW, reason="stolen")
    erased = UserErased(user_id="bob", org_ids=())
    said = [(PLATFORM, "user/ann", revoked), (PLATFORM, "user/bob", erased), (PLATFORM, "user/cid", erased)]
    async with pool.acquire() as connection, connection.transaction():
        await store.append_each(connection, said, occurred_at=NOW)
    one = Relay(pool, publish)
    one.start()
    try:
        await eventually(lambda: grown(before, "relay_failures_total") > 1)
        assert grown(before, "relay_published_events_total") == 0
        is_away = False
        await eventually(lambda: grown(before, "relay_published_events_total") == 3)
    finally:
        await one.stop()
    assert grown(before, "relay_published_events_total", event="TokenRevoked") == 1
    assert grown(before, "relay_published_events_total", event="UserErased") == 2


@pytest.fixture
async def broker(bus_url: str) -> AsyncIterator[NatsBroker]:
    one = NatsBroker(bus_url, logger=None, max_reconnect_attempts=-1)
    await one.start()
    yield one
    await one.stop()


async def test_a_worker_reads_what_waits(pool: Pool, broker: NatsBroker):
    async with pool.acquire() as connection, connection.transaction():
        erased = UserErased(user_id="bob", org_ids=())
        await store.append_each(connection, [(PLATFORM, f"user/{n}", erased) for n in range(3)], occurred_at=NOW)
        await record(connection, [Letter(subject="s", payload=b"%d" % n, reason="bad") for n in range(2)])
    for _ in range(4):
        await broker.publish(b"{}", "events.billing.EntitlementsChanged.org_1", stream=AUTH_ENTITLEMENTS.stream)
    assert not said_here().has("outbox_events")
    stop = asyncio.Event()
    reading = asyncio.create_task(metrics.keep_reading("auth", pool, broker, stop))
    await metrics.announce("auth", broker)
    try:
        await eventually(lambda: said_here().has("bus_consumer_pending_messages"))
        said = said_here()
        assert (said.of("outbox_events", component="auth"), said.of("dead_letters_open", component="auth")) == (3, 2)
        assert 0 < said.of("outbox_oldest_seconds", component="auth") < 60
        assert said.of("bus_consumer_pending_messages", stream="EVENTS", consumer=ASKED) == 4
        assert said.of("bus_consumer_unacknowledged_messages", consumer=ASKED) == 0
        assert said.of("bus_connected", component="auth") == 1
        assert said.of("build_info", component="auth") == 1
        assert wrong_in(said) == []
    finally:
        stop.set()
        await reading
    assert not said_here().has("outbox_events")


async def test_what_cannot_be_read_is_absent_and_one_is_told_since_when(
    pool: Pool, broker: NatsBroker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(metrics, "READ_EVERY_SECONDS", 0.02)
    monkeypatch.setattr(metrics, "READ_WITHIN_SECONDS", 0.05)
    trouble: list[str] = []
    stands_still = asyncio.Event()
    gauge = metrics.waiting("tested_things", "Of this test")

    async def read(_connection: Connection) -> None:
        if "raises" in trouble:
            raise ValueError("a table is gone")
        if "hangs" in trouble:
            await stands_still.wait()
        gauge.set(7)

    def is_shown() -> bool:
        said = said_here()
        shown = {said.of("tested_things") == 7, said.has("outbox_events")}
        assert len(shown) == 1
        return shown.pop()

    def stamp(reading: str) -> float:
        return said_here().of("reading_succeeded_timestamp_seconds", component="auth", reading=reading)

    def is_later(reading: str, before: float) -> bool:
        return stamp(reading) > before

    stop = asyncio.Event()
    task = asyncio.create_task(metrics.keep_reading("auth", pool, broker, stop, read, [gauge]))
    try:
        for kind in ("raises", "hangs"):
            await eventually(is_shown)
            trouble.append(kind)
            await eventually(lambda: not is_shown())
            at = stamp("database")
            assert at > 0
            of_bus = stamp("bus")
            await eventually(partial(is_later, "bus", of_bus))  # the other reading goes on
            assert stamp("database") == at
            trouble.clear()
            await eventually(partial(is_later, "database", at))
    finally:
        stop.set()
        await task


@asynccontextmanager
async def through(url: str) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """The URL of a way to the server on which nothing arrives while the event is not set, and nothing breaks off."""
    server, is_open = urlsplit(url), asyncio.Event()
    is_open.set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while some := await reader.read(65536):
            await is_open.wait()
            writer.write(some)
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, there = await asyncio.open_connection(server.hostname, server.port)
        await asyncio.gather(carry(reader, there), carry(behind, writer))

    async with await asyncio.start_server(connect, "127.0.0.1", 0) as way:
        who, _, _ = server.netloc.rpartition("@")
        port = way.sockets[0].getsockname()[1]
        yield urlunsplit(server._replace(netloc=f"{who}@127.0.0.1:{port}")), is_open
        is_open.set()


async def test_a_database_that_says_nothing_any_more_holds_up_nobody(
    auth_database_url: str, broker: NatsBroker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(metrics, "READ_EVERY_SECONDS", 0.02)
    monkeypatch.setattr(metrics, "READ_WITHIN_SECONDS", 0.2)
    stop = asyncio.Event()
    async with through(auth_database_url) as (url, is_open), asyncpg.create_pool(url, min_size=1, max_size=1) as pool:
        task = asyncio.create_task(metrics.keep_reading("auth", pool, broker, stop))
        await eventually(lambda: said_here().has("outbox_events"))
        is_open.clear()
        await eventually(lambda: not said_here().has("outbox_events"), 5)
        stop.set()
        await asyncio.wait_for(task, 5)
        is_open.set()
