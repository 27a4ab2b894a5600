"""The consume policy on a real NATS server: redelivery, dead letters, and nothing behind that waits."""

import time
from collections import Counter
from contextlib import suppress

import asyncpg
import nats
import pytest
from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig
from servers import eventually

from aragora.chassis import dead_letters
from aragora.chassis.consume import consume_policy
from aragora.chassis.migrate import migrate
from aragora.contracts.ids import new_id

STREAM = "CONSUMED"
CONSUMER = "worker"
QUICK = (0.05, 0.1)


@pytest.fixture
async def pool(empty_database_url):
    async with asyncpg.create_pool(empty_database_url, min_size=1, max_size=10) as one:
        async with one.acquire() as conn:
            await migrate(conn)
        yield one


@pytest.fixture
async def bus(nats_url):
    client = await nats.connect(nats_url)
    jetstream = client.jetstream()
    await jetstream.add_stream(StreamConfig(name=STREAM, subjects=["consumed.*"]))
    await jetstream.add_consumer(
        STREAM, ConsumerConfig(durable_name=CONSUMER, ack_policy=AckPolicy.EXPLICIT, ack_wait=30, max_deliver=-1)
    )
    yield jetstream
    await client.close()


@pytest.fixture
async def consuming(nats_url, bus, pool):  # noqa: ARG001  the stream must be there first
    """Starts brokers that give what arrives to `handle`, one message or batch at a time."""
    brokers = []

    async def start(handle, *, batch=0, fetch_seconds=0.1, **policy) -> None:
        broker = NatsBroker(nats_url, **consume_policy(pool, delays_seconds=QUICK, **policy), logger=None)
        sub = PullSub(batch_size=batch or 20, timeout=fetch_seconds, batch=bool(batch))
        subscriber = broker.subscriber(
            "consumed.*", durable=CONSUMER, stream=JStream(STREAM, declare=False), pull_sub=sub
        )
        if batch:

            @subscriber
            async def _(bodies: list[bytes]) -> None:
                await handle(bodies)
        else:

            @subscriber
            async def _(body: bytes) -> None:
                await handle(body)

        await broker.start()
        brokers.append(broker)

    yield start
    for broker in brokers:
        await broker.stop()


async def settled(bus) -> bool:
    """Not by what is pending: the server counts a message there a moment after it has confirmed it."""
    last = (await bus.stream_info(STREAM)).state.last_seq
    return (await bus.consumer_info(STREAM, CONSUMER)).ack_floor.stream_seq == last


async def letters(pool) -> list[dead_letters.KeptLetter]:
    async with pool.acquire() as conn:
        return await dead_letters.page(conn)


async def test_what_is_handled_is_acknowledged(bus, consuming, pool):
    seen = []

    async def handle(body: bytes) -> None:
        seen.append(body)

    await consuming(handle)
    for body in (b"1", b"\xff not text", b"{not json", b""):
        await bus.publish("consumed.a", body)
    await eventually(lambda: settled(bus))
    assert sorted(seen) == sorted([b"1", b"\xff not text", b"{not json", b""])
    assert await letters(pool) == []


async def test_a_failure_is_delivered_again_with_a_delay_and_nothing_behind_it_waits(bus, consuming, pool):
    seen: list[tuple[bytes, float]] = []

    async def handle(body: bytes) -> None:
        seen.append((body, time.monotonic()))
        if body == b"bad" and len([one for one, _ in seen if one == b"bad"]) < 3:
            raise ValueError("not yet")

    await consuming(handle)
    await bus.publish("consumed.a", b"bad")
    for _ in range(5):
        await bus.publish("consumed.a", b"good")
    await eventually(lambda: settled(bus))
    moments = [moment for body, moment in seen if body == b"bad"]
    assert len(moments) == 3
    assert moments[1] - moments[0] >= QUICK[0] * 0.8
    assert moments[2] - moments[1] >= QUICK[1] * 0.8
    assert Counter(body for body, _ in seen) == {b"bad": 3, b"good": 5}
    assert await letters(pool) == []


async def test_the_last_attempt_makes_a_dead_letter(bus, consuming, pool):
    tries = []

    async def handle(body: bytes) -> None:
        tries.append(body)
        raise ValueError(f"cannot read {body!r}")

    await consuming(handle)
    await bus.publish("consumed.a", b"before")
    await bus.publish("consumed.b", b"bad")
    await eventually(lambda: settled(bus), 20)
    assert Counter(tries) == {b"before": 5, b"bad": 5}
    letter, _ = await letters(pool) if (await letters(pool))[0].payload == b"bad" else reversed(await letters(pool))
    assert (letter.subject, letter.payload, letter.attempts) == ("consumed.b", b"bad", 5)
    assert (letter.source_stream, letter.source_sequence) == (STREAM, 2)
    assert letter.reason == "ValueError: cannot read b'bad'"


