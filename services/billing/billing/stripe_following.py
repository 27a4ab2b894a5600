"""What billing does with Stripe's webhooks, after they were kept: find out whose they are, and reflect.

A webhook says that something changed, and to whom; what it is now is asked of Stripe. Those of one customer that wait
together are handled together. Whose a customer is, is known here (`stripe_customers`): what a payload says of an
organization counts only where Stripe says the same, and only for a customer who is nobody's yet.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Literal

import asyncpg
import structlog

from aragora.chassis import sql, store, tracing
from aragora.chassis.sql import Connection
from aragora.chassis.store import VersionConflict
from aragora.chassis.transient import is_transient
from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events import PaymentDisputed
from billing import invoices, metrics, reflecting
from billing.attention import raise_attention
from billing.money import from_minor
from billing.payments import Payments
from billing.stripe_gateway import Json, StripeAway, StripeRefused

queries = sql.load("billing", "sql/following.sql")
customers = reflecting.queries

BATCH = 200
OWN_TURN = timedelta(seconds=60)
MAX_PAUSE_SECONDS = 600
MAX_ATTEMPTS = 12
"""After an hour and more, operators hear of it."""
PATIENCE = timedelta(minutes=5)
"""So long an event may wait for another one that says whose it is, before operators hear of it."""
_DISPUTES = {"won": "won", "lost": "lost", "warning_closed": "won"}

_log = structlog.get_logger(__name__)


class Unresolved(Exception):
    """Nobody knows whose it is, or it is not theirs. `kind` is that of `BillingAttentionNeeded`."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


async def follow_events(payments: Payments, now: datetime) -> int:
    """Handle what waits and is due, customer by customer. Returns how many events there were."""
    async with payments.pool.acquire() as conn:
        rows = await conn.fetch(queries.take_events, now, now + OWN_TURN, BATCH)
    rows.sort(key=_together)
    for _, group in groupby(rows, key=_together):
        events = list(group)
        customer_id = events[0]["customer_id"]
        ids = [row["event_id"] for row in events]
        try:
            with tracing.continuing("webhooks follow", "CONSUMER"):
                org_id = await _follow(payments, customer_id, events, now)
        except Unresolved as trouble:
            await _finish(payments, ids, "unresolved", trouble.kind, None, now)
        except StripeRefused as refusal:
            # Perhaps by a mistake of ours, which is mended tomorrow.
            _log.warning("stripe_refused", events=ids[:5], code=refusal.code)
            await _give_up_in_time(payments, events, "request_refused", now)
        except StripeAway as away:
            await _put_off(payments, events, now, str(away))
        except Exception as error:
            if is_transient(error) or isinstance(error, VersionConflict | TimeoutError):
                raise
            # One that nobody understands must not stop the others.
            _log.exception("webhook_not_followed", events=ids[:5])
            await _give_up_in_time(payments, events, "not_understood", now)
        else:
            await _finish(payments, ids, "handled", None, org_id, now)
    return len(rows)


async def tell_of_unresolved(payments: Payments, now: datetime) -> None:
    """Tell operators of events that nobody could make sense of for a while."""
    async with payments.pool.acquire() as conn, conn.transaction():
        for row in await conn.fetch(queries.unresolved_since, now - PATIENCE, now):
            kind = row["reason"] or "unknown_organization"
            await raise_attention(conn, kind, row["event_id"], now, org_id=row["org_id"])


def _together(row: asyncpg.Record) -> str:
    """Those of one customer belong together; one that names nobody is by itself."""
    return str(row["customer_id"] or row["event_id"])


async def _put_off(payments: Payments, events: Sequence[asyncpg.Record], now: datetime, reason: str) -> None:
    pause = timedelta(seconds=min(MAX_PAUSE_SECONDS, 2 ** events[0]["attempts"]))
    async with payments.pool.acquire() as conn:
        await conn.execute(queries.put_off_events, [row["event_id"] for row in events], now + pause, reason)
    metrics.events.labels("postponed").inc(len(events))


async def _give_up_in_time(payments: Payments, events: Sequence[asyncpg.Record], kind: str, now: datetime) -> None:
    if events[0]["attempts"] < MAX_ATTEMPTS:
        await _put_off(payments, events, now, kind)
    else:
        await _finish(payments, [row["event_id"] for row in events], "unresolved", kind, None, now)


async def _finish(
    payments: Payments,
    ids: Sequence[str],
    state: Literal["handled", "unresolved"],
    reason: str | None,
    org_id: str | None,
    now: datetime,
) -> None:
    async with payments.pool.acquire() as conn:
        await conn.execute(queries.finish_events, ids, state, reason, org_id, now)
    metrics.events.labels(state).inc(len(ids))


