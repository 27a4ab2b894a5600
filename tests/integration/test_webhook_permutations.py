"""Any order, any repetition of Stripe's webhooks ends in the same state as the right order, and in Stripe's.

One random life of a subscription at a simulator is watched by two billings with a database each. The first hears every
webhook at once, once and in order. The second hears some now and then, shuffled, some twice, and the rest in the end.
"""

import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from paying_world import PRICES, StripeWorld, stripe_world
from servers import PostgresServer

from billing.commands import Refused
from billing.stripe_gateway import StripeRefused
from standalone.stripe_simulator import checkout as stripe_checkout
from standalone.stripe_simulator import control
from standalone.stripe_simulator.calls import call
from standalone.stripe_simulator.problems import StripeProblem
from standalone.stripe_simulator.simulator import RunningSimulator, running_simulator

BEGIN = datetime(2026, 1, 31, 9, tzinfo=UTC)
DAY = timedelta(days=1)
SEED = int(os.environ.get("ARAGORA_TEST_SEED", "20261122"))
SHORT, FULL, PARTS = 4, 1_000, 4
DECLINED = ("generic_decline", "insufficient_funds", "authentication_required")


@pytest.fixture
async def databases(postgres_server: PostgresServer, billing_template: str) -> AsyncIterator[tuple[str, str]]:
    names = [await postgres_server.create_database(billing_template) for _ in range(2)]
    yield postgres_server.url_of(names[0]), postgres_server.url_of(names[1])
    for name in names:
        await postgres_server.drop_database(name)


async def test_a_few_lives(databases: tuple[str, str]):
    await watch(databases, range(SHORT))


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
async def test_a_thousand_lives(databases: tuple[str, str], part: int):
    await watch(databases, range(part, FULL, PARTS))


async def watch(databases: tuple[str, str], lives: range) -> None:
    for number in lives:
        print(f"life {number} of seed {SEED}")
        chance = random.Random(SEED * 1_000_003 + number)
        async with AsyncExitStack() as stack:
            simulator = await stack.enter_async_context(running_simulator(now=BEGIN, seed=f"{number}x"))
            ordered, shuffled = [await stack.enter_async_context(stripe_world(url, simulator)) for url in databases]
            life = Life(chance, f"org_{number}", ordered, shuffled, simulator)
            await life.go_by()
            one, other = await seen_by(ordered, life.org), await seen_by(shuffled, life.org)
            differing = [f"{name}: {one[name]}\n  but {other[name]}" for name in one if one[name] != other[name]]
            plan = (await shuffled.subscription(life.org))["plan"]
            if plan != plan_at(simulator):
                differing.append(f"the plan is {plan}, and by Stripe {plan_at(simulator)}")
            for world in (ordered, shuffled):  # the next life begins earlier: nothing of this one may fall due in it
                await world.pool.execute("UPDATE subscriptions SET due_at = NULL")
                await world.pool.execute("UPDATE dunning SET due_at = NULL")
            if differing:
                pytest.fail("\n".join([*life.story, *differing]))


