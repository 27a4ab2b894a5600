"""What everything about payments needs: connections, Stripe, its prices, and how long a grace period is."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from aragora.chassis.database import open_pool
from aragora.chassis.sql import Pool
from billing.intents import Kind
from billing.settings import Settings
from billing.stripe_gateway import Prices, StripeGateway
from billing.subscriptions import load_plans

TURNS = 8
"""Organizations whose turn it may be at once, in one process."""


@dataclass(frozen=True, slots=True)
class Payments:
    """One per process. `prices` knows the plans that there were when the process started."""

    pool: Pool
    turns: Pool
    """Connections for organizations' turns, and for nothing else."""
    gateway: StripeGateway
    prices: Prices
    kinds: Mapping[str, Kind]
    grace: timedelta
    webhook_secrets: tuple[str, ...] = ()
    """Any of these may have signed a webhook: two of them while one replaces the other."""


@asynccontextmanager
async def paying_with(settings: Settings, pool: Pool, kinds: Mapping[str, Kind]) -> AsyncIterator[Payments]:
    """Payments as the settings say, for the plans that are published."""
    async with open_pool(settings.database_url, min_size=0, max_size=TURNS, command_timeout=30) as turns:
        async with pool.acquire() as connection:
            plans = await load_plans(connection)
        payments = _payments(settings, pool, turns, plans.ids, kinds)
        try:
            yield payments
        finally:
            await payments.gateway.close()


def _payments(settings: Settings, pool: Pool, turns: Pool, plan_ids: list[str], kinds: Mapping[str, Kind]) -> Payments:
    return Payments(
        pool,
        turns,
        StripeGateway(settings),
        Prices(settings.stripe_prices, plan_ids),
        kinds,
        timedelta(days=settings.grace_days),
        tuple(one.strip() for one in settings.stripe_webhook_secret.split(",") if one.strip()),
    )