async def _follow(
    payments: Payments, customer_id: str | None, events: Sequence[asyncpg.Record], now: datetime
) -> str | None:
    """Handle the events of one customer. Returns whose they are."""
    if customer_id is None:
        customer_id = await _customer_of(payments, events)
    sessions = [await payments.gateway.checkout(one) for one in _ids(events, "checkout.session")]
    async with payments.pool.acquire() as conn:
        org_id: str | None = await conn.fetchval(customers.organization_of_customer, customer_id)
    if org_id is None:
        org_id = await _find_organization(payments, customer_id, sessions, _ids(events, "subscription"), now)
    async with payments.pool.acquire() as conn:
        for session in sessions:
            await conn.execute(queries.save_checkout, org_id, session["id"], session["status"])
            claimed = (session.get("metadata") or {}).get("org_id")
            if claimed is not None and claimed != org_id:
                await raise_attention(conn, "foreign_organization", session["id"], now, org_id=org_id)
        if any(row["type"] == "customer.deleted" for row in events):
            await conn.execute(customers.customer_deleted, customer_id, now)
    await reflecting.reflect(payments, org_id, now=now, invoice_ids=_ids(events, "invoice"))
    await _follow_charges(payments, org_id, customer_id, events, now)
    return org_id


async def _customer_of(payments: Payments, events: Sequence[asyncpg.Record]) -> str:
    """The customer of objects that do not name theirs: refunds and disputes name a charge, an early session nobody."""
    for row in events:
        if row["object"] == "checkout.session":
            found = await payments.gateway.checkout(row["object_id"])
        elif row["charge_id"]:
            found = await payments.gateway.charge(row["charge_id"])
        else:
            continue
        if found.get("customer"):
            return str(found["customer"])
    raise Unresolved("unknown_organization")


async def _find_organization(
    payments: Payments, customer_id: str | None, sessions: Sequence[Json], subscription_ids: Iterable[str],
    now: datetime,
) -> str:  # fmt: skip
    """Whose a customer is whom nobody knows yet: what Stripe says was written down when they were made here."""
    said = [*sessions, *[await payments.gateway.subscription(one) for one in subscription_ids]]
    named = {(one.get("metadata") or {}).get("org_id") for one in said if one.get("customer") == customer_id} - {None}
    if customer_id is None or len(named) != 1:
        raise Unresolved("unknown_organization")
    (org_id,) = named
    async with payments.pool.acquire() as conn, conn.transaction():
        if not await conn.fetchval(customers.is_subscribed, org_id):
            raise Unresolved("unknown_organization")
        await conn.execute(customers.link_customer, org_id, customer_id, now)
        if await conn.fetchval(customers.organization_of_customer, customer_id) != org_id:
            raise Unresolved("foreign_organization")
        await conn.execute(queries.again_for_customer, customer_id, now)
    return str(org_id)


async def _follow_charges(
    payments: Payments, org_id: str, customer_id: str | None, events: Sequence[asyncpg.Record], now: datetime
) -> None:
    charge_ids = {*_ids(events, "charge"), *(row["charge_id"] for row in events if row["charge_id"])}
    for charge_id in sorted(charge_ids):
        charge = await payments.gateway.charge(charge_id)
        if charge["amount_refunded"]:
            await _note_refund(payments, org_id, customer_id, charge, now)
    for dispute_id in _ids(events, "dispute"):
        dispute = await payments.gateway.dispute(dispute_id)
        async with payments.pool.acquire() as conn, conn.transaction():
            await _tell_of_dispute(conn, org_id, dispute, now)


async def _note_refund(payments: Payments, org_id: str, customer_id: str | None, charge: Json, now: datetime) -> None:
    intent, refunded = charge["payment_intent"], from_minor(charge["amount_refunded"], charge["currency"])
    async with payments.pool.acquire() as conn:
        invoice_id = await conn.fetchval(invoices.queries.invoice_of_payment, org_id, intent)
    if invoice_id is None and customer_id is not None:  # the webhook that tells of the invoice comes later
        every = [one["id"] for one in await payments.gateway.invoices_of(customer_id)]
        await reflecting.reflect(payments, org_id, now=now, invoice_ids=every)
    async with payments.pool.acquire() as conn, conn.transaction():
        invoice_id = await conn.fetchval(invoices.queries.invoice_of_payment, org_id, intent)
        if invoice_id is not None:
            await invoices.note_refund(conn, org_id, invoice_id, refunded, now=now)


async def _tell_of_dispute(conn: Connection, org_id: str, dispute: Json, now: datetime) -> None:
    said: tuple[DomainEvent, ...] = ()
    event = PaymentDisputed(
        dispute_id=dispute["id"],
        status=_DISPUTES.get(dispute["status"], "open"),
        amount=from_minor(dispute["amount"], dispute["currency"]),
        currency=dispute["currency"],
    )
    await store.decide_and_append(
        conn, f"dispute/{dispute['id']}", lambda known: [] if event in known else [event],
        lambda known, one: (*known, one), said, org_id=org_id, occurred_at=now,
    )  # fmt: skip
    await raise_attention(conn, "dispute", dispute["id"], now, org_id=org_id)


def _ids(events: Iterable[asyncpg.Record], kind: str) -> list[str]:
    found: set[Any] = {row["object_id"] for row in events if row["object"] == kind and row["object_id"]}
    return sorted(found)
