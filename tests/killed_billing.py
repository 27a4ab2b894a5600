"""Billing that dies at a request to Stripe, without any farewell, and is started again; and what must hold then.

Whoever dies loses its connections to the database at that moment, as a process does that is killed: nothing is rolled
back, given back or written by what it runs on its way out. Whether Stripe had acted by then is for the test to say.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import asyncpg
from paying_world import StripeWorld, stripe_world
from usage_closings import close

from aragora.chassis.sql import Pool
from billing import ledger, paid_changes
from billing.commands import Refused
from billing.ledger import Entry
from billing.settings import Settings
from billing.stripe_gateway import Json, StripeGateway
from standalone.stripe_simulator import cards
from standalone.stripe_simulator import checkout as stripe_checkout
from standalone.stripe_simulator.simulator import RunningSimulator

BEGIN = datetime(2026, 10, 10, 9, tzinfo=UTC)
CLOSES = datetime(2026, 11, 4, tzinfo=UTC)
A_WHILE = timedelta(minutes=2)
"""After so long a worker takes what somebody else has begun for abandoned."""

When = Literal["before", "after"]
"""It dies when Stripe has the request and has not acted on it; or has acted, and the answer comes too late."""
Fate = Callable[[int], When | None]
"""At which request, counted from 1, it dies."""


class Killed(BaseException):
    """The process is no more."""


class MortalGateway(StripeGateway):
    """A gateway whose process dies at a request."""

    def __init__(self, settings: Settings, simulator: RunningSimulator, fate: Fate, *pools: Pool) -> None:
        super().__init__(settings)
        self.requests: list[str] = []
        self.is_dead = False
        self._simulator, self._fate, self._pools = simulator, fate, pools

    async def _ask(self, operation: str, call: Callable[[], Awaitable[Any]]) -> Json:
        when = self._fate(len(self.requests) + 1)
        if when == "before":
            self._die()
        counted = self._simulator.calls.counts.copy()
        try:
            return await super()._ask(operation, call)
        finally:
            self.requests += (self._simulator.calls.counts - counted).keys()
            if when == "after":
                self._die()

    def _die(self) -> None:
        self.is_dead = True
        for pool in self._pools:
            pool.terminate()
        raise Killed


@dataclass
class Billing:
    """One organization's billing beside a simulator of its own, to be killed and started again."""

    database_url: str
    simulator: RunningSimulator
    org: str
    catalog: str
    stack: AsyncExitStack
    deaths: int = 0
    heard: int = 0
    requests: list[str] = field(default_factory=list)
    _world: StripeWorld | None = None

    @property
    def world(self) -> StripeWorld:
        assert self._world is not None
        return self._world

    async def start(self) -> None:
        """A new process, with connections of its own."""
        entered = stripe_world(self.database_url, self.simulator, catalog=self.catalog)
        self._world = await self.stack.enter_async_context(entered)

    async def suffer(self, act: "Step", fate: Fate) -> bool:
        """Do something that may kill it. Returns whether it did; then it was started again."""
        payments = self.world.payments
        mortal = MortalGateway(self.world.settings, self.simulator, fate, self.world.pool, payments.turns)
        self.world.payments = replace(payments, gateway=mortal)
        try:
            with _killing(mortal):
                await act(self)
        finally:
            await mortal.close()
            self.requests = mortal.requests
        self.world.payments = payments
        if mortal.is_dead:
            self.deaths += 1
            await self.start()
        return mortal.is_dead

    async def hear(self) -> None:
        """Stripe's webhooks come, and the worker does what there is to do."""
        await self.world.receive(*self.simulator.world.events[self.heard :])
        self.heard = len(self.simulator.world.events)
        await self.world.settle()

    async def come_to_rest(self) -> None:
        """Let some minutes pass."""
        for _ in range(3):
            await self.world.advance(A_WHILE)
            await self.hear()

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The simulator's objects of a kind, which are all this organization's."""
        return list(self.simulator.world.table(kind).values())

    @property
    def customer(self) -> str:
        (customer,) = self.of("customer")
        return str(customer["id"])


@contextmanager
def _killing(mortal: MortalGateway) -> Iterator[None]:
    try:
        yield
    except Killed:
        return
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, ConnectionError):
        if not mortal.is_dead:  # who is, is on its way out, without connections
            raise


Step = Callable[[Billing], Awaitable[None]]


@dataclass(frozen=True)
class Flow:
    """Something to die in. A person repeats what was not answered; a worker finds what it left by itself."""

    before: tuple[Step, ...]
    act: Step
    outcome: Mapping[str, object]
    by_person: bool = True
    afterwards: Step | None = None

    async def again(self, billing: Billing) -> None:
        """The same once more. That it is done already is no surprise."""
        with suppress(Refused):
            await self.act(billing)


async def enroll(billing: Billing) -> None:
    await billing.world.enroll(billing.org)


async def check_out(billing: Billing) -> None:
    await billing.world.open_checkout(billing.org)


async def pay(billing: Billing) -> None:
    (session,) = (one for one in billing.of("checkout.session") if one["status"] == "open")
    stripe_checkout.complete(billing.simulator.world, session["id"], cards.card_named("pm_card_visa"))


async def hear(billing: Billing) -> None:
    await billing.hear()


async def settle(billing: Billing) -> None:
    await billing.world.settle()


def change(plan: str, *, at_period_end: bool = False) -> Step:
    return lambda billing: billing.world.change(billing.org, plan, at_period_end=at_period_end)


def cancel(*, at_period_end: bool) -> Step:
    async def step(billing: Billing) -> None:
        reference = (await billing.world.subscription(billing.org))["payment_reference"]
        if reference is not None:  # as the route: else nobody pays any more
            await paid_changes.cancel(
                billing.world.payments, reference, billing.org, billing.world.now, at_period_end=at_period_end
            )

    return step


async def fail_to_pay(billing: Billing) -> None:
    await billing.world.card_of(billing.org, "generic_decline")
    await billing.world.live(timedelta(days=41), timedelta(days=4))  # until an hour before the grace period ends
    billing.heard = len(billing.simulator.world.events)
    await billing.world.advance(timedelta(hours=3))


async def five_days(billing: Billing) -> None:
    await billing.world.advance(timedelta(days=5))


async def close_october(billing: Billing) -> None:
    await billing.world.advance(CLOSES)
    await close(billing.world.pool, billing.org, "2026-10", CLOSES, {"debates": "220", "cost_usd": "50"})


async def grant(billing: Billing) -> None:
    entry = Entry("credit/1", "credit", Decimal(150), "for your trouble", "user_operator", billing.world.now)
    async with billing.world.pool.acquire() as connection, connection.transaction():
        await ledger.grant(connection, billing.org, entry)


_PAYING = (enroll, check_out, pay, hear)
_ONCE, _TWICE = {"plan": "professional", "charged": [29_900]}, {"plan": "enterprise", "charged": [29_900, 70_000]}
_LEFT = {"plan": "free", "charged": [2_100, 29_900], "items": [1_000, 1_100]}

FLOWS: Mapping[str, Flow] = {
    "checkout": Flow((enroll,), check_out, _ONCE, afterwards=pay),
    "follow": Flow((enroll, check_out, pay), hear, _ONCE, by_person=False),
    "upgrade": Flow(_PAYING, change("enterprise"), _TWICE),
    "downgrade": Flow(_PAYING, change("starter"), {"plan": "starter", "charged": [29_900], "items": [-29_900, 9_900]}),
    "later": Flow(_PAYING, change("starter", at_period_end=True), _ONCE | {"pending": "starter"}),
    "mind-changed": Flow((*_PAYING, change("starter", at_period_end=True)), change("enterprise"), _TWICE),
    "cancel": Flow(_PAYING, cancel(at_period_end=True), _ONCE | {"ends": True}),
    "cancel-now": Flow(_PAYING, cancel(at_period_end=False), {"plan": "free", "charged": [29_900]}),
    "grace-ends": Flow((*_PAYING, fail_to_pay), hear, {"plan": "free", "charged": [29_900]}, by_person=False),
    "usage": Flow((*_PAYING, close_october), settle, _ONCE | {"items": [1_000, 1_100]}, by_person=False),
    "usage-at-once": Flow(
        (*_PAYING, five_days, cancel(at_period_end=False), hear, close_october), settle, _LEFT, by_person=False
    ),
    "leave-owing": Flow((*_PAYING, close_october, settle), cancel(at_period_end=False), _LEFT),
    "credit-before": Flow((enroll, grant, check_out, pay), hear, _ONCE | {"balance": [-15_000]}, by_person=False),
    "credit": Flow((*_PAYING, grant), settle, _ONCE | {"balance": [-15_000]}, by_person=False),
}  # fmt: skip


async def is_consistent(billing: Billing) -> dict[str, object]:
    """Assert what always holds when billing is at rest; returns how it stands, to compare with the flow's outcome."""
    stripe, pool, org = billing.simulator.world, billing.world.pool, billing.org
    subscriptions, invoices = billing.of("subscription"), billing.of("invoice")
    assert len(billing.of("customer")) == 1, "customers"
    assert sum(one["ended_at"] is None for one in subscriptions) <= 1, "live subscriptions"
    assert len([one for one in billing.of("checkout.session") if one["status"] == "open"]) == 0, "orphans"
    unfinished = await pool.fetch(
        "SELECT intent_id, kind, state FROM stripe_intents WHERE org_id = $1 AND state <> 'done' "
        "UNION ALL SELECT event_id, type, state FROM stripe_events WHERE customer_id = $2 AND state <> 'handled' "
        "AND reason IS DISTINCT FROM 'unknown_type'",
        org, billing.customer,
    )  # fmt: skip
    assert not unfinished
    ours = await pool.fetch("SELECT subscription_id, status, price_id FROM stripe_subscriptions WHERE org_id = $1", org)
    theirs = {(one["id"], one["status"], one["items"]["data"][0]["price"]["id"]) for one in subscriptions}
    assert {tuple(row) for row in ours} == theirs
    ours = await pool.fetch("SELECT invoice_id, status, (total * 100)::int FROM invoices WHERE org_id = $1", org)
    assert {tuple(row) for row in ours} == {(one["id"], one["status"], one["total"]) for one in invoices}
    items = billing.of("invoiceitem")
    named = [one["metadata"]["charge_id"] for one in items if one["metadata"].get("charge_id")]
    assert len(named) == len(set(named)), "a line twice"
    charges = [one for one in billing.of("charge") if one["paid"]]
    assert len({one["payment_intent"] for one in charges}) == len(charges) <= len(invoices), "charged twice"
    row = await billing.world.subscription(org)
    changes = [one for one in stripe.table("customer_balance_transaction").values() if one["type"] == "adjustment"]
    found: dict[str, object] = {
        "plan": row["plan"],
        "charged": sorted(one["amount"] for one in charges),
        "items": sorted(one["amount"] for one in items if not one["invoice"] or one["metadata"].get("charge_id")),
        "balance": [one["amount"] for one in changes],
        "pending": row["pending_plan"],
        "ends": any(one["cancel_at_period_end"] for one in subscriptions),
    }
    return {name: value for name, value in found.items() if value}
