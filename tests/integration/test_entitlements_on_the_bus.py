"""A worker follows what billing says on the bus, and tells there what its limits have come to."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from limits import LimitAsker, entitlements, limit, plan
from metering_platform import MeteringPlatform, worker_process
from servers import eventually
from usage import native

from aragora.contracts.envelope import DomainEvent, decode, envelope
from aragora.contracts.events import PLATFORM, LimitReached, PlanPublished, ReservationExpired
from aragora.contracts.topology import EVENTS, METERING_ENTITLEMENTS
from aragora_nats.connecting import connect_once

DEBATE = {"event_type": "debate"}


@pytest.fixture(scope="module")
async def asker(platform: MeteringPlatform) -> AsyncIterator[LimitAsker]:
    """With four workers, which compete for usage, for what billing says and for reservations that end."""
    others = [worker_process(f"worker-{number}", platform.folder, platform.settings) for number in (1, 2, 3)]
    await asyncio.gather(*(worker.start() for worker in others))
    bus = await connect_once(platform.bus_url)
    yield LimitAsker(platform, bus)
    await bus.close()
    await asyncio.gather(*(worker.stop(20) for worker in others))


async def say(platform: MeteringPlatform, event: DomainEvent, org_id: str) -> int:
    """Say it as billing does. Returns its number in the stream."""
    now = datetime.now(UTC)
    said = envelope(event, org_id=org_id, occurred_at=now, correlation_id="c")
    return (await platform.bus.publish(f"events.billing.{type(event).__name__}.{org_id}", said.to_json())).seq


async def all_kept(platform: MeteringPlatform, *, up_to: int) -> None:
    """Not until nothing is pending: the bus may count an event as pending a little after it has confirmed it."""

    async def is_acknowledged() -> bool:
        info = await platform.bus.consumer_info(EVENTS.name, METERING_ENTITLEMENTS.name)
        return info.ack_floor is not None and info.ack_floor.stream_seq >= up_to

    await eventually(is_acknowledged, 20, what="everything that billing said is kept")


async def debates_left(asker: LimitAsker, org: str) -> Any:
    answer = await asker.ask("check", {"org_id": org, "operations": [DEBATE]})
    return answer.json()["limits"][0]["remaining"] if answer.status_code == 200 else answer.status_code


async def test_the_latest_revision_is_in_force_whatever_the_order(asker: LimitAsker, org: str):
    published = PlanPublished(plan=plan("pro", limit("debates", 200)), source="catalog")
    await all_kept(asker.platform, up_to=await say(asker.platform, published, PLATFORM))
    assert await debates_left(asker, org) == 404
    for revision in (3, 1, 2, 3):
        said = await say(asker.platform, entitlements(limit("debates", revision * 10), revision=revision), org)
        await all_kept(asker.platform, up_to=said)
        assert await debates_left(asker, org) == 30
    for revision in (6, 5, 4):
        said = await say(asker.platform, entitlements(limit("debates", revision * 10), revision=revision), org)
    await all_kept(asker.platform, up_to=said)
    assert await debates_left(asker, org) == 60
    refused = await asker.ask("reserve", {"org_id": org, "operations": [{"meter": "debates", "amount": 61}]})
    assert refused.json()["upgrade"]["plan"] == "pro"


async def test_four_workers_say_each_threshold_once(asker: LimitAsker, org: str):
    platform = asker.platform
    await all_kept(platform, up_to=await say(platform, entitlements(limit("debates", 200)), org))
    now = datetime.now(UTC).isoformat()
    bodies = [
        [native(org_id=org, event_type="debate", id=f"{number}-{n}", occurred_at=now) for n in range(5)]
        for number in range(40)
    ]  # fmt: skip
    for body in bodies:
        assert (await platform.post(body)).status_code == 202
        assert (await platform.post(body)).status_code == 202  # sent again, under the same ids
    await platform.settled()
    said = await heard(platform, LimitReached, org, at_least=3)
    await all_kept(platform, up_to=await say(platform, entitlements(limit("debates", 200)), org))
    assert said == await heard(platform, LimitReached, org, at_least=3)
    assert [event.threshold_percent for event in said if isinstance(event, LimitReached)] == [80, 90, 100]
    assert await debates_left(asker, org) == 0


async def test_four_workers_say_once_that_a_reservation_has_expired(asker: LimitAsker, org: str):
    await all_kept(asker.platform, up_to=await say(asker.platform, entitlements(limit("debates", 5)), org))
    question = {"org_id": org, "operations": [DEBATE], "ttl_seconds": 1}
    ids = [(await asker.ask("reserve", question)).json()["reservation_id"] for _ in range(5)]
    said = await heard(asker.platform, ReservationExpired, org, at_least=5)
    assert sorted(event.reservation_id for event in said if isinstance(event, ReservationExpired)) == sorted(ids)
    assert await debates_left(asker, org) == 5


async def heard(platform: MeteringPlatform, kind: type[DomainEvent], org: str, *, at_least: int) -> list[DomainEvent]:
    """All events of this type that are on the bus, once there are so many."""
    subject = f"events.metering.{kind.__name__}.{org}"

    async def count() -> int:
        info = await platform.bus.stream_info(EVENTS.name, subjects_filter=subject)
        return (info.state.subjects or {}).get(subject, 0)

    async def enough() -> bool:
        return await count() >= at_least

    await eventually(enough, 20, what=f"{at_least} of {kind.__name__}")
    subscription = await platform.bus.subscribe(subject, ordered_consumer=True)
    found = [decode((await subscription.next_msg(5)).data)[1] for _ in range(await count())]
    await subscription.unsubscribe()
    return found