@pytest.mark.parametrize("error", [ConnectionRefusedError(), asyncpg.DeadlockDetectedError(), TimeoutError()], ids=repr)
async def test_a_transient_failure_never_counts(bus, consuming, pool, monkeypatch, error):
    monkeypatch.setattr("aragora.chassis.consume.TRANSIENT_DELAY_SECONDS", 0.01)
    tries = 0

    async def handle(_: bytes) -> None:
        nonlocal tries
        tries += 1
        if tries <= 12:
            raise error

    await consuming(handle)
    await bus.publish("consumed.a", b"patience")
    await eventually(lambda: settled(bus))
    assert tries == 13
    assert await letters(pool) == []
    assert await pool.fetchval("SELECT count(*) FROM failed_deliveries") == 0


async def test_while_the_database_is_away_a_failure_does_not_count_and_is_not_lost(bus, consuming, pool, monkeypatch):
    monkeypatch.setattr("aragora.chassis.consume.TRANSIENT_DELAY_SECONDS", 0.01)
    tries = 0

    async def handle(_: bytes) -> None:
        nonlocal tries
        tries += 1
        if tries == 8:
            await pool.execute("ALTER TABLE moved RENAME TO failed_deliveries")
        raise ValueError

    await pool.execute("ALTER TABLE failed_deliveries RENAME TO moved")
    await consuming(handle)
    await bus.publish("consumed.a", b"bad")
    await eventually(lambda: letters(pool), 20)
    await eventually(lambda: settled(bus))
    assert tries == 7 + 5


async def test_attempts_are_counted_across_workers(bus, consuming, pool):
    tries: Counter[str] = Counter()

    def worker(name):
        async def handle(_: bytes) -> None:
            tries[name] += 1
            raise ValueError

        return handle

    await consuming(worker("one"))
    await consuming(worker("other"))
    for number in range(10):
        await bus.publish("consumed.a", b"%d" % number)
    await eventually(lambda: settled(bus), 20)
    assert tries.total() == 50
    assert len(await letters(pool)) == 10


async def test_a_batch_is_acknowledged_as_a_whole(bus, consuming):
    seen = []

    async def handle(bodies: list[bytes]) -> None:
        seen.append(bodies)

    for number in range(20):
        await bus.publish("consumed.a", b"%d" % number)
    await consuming(handle, batch=20)
    await eventually(lambda: settled(bus))
    assert [body for bodies in seen for body in bodies] == [b"%d" % number for number in range(20)]


async def test_a_bad_message_in_a_batch_is_found_and_the_others_go_through_at_once(bus, consuming, pool):
    handled: Counter[bytes] = Counter()
    tries: Counter[bytes] = Counter()

    async def handle(bodies: list[bytes]) -> None:
        tries.update(body for body in bodies if body.startswith(b"bad") and len(bodies) == 1)
        for body in bodies:
            if body.startswith(b"bad"):
                raise ValueError(body.decode())
        handled.update(bodies)  # a handler is one transaction: all of the batch, or nothing

    bodies = [b"bad %d" % n if n in {3, 17} else b"%d" % n for n in range(20)]
    for body in bodies:
        await bus.publish("consumed.a", body)
    await consuming(handle, batch=20)
    await eventually(lambda: settled(bus), 20)
    assert handled == {body: 1 for body in bodies if not body.startswith(b"bad")}
    assert sorted(letter.payload for letter in await letters(pool)) == [b"bad 17", b"bad 3"]
    assert {letter.attempts for letter in await letters(pool)} == {5}


async def test_a_batch_that_fails_for_a_transient_reason_comes_again_whole(bus, consuming, pool, monkeypatch):
    monkeypatch.setattr("aragora.chassis.consume.TRANSIENT_DELAY_SECONDS", 0.01)
    sizes = []

    async def handle(bodies: list[bytes]) -> None:
        sizes.append(len(bodies))
        if len(sizes) < 3:
            raise ConnectionResetError

    for number in range(5):
        await bus.publish("consumed.a", b"%d" % number)
    await consuming(handle, batch=5, fetch_seconds=20)
    await eventually(lambda: settled(bus), 20)
    assert sizes == [5, 5, 5]
    assert await letters(pool) == []


async def test_a_fetch_always_times_out_in_the_way_that_faststream_expects(bus):
    subscription = await bus.pull_subscribe_bind(CONSUMER, STREAM)
    for microseconds in range(100, 5000, 10):  # around the time in which the server answers
        with suppress(nats.errors.TimeoutError):
            assert await subscription.fetch(2, timeout=microseconds / 1e6) == []


async def test_a_letter_that_is_sent_again_counts_anew(bus, consuming, pool):
    broken = True

    async def handle(_: bytes) -> None:
        if broken:
            raise ValueError

    await consuming(handle, max_attempts=2)
    await bus.publish("consumed.a", b"later", headers={"Nats-Msg-Id": "1"})
    (letter,) = await eventually(lambda: letters(pool))
    broken = False
    async with pool.acquire() as conn, conn.transaction():
        assert await dead_letters.resolve(conn, letter.id, "retried", at=letter.first_seen_at, by="ops")
        await bus.publish(letter.subject, letter.payload, headers={"Nats-Msg-Id": str(new_id())})
    await eventually(lambda: settled(bus))
    assert await letters(pool) == []
