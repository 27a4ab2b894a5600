"""What billing does when metering closes a month: it charges for what was used beyond the plan.

One transaction per message batch. Whoever pays through Stripe gets lines of Stripe's next invoice, through intents; who
is billed by us gets lines that wait for our own next invoice; who has the plan free of charge gets none, and the reason
is kept. A month that is said twice, or after a later word on it, changes nothing.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import asyncpg
import structlog
from structlog.contextvars import bound_contextvars

from aragora.chassis import sql
from aragora.chassis.sql import Connection, Pool
from aragora.contracts.envelope import Envelope, decode, restore
from aragora.contracts.events import UsagePeriodClosed
from aragora.contracts.ids import new_id
from aragora.contracts.plans import Plan
from billing import charges, intents, manual_invoice, stretches, subscriptions
from billing.attention import raise_attention
from billing.charges import Charge
from billing.commands import Settle
from billing.money import USD, to_minor
from billing.plans import Plans
from billing.stretches import Stretch

queries = sql.load("billing", "sql/charges.sql")
manual_queries = sql.load("billing", "sql/manual.sql")

AT_ONCE = timedelta(0)
"""Nobody waits for Stripe's answer here: a worker is to ask at once."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Payer:
    """Who pays for a month's usage, or why nobody does."""

    reason: str
    collected_by: Literal["stripe", "operator"] | None = None
    customer_id: str | None = None
    is_live: bool = False
    """Whether a subscription of Stripe's will make a next invoice."""


async def follow_metering(pool: Pool, messages: Sequence[bytes], now: datetime) -> None:
    """Charge for the months that these messages close, in one transaction.

    Raises:
        pydantic.ValidationError, UnknownEventType: one of them is no event of metering. Nothing was done.
    """
    closed = [decode(message) for message in messages]
    # In the order of the organizations, so that two batches never wait for each other.
    closed.sort(key=lambda one: one[0].subject)
    async with pool.acquire() as connection, connection.transaction():
        known = await subscriptions.load_plans(connection)
        for envelope, event in closed:
            if isinstance(event, UsagePeriodClosed):
                with bound_contextvars(correlation_id=envelope.correlationid):
                    await charge(connection, envelope, event, known, now)


async def charge(conn: Connection, envelope: Envelope, closed: UsagePeriodClosed, known: Plans, now: datetime) -> None:
    """Charge for a month that was closed, in the caller's transaction. Once, whatever comes when."""
    org_id = envelope.subject
    await conn.execute(queries.hold, org_id)
    before = await conn.fetch(queries.charged_periods, org_id, closed.month)
    if any(row["sequence"] >= closed.sequence for row in before):
        return
    stretch = await _stretch_of(conn, org_id, closed.month, known, now)
    plan = None if stretch is None else known.version(stretch.sold.plan, stretch.sold.version)
    if before and before[0]["plan"] is not None:
        plan = known.version(before[0]["plan"], before[0]["plan_version"])
    payer = await _payer(conn, org_id, stretch, plan)
    so_far = {row["meter"]: row["amount"] for row in await conn.fetch(queries.charged_so_far, org_id, closed.month)}
    found = charges.charges_for(plan, closed.totals, so_far) if plan and payer.collected_by else []
    await conn.execute(
        queries.save_charged_period, org_id, closed.month, closed.sequence, envelope.id,
        plan and plan.plan, plan and plan.version, payer.collected_by, payer.reason, now,
    )  # fmt: skip
    if plan and payer.collected_by:
        if closed.unpriced_events and charges.prices_cost(plan):
            await raise_attention(conn, "unpriced_usage", envelope.id, now, org_id=org_id)
        await _keep(conn, envelope, closed, plan, payer, found, now)
    _log.info(
        "usage_charged" if found else "usage_not_charged",
        org_id=org_id, month=closed.month, sequence=closed.sequence, lines=len(found), reason=payer.reason,
    )  # fmt: skip


async def invoice_what_waits(conn: Connection, org_id: str, ended_subscription: str, now: datetime) -> None:
    """Have Stripe invoice what was to be on the next invoice of a subscription that has ended, and has no next one.

    In the caller's transaction. Said twice, it is done once.
    """
    await conn.execute(queries.hold, org_id)
    if await conn.fetchval(queries.has_live_subscription, org_id):
        return
    customer = await conn.fetchval(queries.stripe_customer, org_id, ended_subscription)
    if customer is not None and await conn.fetchval(queries.waiting_at_stripe, org_id):
        asked = {"customer": customer, "lines": []}
        once = f"lines-of/{ended_subscription}"
        await intents.record(conn, org_id, "invoice_lines_now", asked, now, once=once, turn=AT_ONCE)


