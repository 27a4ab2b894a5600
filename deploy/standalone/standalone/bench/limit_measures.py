"""What is measured of limits: reservations, checks, and how soon a reached limit is told."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

import asyncpg
import msgspec
from nats.aio.msg import Msg

from aragora.contracts.envelope import envelope, subject_for
from aragora.contracts.events import EntitlementsChanged, LimitReached
from aragora.contracts.ids import new_id
from aragora.contracts.plans import Limit, built_in_meter
from aragora.contracts.topology import EVENTS, usage_partition, usage_subject
from aragora.contracts.usage import USAGE_RECORDED
from aragora_nats.connecting import connect_once
from standalone.bench.limit_load import Answered, Questions, ask
from standalone.bench.measures import Bench, publishers

PLENTY = Decimal(10) ** 12
METERS = ("debates", "api_calls", "calls:openai", "tokens", "cost_usd")
"""What every organization of the bench has a limit on; nobody reaches it."""
NOTICE_RATE = 20_000


async def entitle(bench: Bench, limits_by_org: dict[str, dict[str, Decimal]]) -> None:
    """Let billing say what organizations may do, and wait until metering knows it."""
    client = await connect_once(bench.bus_url)
    stream = client.jetstream(timeout=30)
    now = datetime.now(UTC)
    for org_id, amounts in limits_by_org.items():
        limits = tuple(Limit(meter=built_in_meter(meter), limit=amount) for meter, amount in amounts.items())
        changed = EntitlementsChanged(
            revision=1, plan="bench", plan_version=1, plan_name="Bench", features={}, seats=None, limits=limits
        )
        event = envelope(changed, org_id=org_id, occurred_at=now, correlation_id=str(new_id()))
        await stream.publish(subject_for(event.type, org_id), event.to_json(), stream=EVENTS.name)
    await client.close()
    connection = await asyncpg.connect(bench.database_url)
    known = "SELECT count(*) FROM entitlements WHERE org_id = ANY ($1::text[])"
    while await connection.fetchval(known, list(limits_by_org)) < len(limits_by_org):  # noqa: ASYNC110 - as it is seen
        await asyncio.sleep(0.05)
    await connection.close()


def organizations(bench: Bench) -> tuple[str, ...]:
    """Those whose usage the load is."""
    return tuple(f"org_{number:05d}" for number in range(bench.shape.organizations))


async def limit_everybody(bench: Bench) -> None:
    """Give every organization of the load limits that it is counted against."""
    await entitle(bench, dict.fromkeys(organizations(bench), dict.fromkeys(METERS, PLENTY)))


async def questions(
    bench: Bench, verb: str, orgs: tuple[str, ...], *, per_second: int | None = None, over_http: bool = False,
    at_once: int = 64, seconds: float = 6,
) -> Answered:  # fmt: skip
    """Ask metering about limits."""
    http = (bench.running.host, bench.running.port, bench.service_key) if over_http else None
    asked = Questions(verb, orgs, bench.bus_url, seconds, per_second, at_once, http)
    return await asyncio.to_thread(ask, asked)


async def notices(bench: Bench, probes: int = 200) -> tuple[list[float], bool]:
    """Milliseconds from publishing the event that crosses 80 % of a limit to `LimitReached` on the bus, while 20,000
    events/s flow; and whether each threshold was told exactly once.
    """
    orgs = [f"org_notice_{time.time_ns()}_{number}" for number in range(probes)]
    await entitle(bench, {org_id: {"api_calls": Decimal(10)} for org_id in orgs})
    client = await connect_once(bench.bus_url)
    stream = client.jetstream(timeout=30)
    told: dict[tuple[str, int], list[float]] = {}
    published: dict[str, float] = {}

    async def hear(message: Msg) -> None:
        event = msgspec.json.decode(message.data)
        told.setdefault((event["subject"], event["data"]["threshold_percent"]), []).append(time.perf_counter())

    await client.subscribe(f"{subject_for(LimitReached.type_name, 'x').removesuffix('.x')}.*", cb=hear)
    flowing = asyncio.Event()

    async def flow(allow: Callable[[int], None]) -> None:
        started_at = time.perf_counter()
        while True:
            allow(int((time.perf_counter() - started_at) * NOTICE_RATE))
            if time.perf_counter() - started_at > 2:
                flowing.set()
            await asyncio.sleep(0.01)

    with publishers(bench, seed=3500) as allow:
        flowing_task = asyncio.create_task(flow(allow))
        await flowing.wait()
        for org_id in orgs:
            # Seven calls stay below 80 %, the eighth crosses it, two more reach 90 and 100.
            await stream.publish(usage_subject(usage_partition(org_id)), _calls(org_id, 7))
            published[org_id] = time.perf_counter()
            await stream.publish(usage_subject(usage_partition(org_id)), _calls(org_id, 1))
            await stream.publish(usage_subject(usage_partition(org_id)), _calls(org_id, 2))
            await asyncio.sleep(0.02)
        until = time.perf_counter() + 10
        while len(told) < 3 * probes and time.perf_counter() < until:  # noqa: ASYNC110 - until all were heard
            await asyncio.sleep(0.05)
        flowing_task.cancel()
    await client.close()
    waits = sorted((told[org_id, 80][0] - published[org_id]) * 1000 for org_id in orgs if (org_id, 80) in told)
    once = len(told) == 3 * probes and all(len(times) == 1 for times in told.values())
    return waits, once


def _calls(org_id: str, count: int) -> bytes:
    return msgspec.json.encode([
        {
            "specversion": "1.0", "type": USAGE_RECORDED, "source": "/bench", "id": str(new_id()), "subject": org_id,
            "time": datetime.now(UTC), "data": {"event_type": "api_call", "user_id": "probe", "requests": 1},
        }
        for _ in range(count)
    ])  # fmt: skip
