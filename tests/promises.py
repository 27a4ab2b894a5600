"""Whether a platform has kept what it promised: nothing acknowledged is lost, nothing counts twice, and all that was
decided was said, once and as it was decided.
"""

import json
import re
from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
from auth_platform import PASSWORD
from nats.js.api import ConsumerInfo
from nats.js.errors import NotFoundError
from separate_services import SeparateServices
from servers import eventually_for_good
from traffic import STARTER_DEBATES, TOO_MANY, Traffic

from aragora.contracts.topology import EVENTS, STREAMS
from metering import refold

ASYNCPG_SAYS = ("Failed to restore the pool connection floor", "Resetting connection with an active transaction")
"""As errors, though it goes on: while no server may be written to, and of a connection that is just being lost."""


async def rows(parts: SeparateServices, service: str, query: str, *arguments: Any) -> list[asyncpg.Record]:
    """What a service's database answers."""
    connection = await asyncpg.connect(parts.database_url(service))
    try:
        return await connection.fetch(query, *arguments)
    finally:
        await connection.close()


async def settled(parts: SeparateServices, services: list[str]) -> None:
    """Return when everything was published, delivered and acknowledged."""
    bus = await parts.operator()
    try:

        async def waiting() -> list[str]:
            """What still waits, by name; nobody at all, where one cannot say."""
            found = [
                f"{service} has {count} to publish"
                for service in services
                if (count := (await rows(parts, service, "SELECT count(*) FROM outbox"))[0][0])
            ]
            for stream in STREAMS:
                try:
                    infos = await bus.jetstream().consumers_info(stream.name)
                except NotFoundError:
                    continue
                of_these = [info for info in infos if info.name.partition("-")[0] in services]
                found += [f"{info.name} waits" for info in of_these if not _is_idle(info)]
            return found

        async def nothing_waits() -> bool:
            return not await waiting()

        try:
            await eventually_for_good(nothing_waits, 60, what="nothing waits")
        except BaseException:
            print(await waiting())
            raise
    finally:
        await bus.close()


def _is_idle(info: ConsumerInfo) -> bool:
    # Those without a durable name belong to processes that follow revocations, and end with them.
    return info.config.durable_name is None or not ((info.num_pending or 0) + (info.num_ack_pending or 0))


async def judge(parts: SeparateServices, traffic: Traffic, services: list[str]) -> None:
    """Everything that was promised is so. The services run, the traffic has ended."""
    await settled(parts, services)
    for service in services:
        assert await rows(parts, service, "SELECT reason, subject FROM dead_letters") == [], service
    logged = await rows(parts, "metering", "SELECT org_id, id FROM usage_events")
    assert len(logged) == len(traffic.used)
    assert {(row["org_id"], row["id"]) for row in logged} == traffic.used
    verdict = await refold.verify(
        parts.database_url("metering"), connections=1, progress=lambda *_: None, now=datetime.now(UTC)
    )
    assert verdict.equal, verdict.differences
    assert verdict.events == len(traffic.used)
    said = await judge_what_was_said(parts, services)
    await judge_limits(parts, traffic)
    await judge_commands(parts, traffic)
    if "notifier" in services:
        told = {str(row["alert_id"]) for row in await rows(parts, "notifier", "SELECT alert_id FROM usage_alerts")}
        assert {one["id"] for one in said if ".LimitReached." in one["type"]} <= told


async def judge_what_was_said(parts: SeparateServices, services: list[str]) -> list[dict[str, Any]]:
    """The bus has every event of every store, once, as it is stored, and of each stream in order. Returns them."""
    bus = await parts.operator()
    try:
        consumer = await bus.jetstream().subscribe("events.>", stream=EVENTS.name, ordered_consumer=True)
        count = (await bus.jetstream().stream_info(EVENTS.name)).state.messages
        said = [json.loads((await consumer.next_msg(timeout=5)).data) for _ in range(count)]
        await consumer.unsubscribe()
    finally:
        await bus.close()
    twice = [event_id for event_id, times in Counter(one["id"] for one in said).items() if times > 1]
    assert twice == []
    place = {one["id"]: number for number, one in enumerate(said)}
    by_id = {one["id"]: one for one in said}
    stored = 0
    for service in services:
        query = "SELECT id, org_id, stream, version, type, data::text FROM events ORDER BY stream, version"
        streams: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for row in await rows(parts, service, query):
            event = by_id[str(row["id"])]
            as_said = (event["type"], event["subject"], event["data"])
            assert as_said == (row["type"], row["org_id"], json.loads(row["data"]))
            streams[row["org_id"], row["stream"]].append(place[event["id"]])
            stored += 1
        assert [stream for stream, places in streams.items() if places != sorted(places)] == []
    assert stored == len(said)
    return said


async def judge_limits(parts: SeparateServices, traffic: Traffic) -> None:
    """Exactly as much was granted as the limit allows, and the database knows the same."""
    held = await rows(parts, "metering", "SELECT org_id, id FROM reservations")
    granted = {(org_id, reservation) for org_id, each in traffic.reserved.items() for reservation in each}
    assert {(row["org_id"], row["id"]) for row in held} == granted
    assert {len(each) for each in traffic.reserved.values()} == {STARTER_DEBATES}
    assert traffic.happened["reservation 429"] == len(traffic.reserved) * (TOO_MANY - STARTER_DEBATES)


async def judge_commands(parts: SeparateServices, traffic: Traffic) -> None:
    """Plans are those that were given last, here and there; who registered can sign in; what they chose holds."""
    query = "SELECT org_id, plan, revision FROM {} WHERE org_id = ANY($1)"
    given = await rows(parts, "billing", query.format("subscriptions"), list(traffic.plans))
    assert {row["org_id"]: row["plan"] for row in given} == traffic.plans
    heard = await rows(parts, "metering", query.format("entitlements"), list(traffic.plans))
    assert set(map(tuple, given)) == set(map(tuple, heard))
    if traffic.choices:
        chosen = await rows(parts, "notifier", "SELECT user_id, email FROM notification_preferences")
        assert dict(map(tuple, chosen)) == traffic.choices
    async with httpx.AsyncClient(timeout=10) as client:
        for email in traffic.people:
            url = f"{traffic.urls['auth'][0]}/api/auth/login"
            signed_in = await client.post(url, json={"email": email, "password": PASSWORD})
            assert signed_in.is_success, signed_in.text


def complaints(log: str) -> list[str]:
    """What a process logged as an error, and the lines of a crash."""
    lines = [line for line in log.splitlines() if not any(each in line for each in ASYNCPG_SAYS)]
    return [line[:1500] for line in lines if re.search(r'"level": ?"error"|^Traceback|^\S*Error: ', line)]