async def history_of(conn: Connection, org_id: str) -> stretches.History:
    """The events of an organization's subscription, with the moments at which they occurred."""
    rows = await conn.fetch(queries.history, org_id, subscriptions.STREAM)
    return [(row["occurred_at"], restore(row["type"], json.loads(row["data"]))) for row in rows]


async def _stretch_of(conn: Connection, org_id: str, month: str, known: Plans, now: datetime) -> Stretch | None:
    # What has ended by itself is written into the history first, as of its moment.
    await subscriptions.execute(conn, org_id, Settle(), known, now=now)
    had = stretches.stretches(await history_of(conn, org_id), *stretches.span_of(month))
    return charges.charged_stretch(had, known)


async def _payer(conn: Connection, org_id: str, stretch: Stretch | None, plan: Plan | None) -> Payer:
    if stretch is None or plan is None:
        return Payer("It had no plan in this month.")
    if stretch.is_free:
        return Payer(f"It had {plan.name} free of charge.")
    if not charges.prices_overage(plan):
        return Payer(f"{plan.name} has no price for what goes beyond it.")
    customer = await conn.fetchval(queries.stripe_customer, org_id, stretch.paid_by)
    is_live = await conn.fetchval(queries.has_live_subscription, org_id)
    through_stripe = Payer("It pays through Stripe.", "stripe", customer, is_live)
    if stretch.paid_by is not None:
        return through_stripe if customer else Payer("Its customer at Stripe is not known any more.")
    terms = await conn.fetchrow(manual_queries.terms_of, org_id)
    if terms is not None and _covers(terms, stretch):
        return Payer("It is billed by us.", "operator")
    if customer is not None and is_live:
        return through_stripe
    return Payer(f"Nobody pays for {plan.name}: an operator gave it, without terms of billing.")


def _covers(terms: asyncpg.Record, stretch: Stretch) -> bool:
    starts = stretches.midnight(terms["starts_on"])
    ends = stretches.midnight(terms["ends_on"]) if terms["ends_on"] else stretch.end
    return starts < stretch.end and stretch.start < ends


async def _keep(
    conn: Connection, envelope: Envelope, closed: UsagePeriodClosed, plan: Plan, payer: Payer,
    found: Sequence[Charge], now: datetime,
) -> None:  # fmt: skip
    org_id, asked = envelope.subject, list[dict[str, Any]]()
    start, end = stretches.span_of(closed.month)
    for one in found:
        charge_id = f"charge_{new_id().hex}"
        await conn.execute(
            queries.save_charge, org_id, charge_id, closed.month, closed.sequence, plan.plan, plan.version, one.meter,
            one.used, one.included, one.charged_quantity, one.price_usd, one.per, one.exact_usd,
            one.charged_before_usd, one.amount_usd, closed.events, closed.digest, envelope.id, now, payer.collected_by,
        )  # fmt: skip
        metadata = {"charge_id": charge_id, "org_id": org_id, "month": closed.month, "meter": one.meter}
        asked.append(
            {
                "customer": payer.customer_id,
                "amount": to_minor(one.amount_usd, USD),
                "currency": USD,
                "description": charges.described(one, plan.name, closed.month),
                "period": {"start": int(start.timestamp()), "end": int(end.timestamp())},
                "metadata": metadata,
            }
        )
    if not asked:
        return
    if payer.collected_by == "operator":  # also if the terms have ended, and their last invoice is behind us
        due_at = manual_invoice.due_of(stretches.month_of(now))
        await conn.execute(manual_queries.bill_once_more, org_id, due_at)
    elif payer.is_live:
        for line in asked:
            once = f"line/{line['metadata']['charge_id']}"
            await intents.record(conn, org_id, "add_line", {"line": line}, now, once=once, turn=AT_ONCE)
    else:  # no next invoice will come by itself
        lines = {"customer": payer.customer_id, "lines": asked}
        once = f"lines/{closed.month}/{closed.sequence}"
        await intents.record(conn, org_id, "invoice_lines_now", lines, now, once=once, turn=AT_ONCE)