class Life:
    """What happens to one organization. `story` tells it, for whoever has to understand a failure."""

    def __init__(
        self, chance: random.Random, org: str, ordered: StripeWorld, shuffled: StripeWorld, simulator: RunningSimulator
    ) -> None:
        self.chance, self.org, self.ordered, self.shuffled, self.simulator = chance, org, ordered, shuffled, simulator
        self.story: list[str] = []
        self._heard = 0
        self._outstanding: list[dict[str, Any]] = []
        self._noted = 0

    async def go_by(self) -> None:
        for world in (self.ordered, self.shuffled):
            await world.enroll(self.org)
        await self._do(self._subscribe)
        for _ in range(self.chance.randint(3, 9)):
            await self._do(self.chance.choice([
                self._upgrade, self._downgrade, self._later, self._cancel, self._resume, self._cancel_now,
                self._decline, self._decline, self._pay, self._refund, self._subscribe, self._wait, self._wait,
                self._wait,
            ]))  # fmt: skip
        self._note_events()
        rest = [
            *self._outstanding,
            *self.chance.sample(self.simulator.world.events, len(self.simulator.world.events) // 3),
        ]
        self.chance.shuffle(rest)
        for begin in range(0, len(rest), 5):
            await self.shuffled.receive(*rest[begin : begin + 5])
            await self.shuffled.settle()
        for world in (self.ordered, self.shuffled, self.ordered):
            await world.deliver_all()  # what either of them did to Stripe in the end, told to both

    async def _do(self, step: Callable[[], Any]) -> None:
        self.story.append(f"{self.ordered.now:%Y-%m-%d} {step.__name__.strip('_')}")
        with suppress(Refused, StripeRefused, StripeProblem):
            await step()
        await self._hear_in_order()
        self._note_events()
        if self.chance.random() < 0.4:
            await self._hear_some()

    def _note_events(self) -> None:
        self._outstanding += self.simulator.world.events[self._noted :]
        self._noted = len(self.simulator.world.events)

    async def _hear_in_order(self) -> None:
        await self.ordered.receive(*self.simulator.world.events[self._heard :])
        self._heard = len(self.simulator.world.events)
        await self.ordered.settle()

    async def _hear_some(self) -> None:
        heard = [event for event in self._outstanding if self.chance.random() < 0.5]
        self._outstanding = [event for event in self._outstanding if event not in heard]
        heard += self.chance.sample(heard, len(heard) // 3)
        self.chance.shuffle(heard)
        self.story.append(f"           the other hears {[event['type'] for event in heard]}")
        await self.shuffled.receive(*heard)
        await self.shuffled.settle()

    async def _subscribe(self) -> None:
        await self.ordered.subscribe(self.org, self.chance.choice(list(PRICES)))

    async def _upgrade(self) -> None:
        await self.ordered.change(self.org, self.chance.choice(["professional", "enterprise"]))

    async def _downgrade(self) -> None:
        await self.ordered.change(self.org, self.chance.choice(["starter", "professional"]))

    async def _later(self) -> None:
        await self.ordered.change(self.org, self.chance.choice(list(PRICES)), at_period_end=True)

    async def _cancel(self) -> None:
        stripe_checkout.portal_cancel(self.simulator.world, self._live())

    async def _resume(self) -> None:
        stripe_checkout.portal_resume(self.simulator.world, self._live())

    async def _cancel_now(self) -> None:
        call(self.simulator.world, "DELETE", f"/v1/subscriptions/{self._live()}")

    async def _decline(self) -> None:
        await self.ordered.card_of(self.org, self.chance.choice(DECLINED))

    async def _pay(self) -> None:
        await self.ordered.card_of(self.org, "succeeds")
        for invoice in self.simulator.world.where("invoice", status="open"):
            control.pay_in_person(self.simulator.world, invoice)

    async def _refund(self) -> None:
        paid = self.simulator.world.where("charge", paid=True)
        for charge in paid[-1:]:
            call(self.simulator.world, "POST", "/v1/refunds", {"charge": charge["id"], "amount": 100})

    async def _wait(self) -> None:
        for _ in range(self.chance.choice([1, 4, 11, 31])):
            await self.ordered.advance(DAY)
            await self._hear_in_order()

    def _live(self) -> str:
        live = [one["id"] for one in self.simulator.world.table("subscription").values() if one["ended_at"] is None]
        if not live:
            raise StripeProblem(404, "invalid_request_error", "there is none")
        return str(live[-1])


def plan_at(simulator: RunningSimulator) -> str:
    """What Stripe's state means, looked up without any of billing's code."""
    plans = {f"price_{plan}": plan for plan in PRICES}
    now = simulator.world.time_of()
    for one in simulator.world.table("subscription").values():
        if one["status"] in ("active", "trialing", "past_due", "unpaid"):
            kept = one["metadata"]
            if kept.get("kept_until") and datetime.fromisoformat(kept["kept_until"]).timestamp() > now:
                return str(kept["kept_plan"])
            return plans[one["items"]["data"][0]["price"]["id"]]
    return "free"


async def seen_by(world: StripeWorld, org: str) -> dict[str, Any]:
    """All that a billing knows of an organization's payments, without when it came to know it."""
    tables = {
        "subscription": "SELECT plan, plan_version, status, pending_plan, pending_at, payment_reference, due_at "
        "FROM subscriptions WHERE org_id = $1",
        "stripe": "SELECT subscription_id, status, price_id, plan, current_period_end, cancel_at, ended_at, kept_plan, "
        "kept_until FROM stripe_subscriptions WHERE org_id = $1 ORDER BY subscription_id",
        "invoices": "SELECT invoice_id, status, number, total, amount_due, amount_paid, amount_refunded, attempts, "
        "finalized_at, paid_at, payment_intent_id FROM invoices WHERE org_id = $1 ORDER BY invoice_id",
        "lines": "SELECT invoice_id, line_id, rule, description, amount, plan, period_start, period_end "
        "FROM invoice_lines WHERE org_id = $1 ORDER BY invoice_id, line_id",
        "unfinished": "SELECT event_id, state, reason FROM stripe_events "
        "WHERE state NOT IN ('handled', 'ignored') AND $1 <> ''",
    }
    found: dict[str, Any] = {
        name: [tuple(row) for row in await world.pool.fetch(query, org)] for name, query in tables.items()
    }
    return found | {"dunning": await world.dunning(org)}
