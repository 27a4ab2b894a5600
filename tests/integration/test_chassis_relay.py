"""The relay against a real Postgres and, where the bus matters, a real NATS."""

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import ClassVar

import asyncpg
import nats
import pytest
from nats.js.api import StreamConfig
from servers import eventually
from structlog.contextvars import bound_contextvars

from aragora.chassis import inbox, relay
from aragora.chassis.migrate import migrate
from aragora.chassis.relay import Relay
from aragora.chassis.store import append
from aragora.contracts import envelope
from aragora.contracts.envelope import DomainEvent, decode

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def added(monkeypatch) -> type[DomainEvent]:
    monkeypatch.setattr(envelope, "_events", dict(envelope._events))

    class Added(DomainEvent):
        type_name: ClassVar[str] = "aragora.testing.Added.v1"
        n: int

    return Added


@pytest.fixture
async def pool(empty_database_url):
    async with asyncpg.create_pool(empty_database_url, min_size=1, max_size=10) as one:
        async with one.acquire() as conn:
            await migrate(conn)
        yield one


class Bus:
    """Receives what is published; can be down, and can lose the answer to what it took."""

    def __init__(self) -> None:
        self.received: list[tuple[str, dict, str]] = []
        self.down = False
        self.after_taking: Callable[[], Awaitable[object]] | None = None

    async def publish(self, subject, payload, headers):
        if self.down:
            raise nats.errors.NoServersError
        self.received.append((subject, json.loads(payload), headers["Nats-Msg-Id"]))
        if self.after_taking is not None:
            await self.after_taking()

    def numbers(self, org_id="o1") -> list[int]:
        return [outer["data"]["n"] for _, outer, _ in self.received if outer["subject"] == org_id]


@pytest.fixture
async def started(pool):
    """Starts relays, and stops at the end those that still run."""
    running = []

    def start(publish) -> Relay:
        running.append(Relay(pool, publish))
        running[-1].start()
        return running[-1]

    yield start
    for one in running:
        await one.stop(drain_seconds=0)


async def add(pool, added, *numbers: int, org_id="o1", stream="a", version=0):
    events, about = [added(n=n) for n in numbers], {"org_id": org_id, "occurred_at": NOW, "causation_id": "cause"}
    async with pool.acquire() as conn:
        with bound_contextvars(correlation_id="c-1"):
            return await append(conn, f"{org_id}/{stream}", version, events, **about)


async def emptied(pool) -> bool:
    return await pool.fetchval("SELECT count(*) FROM outbox") == 0


async def test_an_event_arrives_in_its_envelope_at_once(pool, added, started, monkeypatch):
    monkeypatch.setattr(relay, "POLL_SECONDS", 60)  # so that only the notification can be what wakes it
    bus = Bus()
    started(bus.publish)
    await eventually(lambda: pool.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"))
    (recorded,) = await add(pool, added, 1)
    await eventually(lambda: emptied(pool))
    ((subject, outer, message_id),) = bus.received
    assert subject == "events.testing.Added.o1"
    assert message_id == outer["id"] == str(recorded.id)
    assert outer["time"] == "2026-03-01T12:00:00Z"
    assert (outer["correlationid"], outer["causationid"]) == ("c-1", "cause")
    assert decode(json.dumps(outer))[1] == added(n=1)


async def test_what_was_recorded_before_the_start_is_published(pool, added, started):
    await add(pool, added, *range(1200))
    bus = Bus()
    started(bus.publish)
    await eventually(lambda: emptied(pool))
    assert bus.numbers() == list(range(1200))


async def test_a_crash_between_publishing_and_marking_repeats_and_the_inbox_drops_it(pool, added, started):
    bus = Bus()

    async def lose_the_database():
        bus.after_taking = None
        await pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid IN"
            " (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND database ="
            " (SELECT oid FROM pg_database WHERE datname = current_database()))"
        )

    bus.after_taking = lose_the_database
    await add(pool, added, 1)
    started(bus.publish)
    await eventually(lambda: emptied(pool))
    assert bus.numbers() == [1, 1]
    assert len({message_id for _, _, message_id in bus.received}) == 1
    async with pool.acquire() as conn:
        handled = [await inbox.first_time(conn, "consumer", message_id) for _, _, message_id in bus.received]
    assert handled == [True, False]


