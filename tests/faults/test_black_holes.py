"""Endpoints that accept and never answer delay nobody else's messages."""

import asyncio
import time
from ipaddress import ip_network
from itertools import cycle

import pytest
from servers import PostgresServer, eventually
from webhook_lanes import LanesWorld, lanes_world, notice
from webhook_receiver import Receiver, receiver

from aragora.contracts.ids import new_id
from notifier import signatures
from notifier.queueing import Told
from notifier.sending import ATTEMPT_SECONDS

HERE = (ip_network("127.0.0.0/8"),)
ENDPOINTS = 50
BLACK_HOLES = 5
EVENTS_PER_SECOND = 500
ROUNDS_PER_SECOND = 10
P99_SECONDS = 2.0
FOR_EVER = 600


async def publish(world: LanesWorld, seconds: int) -> dict[str, float]:
    """Messages for all endpoints in turn, at a steady rate. Returns when each was told, by its id."""
    told_at: dict[str, float] = {}
    orgs = cycle(range(ENDPOINTS))
    loop = asyncio.get_running_loop()
    begins_at = loop.time()
    for number in range(seconds * ROUNDS_PER_SECOND):
        now = world.clock()
        told = [
            Told(org_id=f"org_{next(orgs)}", event_id=new_id(), occurred_at=now, notice=notice(number))
            for _ in range(EVENTS_PER_SECOND // ROUNDS_PER_SECOND)
        ]
        told_at |= dict.fromkeys((signatures.message_id_of(each.event_id) for each in told), time.time())
        await world.tell_all(told, now)
        ends_at = begins_at + (number + 1) / ROUNDS_PER_SECOND
        await eventually(lambda ends_at=ends_at: loop.time() >= ends_at)  # type: ignore[misc]
    return told_at


async def delays(world: LanesWorld, healthy: Receiver, seconds: int, attempt_seconds: float) -> list[float]:
    """How late each message of a healthy endpoint came, in order."""
    wanted = seconds * EVENTS_PER_SECOND * (ENDPOINTS - BLACK_HOLES) // ENDPOINTS
    async with world.work(networks=HERE, attempt_seconds=attempt_seconds):
        told_at = await publish(world, seconds)
        await eventually(lambda: len(healthy.requests) >= wanted, 30, what="messages received")
    assert len(set(healthy.ids)) == len(healthy.ids) == wanted
    return sorted(each.at - told_at[each.message_id] for each in healthy.requests)


@pytest.mark.parametrize(
    ("seconds", "attempt_seconds"),
    [
        (4, FOR_EVER),
        pytest.param(4, ATTEMPT_SECONDS, marks=pytest.mark.alone),
        pytest.param(60, ATTEMPT_SECONDS, marks=pytest.mark.long),
    ],
)
async def test_five_black_holes_among_fifty_delay_nobody(
    postgres_server: PostgresServer,
    notifier_template: str,
    seconds: int,
    attempt_seconds: float,
    monkeypatch: pytest.MonkeyPatch,
):
    """Where no attempt ever ends, what waits for a black hole never comes: so no load of the machine looks like one.

    How late anything is, the others measure, which have the machine for themselves.
    """
    monkeypatch.setattr("notifier.lanes.DRAIN_SECONDS", 0.1)
    async with lanes_world(postgres_server, notifier_template) as world, receiver() as healthy, receiver() as hole:
        hole.manner = "hang"
        for number in range(ENDPOINTS):
            await world.endpoint((hole if number < BLACK_HOLES else healthy).url, f"org_{number}")
        late = await delays(world, healthy, seconds, attempt_seconds)
        assert hole.requests
        assert attempt_seconds < FOR_EVER or len(hole.requests) <= BLACK_HOLES
    p50, p99 = late[len(late) // 2], late[len(late) * 99 // 100]
    print(f"{len(late)} messages: p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms")
    assert attempt_seconds == FOR_EVER or p99 < P99_SECONDS
