"""What the worker does about payments by the clock: asks Stripe again, follows its webhooks, reminds, ends, draws up.

Every moment is in the database: any worker finds what is due, also after all of them were away, and two that find the
same do it once.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog

from aragora.chassis.store import VersionConflict
from aragora.chassis.transient import is_transient
from billing import intents, manual_invoices, reconciling, reflecting, stripe_following
from billing.handlers import Clock
from billing.payments import Payments
from billing.stripe_gateway import StripeAway, StripeRefused

POLL_SECONDS = 0.5
"""How late anything may be."""
PAUSE = timedelta(seconds=15)
"""So long something is left alone when Stripe is away."""
BATCH = 200

_log = structlog.get_logger(__name__)

Step = Callable[[Payments, datetime], Awaitable[object]]


async def follow_payments(payments: Payments, clock: Clock, stop: asyncio.Event) -> None:
    """Do what is due, again and again until `stop`."""
    not_before: dict[str, datetime] = {}
    while not stop.is_set():
        for name, step in _steps(payments).items():
            now = clock()
            if name in not_before and now < not_before[name]:
                continue
            try:
                await step(payments, now)
            except (StripeAway, StripeRefused) as trouble:
                not_before[name] = now + PAUSE
                _log.warning("stripe_away", step=name, reason=str(trouble))
            except Exception as error:
                if not is_transient(error) and not isinstance(error, VersionConflict | TimeoutError):
                    raise
                _log.warning("not_done", step=name, reason=repr(error))
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await stop.wait()
        except TimeoutError:
            continue


def _steps(payments: Payments) -> dict[str, Step]:
    own: dict[str, Step] = {"dunning": settle_dunning, "invoices": draw_up_invoices}
    if not payments.gateway.is_configured:
        return own
    return {
        "intents": carry_out_intents,
        "events": stripe_following.follow_events,
        **own,
        "unresolved": stripe_following.tell_of_unresolved,
        "reconciling": reconciling.reconcile_when_due,
    }


async def carry_out_intents(payments: Payments, now: datetime) -> None:
    """Ask Stripe what nobody has asked yet, or not with success, and reflect what came of it."""
    ended = await intents.carry_out_due(payments.pool, payments.gateway, payments.kinds, now)
    for org_id in sorted({intent.org_id for intent in ended}):
        await reflecting.reflect(payments, org_id, now=now)


async def settle_dunning(payments: Payments, now: datetime) -> None:
    """Remind, and end grace periods, where that is due. Stripe is asked first: somebody may have paid by now."""
    async with payments.pool.acquire() as conn:
        due = [row["org_id"] for row in await conn.fetch(reflecting.queries.dunning_due, now, BATCH)]
    for org_id in due:
        async with payments.pool.acquire() as conn:
            is_customer = await conn.fetchval(reflecting.queries.live_customer_of, org_id) is not None
        if is_customer and payments.gateway.is_configured:
            await reflecting.reflect(payments, org_id, now=now)
            continue
        async with payments.pool.acquire() as conn, conn.transaction():
            await reflecting.reconsider(conn, org_id, now=now, grace=payments.grace)


async def draw_up_invoices(payments: Payments, now: datetime) -> None:
    """Draw up the invoices of those who pay outside Stripe, where it is time."""
    await manual_invoices.draw_up_due(payments.pool, now)
