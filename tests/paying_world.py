"""Billing's payments in the test's own process, on a real database and against a Stripe simulator over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from aragora.chassis.sql import Pool
from aragora.contracts.envelope import DomainEvent, restore
from billing import checkout, collecting, paid_changes, reflecting, stripe_following, stripe_inbox, subscriptions
from billing.checkout import Wanted
from billing.commands import Enroll, PaymentNeeded
from billing.due import settle_due
from billing.dunning import Dunning
from billing.paid_changes import Choice
from billing.payments import Payments, paying_with
from billing.settings import Settings, read_catalog
from billing.stripe_kinds import KINDS
from standalone.stripe_simulator import cards, catalogue, control
from standalone.stripe_simulator import checkout as stripe_checkout
from standalone.stripe_simulator.simulator import RunningSimulator

PRICES = {"starter": 9_900, "professional": 29_900, "enterprise": 99_900}
"""The documented prices of the tiers, in cents a month."""
SUCCESS, CANCEL = "https://app.example.com/success", "https://app.example.com/cancel"


def price_id(plan: str) -> str:
    """The simulator's price of a plan."""
    return f"price_{plan}"


@dataclass
class StripeWorld:
    """Billing beside a simulator. Time is the simulator's, for both."""

    settings: Settings
    pool: Pool
    payments: Payments
    simulator: RunningSimulator

    @property
    def now(self) -> datetime:
        """The simulator's clock."""
        return datetime.fromtimestamp(self.simulator.world.time_of(), tz=UTC)

    async def enroll(self, org_id: str) -> None:
        """Give an organization the default plan."""
        async with self.pool.acquire() as connection:
            known = await subscriptions.load_plans(connection)
            await subscriptions.execute(connection, org_id, Enroll(), known, now=self.now)

    async def open_checkout(self, org_id: str, plan: str = "professional") -> str:
        """Begin to pay. Returns the session's id."""
        wanted = Wanted(org_id, plan, price_id(plan), SUCCESS, CANCEL)
        return (await checkout.check_out(self.payments, wanted, "payer@example.com", self.now)).session_id

    async def subscribe(self, org_id: str, plan: str = "professional", card: str = "pm_card_visa") -> None:
        """Pay for a plan, at Stripe; billing has not heard of it yet."""
        stripe_checkout.complete(self.simulator.world, await self.open_checkout(org_id, plan), cards.card_named(card))

    async def change(self, org_id: str, plan: str, *, at_period_end: bool = False) -> None:
        """To another plan, as an owner asks for it."""
        async with self.pool.acquire() as connection:
            known = await subscriptions.load_plans(connection)
        reference = (await self.subscription(org_id))["payment_reference"]
        if reference is None:
            raise PaymentNeeded("nobody pays")
        choice = Choice(plan, at_period_end)
        await paid_changes.change(self.payments, reference, org_id, choice, known, self.now)

    async def customer_of(self, org_id: str) -> str:
        """The simulator's customer."""
        found: str = await self.pool.fetchval(reflecting.queries.live_customer_of, org_id)
        return found

    async def card_of(self, org_id: str, behaviour: str) -> None:
        """From now on the organization's cards do that: `succeeds`, `generic_decline`, …"""
        control.behave(self.simulator.world, behaviour, customer=await self.customer_of(org_id))

    async def advance(self, to: datetime | timedelta) -> None:
        """Let time pass, at Stripe and here; nothing is handled yet."""
        await self.simulator.advance(self.now + to if isinstance(to, timedelta) else to)

    async def receive(self, *events: dict[str, Any]) -> None:
        """Keep webhooks, as the route does."""
        async with self.pool.acquire() as connection:
            for event in events:
                await stripe_inbox.keep(connection, event, self.now, is_live=False)

    async def settle(self) -> None:
        """Do what two workers do, until nothing is left to do at this moment."""
        now = self.now
        await settle_due(self.pool, now)
        for _ in range(20):
            await collecting.carry_out_intents(self.payments, now)
            both = (stripe_following.follow_events(self.payments, now) for _ in range(2))
            handled = sum(await asyncio.gather(*both))
            await collecting.settle_dunning(self.payments, now)
            waiting = await self.pool.fetchval(
                "SELECT count(*) FROM stripe_intents WHERE state = 'pending' AND next_attempt_at <= $1", now
            )
            if not handled and not waiting:
                return
        raise AssertionError("billing does not come to rest")

    async def deliver_all(self) -> None:
        """Every webhook that Stripe has, in order; then settle."""
        await self.receive(*self.simulator.world.events)
        await self.settle()

    async def live(self, span: timedelta, step: timedelta = timedelta(hours=12)) -> None:
        """Let time pass with billing awake: webhooks come, and what is due is done, at every step."""
        end = self.now + span
        seen = len(self.simulator.world.events)
        while self.now < end:
            await self.advance(min(self.now + step, end))
            await self.receive(*self.simulator.world.events[seen:])
            seen = len(self.simulator.world.events)
            await self.settle()

    async def subscription(self, org_id: str) -> asyncpg.Record:
        """The organization's row."""
        row = await self.pool.fetchrow(subscriptions.queries.subscription_of, org_id)
        assert row is not None
        return row

    async def dunning(self, org_id: str) -> Dunning:
        """Where its dunning stands."""
        async with self.pool.acquire() as connection:
            return (await reflecting.load_dunning(connection, org_id))[1]

    async def said(self, org_id: str, *kinds: type[DomainEvent]) -> list[DomainEvent]:
        """The events of an organization of these kinds (all, if none is named), in order."""
        rows = await self.pool.fetch("SELECT type, data FROM events WHERE org_id = $1 ORDER BY position", org_id)
        events = [restore(row["type"], json.loads(row["data"])) for row in rows]
        return [event for event in events if not kinds or isinstance(event, kinds)]


@asynccontextmanager
async def stripe_world(
    database_url: str, simulator: RunningSimulator, *, catalog: str = "aragora", grace_days: int = 10
) -> AsyncIterator[StripeWorld]:
    """Billing on a database with its schema, with the simulator's prices for the catalog's tiers."""
    for plan, cents in PRICES.items():
        if price_id(plan) not in simulator.world.table("price"):
            catalogue.put_price(simulator.world, price_id(plan), plan.title(), cents)
    settings = Settings.model_validate({
        "DATABASE_URL": database_url,
        "ARAGORA_CATALOG": catalog,
        "ARAGORA_PAYMENT_GRACE_DAYS": grace_days,
        "STRIPE_SECRET_KEY": simulator.secret_key,
        "STRIPE_WEBHOOK_SECRET": simulator.webhook_secret,
        "STRIPE_API_BASE": simulator.url,
        "stripe_prices": {f"STRIPE_PRICE_{plan.upper()}": price_id(plan) for plan in PRICES},
    })  # fmt: skip
    async with asyncpg.create_pool(database_url, min_size=1, max_size=8) as pool:
        async with pool.acquire() as connection:
            await subscriptions.publish_catalog(
                connection, read_catalog(catalog), now=datetime.fromtimestamp(simulator.world.time_of(), tz=UTC)
            )
        async with paying_with(settings, pool, KINDS) as payments:
            yield StripeWorld(settings, pool, payments, simulator)
