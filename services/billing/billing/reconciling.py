"""Finding what lost webhooks left: Stripe's own list of events, and its live subscriptions beside ours."""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from aragora.chassis.database import open_pool
from aragora.chassis.sql import Pool
from billing import metrics, reflecting, standing, stripe_inbox
from billing.attention import raise_attention
from billing.payments import Payments, paying_with
from billing.settings import Settings
from billing.standing import StripeSubscription
from billing.stripe_following import queries
from billing.stripe_gateway import StripeRefused
from billing.stripe_kinds import KINDS
from billing.turns import is_lost

EVENTS = "events"
SUBSCRIPTIONS = "subscriptions"
READ_EVERY = timedelta(minutes=10)
COMPARE_EVERY = timedelta(days=1)
OVERLAP = timedelta(minutes=15)
"""Stripe's list may lag behind, and its clock be another: so much is read once more."""
REACHES_BACK = timedelta(days=30)
"""So long Stripe keeps events."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a comparison with Stripe found."""

    subscriptions: int
    """Live ones that Stripe has."""
    repaired: tuple[str, ...]
    """Organizations of which we knew something else."""
    unknown: tuple[str, ...]
    """Subscriptions of customers who are nobody's here."""


async def read_lost_events(payments: Payments, now: datetime) -> int:
    """Keep what Stripe has told of since the last time and was never received. Returns how many events that were."""
    async with payments.pool.acquire() as conn:
        read_until: datetime | None = await conn.fetchval(queries.read_until, EVENTS)
    since = max(now - REACHES_BACK, (read_until or now) - OVERLAP)
    found = 0
    for said in await payments.gateway.events_since(since):
        if not stripe_inbox.is_followed(said["type"]):
            continue
        async with payments.pool.acquire() as conn:
            found += await stripe_inbox.keep(conn, said, now, is_live=payments.gateway.is_live)
    async with payments.pool.acquire() as conn:
        await conn.execute(queries.have_read_until, EVENTS, now)
    if found:
        metrics.webhooks.labels("lost").inc(found)
        _log.warning("webhooks_lost", events=found)
    return found


async def reconcile(payments: Payments, now: datetime) -> Reconciled:
    """Compare every live subscription with what is known of it, and repair what differs.

    Raises:
        StripeAway: it is not finished; what was repaired stays so.
    """
    theirs: dict[str, list[StripeSubscription]] = defaultdict(list)
    live = [
        standing.subscription_of(one, payments.prices.plan_of) for one in await payments.gateway.live_subscriptions()
    ]
    for one in live:
        theirs[one.customer_id].append(one)
    ours: dict[str, dict[str, tuple[object, ...]]] = defaultdict(dict)
    organizations: dict[str, str] = {}
    async with payments.pool.acquire() as conn:
        for row in await conn.fetch(reflecting.queries.paying_subscriptions):
            ours[row["org_id"]][row["subscription_id"]] = (row["status"], row["price_id"], row["cancel_at"])
        for customer_id in theirs:
            found = await conn.fetchval(reflecting.queries.organization_of_customer, customer_id)
            if found is not None:
                organizations[customer_id] = found
    differing = {
        org_id for customer_id, org_id in organizations.items() if _seen(theirs[customer_id]) != ours.get(org_id, {})
    } | (ours.keys() - set(organizations.values()))
    repaired = [org_id for org_id in sorted(differing) if await _repair(payments, org_id, now)]
    unknown = tuple(one.subscription_id for one in live if one.customer_id not in organizations)
    async with payments.pool.acquire() as conn:
        await conn.execute(queries.have_read_until, SUBSCRIPTIONS, now)
    _log.info("reconciled", subscriptions=len(live), repaired=repaired, unknown=unknown)
    return Reconciled(len(live), tuple(repaired), unknown)


async def _repair(payments: Payments, org_id: str, now: datetime) -> bool:
    """Reflect; where Stripe refuses, operators hear of it, and the others go on."""
    try:
        await reflecting.reflect(payments, org_id, now=now)
    except StripeRefused as refusal:
        _log.warning("not_repaired", org_id=org_id, code=refusal.code)
        async with payments.pool.acquire() as conn:
            await raise_attention(conn, "request_refused", org_id, now, org_id=org_id)
        return False
    return True


def _seen(subscriptions: Sequence[StripeSubscription]) -> dict[str, tuple[object, ...]]:
    return {one.subscription_id: (one.status, one.price_id, one.cancel_at) for one in subscriptions if one.is_live}


async def reconcile_all(settings: Settings, now: datetime) -> Reconciled:
    """Read what was lost, and compare everything, with connections of its own; for the command line."""
    async with (
        open_pool(settings.database_url, min_size=1, max_size=2) as pool,
        paying_with(settings, pool, KINDS) as payments,
    ):
        payments.gateway.demand()
        await read_lost_events(payments, now)
        return await reconcile(payments, now)


async def reconcile_when_due(payments: Payments, now: datetime) -> None:
    """Read what was lost every ten minutes, and compare everything once a day; one worker of all of them."""
    for name, every, do in (
        (EVENTS, READ_EVERY, read_lost_events),
        (SUBSCRIPTIONS, COMPARE_EVERY, reconcile),
    ):
        async with payments.pool.acquire() as conn:
            read_until = await conn.fetchval(queries.read_until, name)
        if read_until is not None and read_until + every > now:
            continue
        async with _alone(payments.turns, name) as is_alone:
            if is_alone:
                await do(payments, now)


@asynccontextmanager
async def _alone(turns: Pool, name: str) -> AsyncIterator[bool]:
    async with turns.acquire() as conn:
        is_alone = await conn.fetchval(queries.try_alone, name)
        try:
            yield bool(is_alone)
        finally:
            if is_alone and not is_lost(conn):
                await conn.execute(queries.end_alone, name)