async def test_the_bus_drops_a_repetition_by_its_message_id(pool, added, started, nats_url):
    client = await nats.connect(nats_url)
    try:
        bus = client.jetstream()
        await bus.add_stream(StreamConfig(name="RELAYED", subjects=["relayed.>"]))

        async def publish_twice(subject, payload, headers):
            for _ in range(2):
                await bus.publish(f"relayed.{subject}", payload, headers=headers)

        started(publish_twice)
        await add(pool, added, 1, 2, 3)
        await eventually(lambda: emptied(pool))
        assert (await bus.stream_info("RELAYED")).state.messages == 3
    finally:
        await client.close()


async def test_order_holds_in_every_stream_while_streams_go_side_by_side(pool, added, started):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    received: dict[int, list[int]] = defaultdict(list)
    at_once, most_at_once = 0, 0

    async def publish(_, payload, __):
        nonlocal at_once, most_at_once
        outer = json.loads(payload)
        at_once += 1
        most_at_once = max(most_at_once, at_once)
        for _ in range(chance.randrange(5)):
            await asyncio.sleep(0)
        at_once -= 1
        if chance.random() < 0.02:
            raise TimeoutError
        received[outer["data"]["n"] // 1000].append(outer["data"]["n"])

    started(publish)
    versions = dict.fromkeys(range(8), 0)
    for _ in range(100):
        stream = chance.randrange(8)
        count = chance.randrange(1, 4)
        numbers = [stream * 1000 + versions[stream] + n for n in range(count)]
        await add(pool, added, *numbers, stream=str(stream), version=versions[stream])
        versions[stream] += count
    await eventually(lambda: emptied(pool), 30)
    assert most_at_once > 1
    for stream, count in versions.items():
        assert received[stream] == [stream * 1000 + n for n in range(count)]


async def test_while_the_bus_is_down_events_wait_and_nothing_is_lost(pool, added, started):
    bus = Bus()
    bus.down = True
    started(bus.publish)
    await add(pool, added, 1, 2)
    await eventually(lambda: pool.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"))
    assert not await emptied(pool)
    bus.down = False
    await eventually(lambda: emptied(pool))
    assert bus.numbers() == [1, 2]


async def test_a_stream_that_cannot_be_published_does_not_hold_up_the_others(pool, added, started):
    received = []

    async def publish(subject, _, __):
        if subject.endswith("o1"):
            raise nats.errors.MaxPayloadError
        received.append(subject)

    started(publish)
    await add(pool, added, 1, org_id="o1")
    await add(pool, added, 1, org_id="o2")
    await eventually(lambda: received)
    assert set(received) == {"events.testing.Added.o2"}
    assert await pool.fetchval("SELECT count(*) FROM outbox WHERE org_id = 'o1'") == 1


async def test_one_relay_is_active_and_another_takes_over(pool, added, started, monkeypatch):
    monkeypatch.setattr(relay, "POLL_SECONDS", 0.05)
    one, other = Bus(), Bus()
    first = started(one.publish)
    await add(pool, added, 1)
    await eventually(lambda: emptied(pool))
    started(other.publish)
    await add(pool, added, 2, version=1)
    await eventually(lambda: emptied(pool))
    assert (one.numbers(), other.numbers()) == ([1, 2], [])
    await first.stop()
    await add(pool, added, 3, version=2)
    await eventually(lambda: emptied(pool))
    assert (one.numbers(), other.numbers()) == ([1, 2], [3])


async def test_stopping_publishes_what_is_committed_and_does_not_hang(pool, added, started):
    bus = Bus()
    await add(pool, added, *range(1200))
    running = started(bus.publish)
    await eventually(lambda: bus.received)
    await running.stop()
    assert await emptied(pool)
    bus.down = True
    await add(pool, added, 1, stream="b")
    stuck = started(bus.publish)
    await stuck.stop(drain_seconds=0.2)
    assert not await emptied(pool)
    await Relay(pool, bus.publish).stop()


async def test_starting_and_stopping_at_any_moment_loses_nothing(pool, added):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    bus = Bus()
    for number in range(30):
        await add(pool, added, number, version=number)
        running = Relay(pool, bus.publish)
        running.start()
        for _ in range(chance.randrange(40)):
            await asyncio.sleep(0)
        await running.stop(drain_seconds=chance.choice([0, 0, 0.01, 1]))
    running = Relay(pool, bus.publish)
    running.start()
    await eventually(lambda: emptied(pool))
    await running.stop()
    first_seen = list(dict.fromkeys(bus.numbers()))
    assert first_seen == list(range(30))
