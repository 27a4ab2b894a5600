"""What is measured over HTTP: ingest, freshness, the usage query."""

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec

from aragora.contracts.ids import new_id
from standalone.bench.http_load import Connection, post_for
from standalone.bench.load import MODELS, Shape
from standalone.bench.measures import Bench, publishers

FRESHNESS_RATE = 20_000


async def http_ingest(bench: Bench, events_per_request: int, connections: int, seconds: float = 6) -> float:
    """Events per second through `POST /api/usage/events`."""
    running = bench.running
    bodies = _bodies(bench.shape, events_per_request)
    per_second = await post_for(seconds, connections, bodies, running.host, running.port, bench.service_key)
    return per_second * events_per_request


def _bodies(shape: Shape, events: int) -> Iterator[bytes]:
    rnd = random.Random(1)  # noqa: S311 - a load, not a secret
    while True:
        yield msgspec.json.encode([_native(shape, rnd) for _ in range(events)])


def _native(shape: Shape, rnd: random.Random) -> dict[str, object]:
    organization = rnd.randrange(shape.organizations)
    provider, model = rnd.choice(MODELS)
    return {
        "id": str(new_id()),
        "org_id": f"org_{organization:05d}",
        "user_id": f"user_{organization:05d}_{rnd.randrange(shape.users_per_organization)}",
        "event_type": "api_call",
        "provider": provider,
        "model": model,
        "tokens_in": rnd.randrange(50, 8000),
        "tokens_out": rnd.randrange(10, 2000),
        "occurred_at": datetime.now(UTC).isoformat(),
    }


async def freshness(bench: Bench, probes: int = 300) -> list[float]:
    """Milliseconds from an event's 202 to its being in the answer of the read API, while 20,000 events/s flow."""
    waits: list[float] = []
    running = bench.running
    flowing = asyncio.Event()

    async def flow(allow: Callable[[int], None]) -> None:
        started_at = time.perf_counter()
        while True:
            allow(int((time.perf_counter() - started_at) * FRESHNESS_RATE))
            if time.perf_counter() - started_at > 2:
                flowing.set()
            await asyncio.sleep(0.01)

    async def probe(number: int, share: int) -> None:
        async with Connection(running.host, running.port, bench.service_key) as connection:
            for turn in range(share):
                org_id = f"org_probe_{time.time_ns()}_{number}_{turn}"
                event = _native(bench.shape, random.Random(turn)) | {"org_id": org_id}  # noqa: S311
                path = f"/api/subscription/usage/{event['user_id']}?org_id={org_id}"
                await connection.post_events(msgspec.json.encode(event))
                accepted_at = time.perf_counter()
                while b'"total_events":1' not in await connection.get(path):  # noqa: ASYNC110 - polled, as a client would
                    await asyncio.sleep(0.002)
                waits.append((time.perf_counter() - accepted_at) * 1000)

    with publishers(bench, seed=3000) as allow:
        flowing_task = asyncio.create_task(flow(allow))
        await flowing.wait()
        await asyncio.gather(*(probe(number, probes // 3) for number in range(3)))
        flowing_task.cancel()
        bench.look_at_memory()
    return sorted(waits)


async def usage_query(bench: Bench, requests: int = 3000) -> list[float]:
    """Milliseconds per `GET /api/subscription/usage/{user_id}` of a random user, over two connections."""
    rnd = random.Random(2)  # noqa: S311 - a load, not a secret
    took: list[float] = []
    running = bench.running

    async def ask() -> None:
        async with Connection(running.host, running.port, bench.service_key) as connection:
            for _ in range(requests // 2):
                organization = rnd.randrange(bench.shape.organizations)
                user = f"user_{organization:05d}_{rnd.randrange(bench.shape.users_per_organization)}"
                started_at = time.perf_counter()
                await connection.get(f"/api/subscription/usage/{user}?org_id=org_{organization:05d}")
                took.append((time.perf_counter() - started_at) * 1000)

    await asyncio.gather(ask(), ask())
    return sorted(took)


def percentile(ordered: list[float], percent: float) -> float:
    """The value below which so many percent of an ordered list lie."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def median(ordered: list[float]) -> float:
    """The middle one."""
    return statistics.median(ordered)
