"""Reminders on the right days, and the end of a grace period: each once, though no worker lives for longer than half a
day, and always two of them do the same work at once.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest
from paying_world import StripeWorld, stripe_world
from servers import eventually

from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events import (
    EntitlementsChanged,
    GracePeriodExpired,
    PaymentFailed,
    PaymentRecovered,
    PaymentReminderDue,
    SubscriptionChanged,
)
from billing.collecting import follow_payments
from standalone.stripe_simulator.simulator import running_simulator

BEGIN = datetime(2027, 1, 31, 9, tzinfo=UTC)
FAILS = datetime(2027, 2, 28, 10, tzinfo=UTC)
"""A month later, and an hour as a draft."""
HALF_A_DAY = timedelta(hours=12)

_WORK = """
SELECT (SELECT count(*) FROM stripe_events WHERE state = 'pending')
     + (SELECT count(*) FROM stripe_intents WHERE state = 'pending')
     + (SELECT count(*) FROM dunning WHERE due_at <= $1)
     + (SELECT count(*) FROM subscriptions WHERE due_at <= $1)
"""


@pytest.fixture
async def world(billing_database_url: str) -> AsyncIterator[StripeWorld]:
    async with running_simulator(now=BEGIN) as simulator, stripe_world(billing_database_url, simulator) as found:
        yield found


async def half_a_day_of_two_workers(world: StripeWorld) -> None:
    """Two workers come, do what is due at this moment, and go."""
    await world.receive(*world.simulator.world.events)
    stop = asyncio.Event()

    async def has_no_work() -> bool:
        return not await world.pool.fetchval(_WORK, world.now)

    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(stripe_world(world.settings.database_url, world.simulator))
            for _ in range(2)
        ]
        async with asyncio.TaskGroup() as tasks:
            for worker in workers:
                tasks.create_task(follow_payments(worker.payments, lambda: world.now, stop))
            await eventually(has_no_work)
            stop.set()


async def fails_to_pay(world: StripeWorld, org: str) -> None:
    await world.enroll(org)
    await world.subscribe(org)
    await half_a_day_of_two_workers(world)
    await world.card_of(org, "generic_decline")
    await world.advance(FAILS)
    await half_a_day_of_two_workers(world)


async def days_of(world: StripeWorld, org: str, kind: type[DomainEvent]) -> list[float]:
    """How many days after the first failure events of a kind were written."""
    rows = await world.pool.fetch(
        "SELECT occurred_at FROM events WHERE org_id = $1 AND type = $2 ORDER BY position", org, kind.type_name
    )
    return [(row["occurred_at"] - FAILS) / timedelta(days=1) for row in rows]


async def test_reminded_and_downgraded_once(world: StripeWorld, org: str):
    await fails_to_pay(world, org)
    while world.now < FAILS + timedelta(days=12):
        await world.advance(HALF_A_DAY)
        await half_a_day_of_two_workers(world)
    assert await days_of(world, org, PaymentReminderDue) == [0, 3, 5, 7, 9]
    assert await days_of(world, org, PaymentFailed) == [0, 3, 5, 7]
    assert await days_of(world, org, GracePeriodExpired) == [10]
    assert (await days_of(world, org, EntitlementsChanged))[2:] == [10]
    reminders = await world.said(org, PaymentReminderDue)
    assert [one.is_last for one in reminders if isinstance(one, PaymentReminderDue)] == [False] * 4 + [True]
    (*_, free) = await world.said(org, EntitlementsChanged)
    assert isinstance(free, EntitlementsChanged)
    assert free.plan == "free"
    said = [type(one) for one in await world.said(org)]
    ended = said.index(GracePeriodExpired)
    assert said[ended : ended + 3] == [GracePeriodExpired, SubscriptionChanged, EntitlementsChanged]
    (subscription,) = world.simulator.world.table("subscription").values()
    assert subscription["status"] == "canceled"


async def test_recovered_once(world: StripeWorld, org: str):
    await fails_to_pay(world, org)
    while world.now < FAILS + timedelta(days=11):
        if world.now == FAILS + timedelta(days=6):
            await world.card_of(org, "succeeds")
        await world.advance(2 * HALF_A_DAY)
        await half_a_day_of_two_workers(world)
    assert await days_of(world, org, PaymentReminderDue) == [0, 3, 5]
    assert await days_of(world, org, PaymentRecovered) == [7]
    assert not await days_of(world, org, GracePeriodExpired)
    assert (await world.subscription(org))["plan"] == "professional"
