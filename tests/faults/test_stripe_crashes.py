"""Billing is killed at every request that it makes to Stripe, before and after Stripe has acted, and started again.

Afterwards there is one customer, one subscription, one charge per invoice, each line and credit once, nothing pending,
and billing and Stripe agree. `killed_billing` says how it dies; `test_stripe_sigkill` does it to real processes.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from killed_billing import BEGIN, FLOWS, Billing, Fate, Flow, When, is_consistent
from servers import cut, eventually
from usage_closings import catalog_with_overage

from aragora.chassis.sql import Pool
from aragora.chassis.transient import is_transient
from billing import reflecting
from billing.commands import AlreadyOnPlan
from billing.settings import Settings
from billing.stripe_gateway import Json, StripeGateway
from billing.turns import TurnLost
from standalone.stripe_simulator.simulator import running_simulator

SEED = int(os.environ.get("ARAGORA_TEST_SEED", "20261010"))
Living = Callable[[], AbstractAsyncContextManager[Billing]]

numbers = count(1)


@pytest.fixture
async def living(billing_database_url: str, tmp_path: Path) -> Living:
    """Begins a life of billing: an organization, and a Stripe, of its own."""
    catalog = catalog_with_overage(tmp_path)

    @asynccontextmanager
    async def begin() -> AsyncIterator[Billing]:
        number = next(numbers)
        async with running_simulator(now=BEGIN, seed=f"{number}x") as simulator, AsyncExitStack() as stack:
            billing = Billing(billing_database_url, simulator, f"org_{number}", catalog, stack)
            await billing.start()
            yield billing

    return begin


@pytest.mark.long
@pytest.mark.parametrize("name", FLOWS)
async def test_killed_at_every_request(living: Living, name: str):
    async with living() as billing:
        requests = await die_in(billing, FLOWS[name], never)
    for number, request in enumerate(requests, 1):
        for when in deaths_at(request):
            print(f"{name}: killed {when} {request}, the request {number}")
            async with living() as billing:
                await die_in(billing, FLOWS[name], at(number, when))
                assert billing.deaths == 1


async def test_killed_when_stripe_has_acted_and_not_answered(living: Living):
    for name in ("checkout", "usage-at-once"):
        async with living() as billing:
            requests = await die_in(billing, FLOWS[name], never)
        for number, request in enumerate(requests, 1):
            if "after" in deaths_at(request):
                print(f"{name}: killed after {request}, the request {number}")
                async with living() as billing:
                    await die_in(billing, FLOWS[name], at(number, "after"))
                    assert billing.deaths == 1


def never(_: int) -> When | None:
    return None


def at(number: int, when: When) -> Fate:
    return lambda asked: when if asked == number else None


def deaths_at(request: str) -> list[When]:
    """Who only read has changed nothing: to die before it, or after, is one thing."""
    return ["before"] if request.startswith("GET") else ["before", "after"]


async def die_in(billing: Billing, flow: Flow, fate: Fate) -> list[str]:
    """Go through a flow, die in it, go on, and look at what has become of it. Returns the requests of the flow."""
    for step in flow.before:
        await step(billing)
    died = await billing.suffer(flow.act, fate)
    requests = billing.requests
    if died and flow.by_person:
        await flow.again(billing)
    await billing.come_to_rest()
    if flow.afterwards is not None:
        await flow.afterwards(billing)
        await billing.come_to_rest()
    assert await is_consistent(billing) == dict(flow.outcome)
    return requests


@pytest.mark.long
async def test_the_worker_ends_what_nobody_repeats(living: Living):
    for name, flow in FLOWS.items():
        async with living() as billing:
            requests = await die_in(billing, flow, never) if flow.by_person else []
        for number, request in enumerate(requests, 1):
            if "after" in deaths_at(request):
                print(f"{name}: killed after {request}, the request {number}")
                async with living() as billing:
                    for step in flow.before:
                        await step(billing)
                    assert await billing.suffer(flow.act, at(number, "after"))
                    await billing.come_to_rest()
                    if flow.afterwards is not None:
                        await flow.again(billing)
                        await flow.afterwards(billing)
                        await billing.come_to_rest()
                    await is_consistent(billing)


async def test_killed_again_and_again(living: Living):
    await die_at_random(living, 2)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_killed_again_and_again_for_long(living: Living):
    await die_at_random(living, 150)


async def die_at_random(living: Living, lives: int) -> None:
    """Die, come back, and die while mending it."""
    for number in range(lives):
        chance = random.Random(SEED * 1_000_003 + number)
        name = chance.choice(list(FLOWS))
        print(f"life {number} of seed {SEED}: {name}")

        def fate(_: int, chance: random.Random = chance) -> When | None:
            return chance.choice(["before", "after"]) if chance.random() < 0.3 else None

        flow = FLOWS[name]
        async with living() as billing:
            for step in flow.before:
                await step(billing)
            while await billing.suffer(flow.act if billing.deaths == 0 else flow.again, fate):
                if not flow.by_person:
                    break
            for _ in range(40):
                if not await billing.suffer(Billing.come_to_rest, fate):
                    break
            await billing.come_to_rest()
            if flow.afterwards is not None:
                await flow.afterwards(billing)
                await billing.come_to_rest()
            assert await is_consistent(billing) == dict(flow.outcome)


class SlowGateway(StripeGateway):
    """`asked`: Stripe has the first request. It answers when it `may_answer`, and from then on at once."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.asked, self.may_answer = asyncio.Event(), asyncio.Event()

    async def _ask(self, operation: str, call: Callable[[], Awaitable[Any]]) -> Json:
        answer = await super()._ask(operation, call)
        self.asked.set()
        await self.may_answer.wait()
        return answer


