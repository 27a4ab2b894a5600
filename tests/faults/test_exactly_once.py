"""Usage is counted exactly once, to the last digit, while everything that can be killed is killed.

The seed is printed; ARAGORA_FAULT_SEED replays it. ARAGORA_FAULT_EVENTS sets the number of events.
"""

import asyncio
import json
import os
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import oracle
import pytest
from faults.storm import Storm, expected, projections
from servers import scratch_dir

from aragora.contracts.topology import CONSUMERS, EVENTS
from aragora_nats import topology
from aragora_nats.configuration import STREAM_MAX_BYTES
from metering import refold
from standalone.nats import EmbeddedNats
from standalone.platform import apply_streams
from standalone.postgres import EmbeddedPostgres

Postgres = Callable[[], Awaitable[EmbeddedPostgres]]
Nats = Callable[[], Awaitable[EmbeddedNats]]


@dataclass(frozen=True)
class Scale:
    """How much, and how often."""

    events: int
    message_events: int
    worker_kills: int
    window: int
    """Messages that may wait on the bus: with few, the kills are spread over the whole run."""
    ack_wait_seconds: int
    """How long a dead worker's messages wait for another."""
    deadline_seconds: int


ORDINARY = Scale(60_000, 100, 6, 40, 2, 150)
FULL = Scale(1_000_000, 500, 12, 200, 5, 900)


async def test_every_event_counts_once(private_postgres: Postgres, private_nats: Nats, monkeypatch: pytest.MonkeyPatch):
    await weather(ORDINARY, private_postgres, private_nats, monkeypatch)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_every_one_of_a_million_events_counts_once(
    private_postgres: Postgres, private_nats: Nats, monkeypatch: pytest.MonkeyPatch
):
    await weather(FULL, private_postgres, private_nats, monkeypatch)


async def weather(scale: Scale, private_postgres: Postgres, private_nats: Nats, patch: pytest.MonkeyPatch) -> None:
    seed = int(os.environ.get("ARAGORA_FAULT_SEED") or random.randrange(2**32))
    count = int(os.environ.get("ARAGORA_FAULT_EVENTS") or scale.events)
    print(f"seed {seed} (replay: ARAGORA_FAULT_SEED={seed} ARAGORA_FAULT_EVENTS={count})")
    rnd = random.Random(seed)
    load = oracle.workload(seed, count, scale.message_events)
    postgres, nats = await private_postgres(), await private_nats()
    ack_wait = timedelta(seconds=scale.ack_wait_seconds)
    patch.setattr(topology, "CONSUMERS", [replace(consumer, ack_wait=ack_wait) for consumer in CONSUMERS])
    await apply_streams(nats)
    assert sum(len(body) for _, body in load.messages) < STREAM_MAX_BYTES / 2
    storm = Storm(postgres, nats, rnd)
    await storm.prepare()
    async with scratch_dir() as folder:
        began = time.monotonic()
        try:
            await storm.start_workers(3, folder)
            async with asyncio.timeout(scale.deadline_seconds):
                await rage(storm, load, count, scale)
            seconds = time.monotonic() - began
            await storm.stop_workers()
        finally:
            await storm.abandon()
            print(storm, *errors_in_logs(folder), sep="\n")
    print(f"{load.sent:,} events sent in {len(load.messages):,} messages, recorded in {seconds:.1f} s")
    await judge(storm, load)
    assert storm.happened["worker"] >= 5
    assert (storm.happened["postgres"], storm.happened["nats"], storm.happened["month"]) == (1, 1, 1)
    assert storm.died_by_itself == 0


async def rage(storm: Storm, load: oracle.Workload, count: int, scale: Scale) -> None:
    """Publish everything, kill by the progress that is made, and return when all is recorded and acknowledged."""
    watching = asyncio.create_task(storm.watch())
    publishing = asyncio.create_task(storm.publish(load.messages, publishers=4, window=scale.window))
    try:
        for events, act in storm.plan(count, scale.worker_kills):
            await storm.until_recorded(events)
            await act()
        await publishing
        await storm.until_settled()
    finally:
        await ended(watching, publishing)


async def ended(*tasks: asyncio.Task[None]) -> None:
    """Cancel them until they have ended: Python 3.11's `wait_for` forgets a cancellation that comes with an answer."""
    while running := {task for task in tasks if not task.done()}:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=1)
    await asyncio.gather(*tasks, return_exceptions=True)


async def judge(storm: Storm, load: oracle.Workload) -> None:
    """Hold what was recorded against the oracle."""
    connection = await asyncpg.connect(storm.database_url)
    try:
        totals = await expected(connection, load)
        daily, monthly = await projections(connection)
        assert await connection.fetchval("SELECT count(*) FROM usage_events") == totals.events
        assert sum(row["events"] for row in monthly.values()) == totals.events
        assert monthly == totals.monthly
        assert daily.keys() == totals.daily.keys()
        assert [key for key in daily if daily[key] != totals.daily[key]] == []
        letters = await connection.fetch("SELECT payload, reason FROM dead_letters")
        assert sorted(comparable(row["payload"]) for row in letters) == sorted(map(comparable, load.bad))
        assert len(await connection.fetch("SELECT DISTINCT log_month FROM usage_events")) == 2
        unpriced = {(key[0], key[1][:7], key[4], key[5]) for key, row in totals.daily.items() if row["unpriced_events"]}
        told = await connection.fetch(
            "SELECT data::json ->> 'month' AS month, org_id FROM events WHERE type LIKE '%.UnpricedUsageSeen.%'"
        )
        assert sorted((row["org_id"], row["month"]) for row in told) == sorted(key[:2] for key in unpriced)
        assert await connection.fetchval("SELECT count(*) FROM outbox") == 0
        appended = await connection.fetchval("SELECT count(*) FROM events")
    finally:
        await connection.close()
    client = await storm.bus.connect()
    published = (await client.jetstream().stream_info(EVENTS.name)).state.messages
    await client.close()
    assert published == appended
    verdict = await refold.verify(storm.database_url, connections=2, progress=lambda *_: None, now=datetime.now(UTC))
    assert verdict.equal, verdict.differences
    assert verdict.events == totals.events


def errors_in_logs(folder: Path) -> list[str]:
    """What the workers logged as errors; lines that are not JSON are a crash."""
    lines = [line for log in folder.glob("logs/*.log") for line in log.read_text().splitlines()]
    return [line[:1000] for line in lines if '"level": "error"' in line or not line.startswith("{")]


def comparable(payload: bytes) -> str:
    """A dead letter's payload, however its JSON is spaced."""
    try:
        return json.dumps(json.loads(payload), sort_keys=True)
    except ValueError:
        return repr(payload)