@asynccontextmanager
async def slow_gateway(settings: Settings) -> AsyncIterator[SlowGateway]:
    gateway = SlowGateway(settings)
    try:
        yield gateway
    finally:
        await gateway.close()


@pytest.mark.parametrize("everything", [False, True])
async def test_who_loses_its_turn_writes_nothing_any_more(living: Living, everything: bool):  # noqa: FBT001 - a parameter
    async with living() as billing:
        for step in FLOWS["upgrade"].before:
            await step(billing)
        world = billing.world
        stripe = await billing.stack.enter_async_context(slow_gateway(world.settings))
        payments = replace(world.payments, gateway=stripe)
        slow = asyncio.create_task(reflecting.reflect(payments, billing.org, now=world.now))
        await eventually(stripe.asked.is_set)
        waiting = asyncio.create_task(world.change(billing.org, "enterprise"))
        await eventually(lambda: waits_for_a_turn(world.pool))
        assert await cut(billing.database_url, _EVERYTHING if everything else _THE_TURN) >= 1
        if everything:
            with pytest.raises(check=is_transient):  # it may have had the turn for a moment: any way of losing it
                await waiting
            with suppress(AlreadyOnPlan):  # it had the turn for long enough to ask Stripe, and no longer
                await world.change(billing.org, "enterprise")
        else:
            await waiting
        before = await world.said(billing.org)
        stripe.may_answer.set()
        with pytest.raises(check=is_transient):  # of anything else the worker would die
            await slow
        assert await world.said(billing.org) == before
        await billing.come_to_rest()
        assert await is_consistent(billing) == dict(FLOWS["upgrade"].outcome)


async def test_who_has_lost_its_turn_asks_stripe_for_nothing_any_more(living: Living):
    async with living() as billing:
        for step in FLOWS["upgrade"].before:
            await step(billing)
        world = billing.world
        stripe = await billing.stack.enter_async_context(slow_gateway(world.settings))
        world.payments = replace(world.payments, gateway=stripe)
        changing = asyncio.create_task(world.change(billing.org, "enterprise"))
        await eventually(stripe.asked.is_set)
        assert await cut(billing.database_url, _THE_TURN) == 1
        stripe.may_answer.set()
        with pytest.raises(TurnLost):
            await changing
        await billing.come_to_rest()
        assert (await is_consistent(billing))["plan"] == "professional", "somebody else has had the turn since"
        await world.change(billing.org, "enterprise")
        await billing.come_to_rest()
        assert (await is_consistent(billing))["plan"] == "enterprise"


_OF_THIS_DATABASE = (
    "FROM pg_locks WHERE locktype = 'advisory' "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_THE_TURN = f"SELECT pid {_OF_THIS_DATABASE} AND granted"
_EVERYTHING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"


async def waits_for_a_turn(pool: Pool) -> bool:
    return bool(await pool.fetchval(f"SELECT count(*) {_OF_THIS_DATABASE} AND NOT granted"))
