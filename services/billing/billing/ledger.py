"""The ledger: what is in an organization's favour, and what became of it. Entries are only ever added.

Credits and coupons add to the balance. Our own invoices take from it (`applied`), and give back when they are voided
(`returned`). Who pays through Stripe has it there: Stripe's customer balance takes it over (`moved`), and Stripe takes
it off the next invoices. Payments are kept here too, and are no part of the balance. It is never below zero.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

import asyncpg

from aragora.chassis import sql, store
from aragora.chassis.sql import Connection
from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events import CreditGranted
from billing import intents
from billing.intents import Intent
from billing.invoice_answers import EntryKind
from billing.money import USD, to_minor
from billing.stripe_gateway import Json

MOVE_CREDIT = "move_credit"
"""The intent by which Stripe takes over what is in an organization's favour."""
BILLING = "service:billing"
"""Who records what follows by itself."""

queries = sql.load("billing", "sql/ledger.sql")
_hold = sql.load("billing", "sql/charges.sql").hold


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the ledger. `amount` is positive in the organization's favour."""

    entry_id: str
    kind: EntryKind
    amount: Decimal
    reason: str
    recorded_by: str
    recorded_at: datetime
    currency: str = USD
    invoice_id: str | None = None
    coupon: str | None = None


async def hold(conn: Connection, org_id: str) -> None:
    """Keep everybody else from this organization's ledger, charges and own invoices until the transaction ends."""
    await conn.execute(_hold, org_id)


async def balance(conn: Connection, org_id: str) -> Decimal:
    """What is in the organization's favour here, in USD."""
    found: Decimal = await conn.fetchval(queries.balance, org_id)
    return found


async def available(conn: Connection, org_id: str) -> Decimal:
    """The balance without what Stripe is just being asked to take over. Under `hold`, it stays true."""
    moving: Decimal = await conn.fetchval(queries.being_moved, org_id, MOVE_CREDIT)
    return await balance(conn, org_id) - moving


async def add(conn: Connection, org_id: str, entry: Entry) -> bool:
    """Add an entry, in the caller's transaction and under `hold`. False: one with this id is there already."""
    added = await conn.fetchval(
        queries.add_entry, org_id, entry.entry_id, entry.kind, entry.amount, entry.currency, entry.invoice_id,
        entry.coupon, entry.reason, entry.recorded_by, entry.recorded_at,
    )  # fmt: skip
    return bool(added)


async def find(conn: Connection, org_id: str, entry_id: str) -> Entry | None:
    """An entry, or None."""
    row = await conn.fetchrow(queries.entry, org_id, entry_id)
    return None if row is None else entry_of(row)


async def grant(conn: Connection, org_id: str, entry: Entry) -> bool:
    """Add a credit and say so; who pays through Stripe has it there. False: it was granted before.

    In the caller's transaction.
    """
    await hold(conn, org_id)
    if not await add(conn, org_id, entry):
        return False
    source = "coupon" if entry.kind == "coupon" else "operator"
    granted = CreditGranted(entry_id=entry.entry_id, amount=entry.amount, currency=entry.currency, source=source)
    said: tuple[DomainEvent, ...] = ()
    await store.decide_and_append(
        conn,
        f"credit/{entry.entry_id}",
        lambda known: [] if known else [granted],
        lambda known, event: (*known, event),
        said,
        org_id=org_id,
        occurred_at=entry.recorded_at,
    )
    await move_to_stripe(conn, org_id, entry.recorded_at)
    return True


async def move_to_stripe(conn: Connection, org_id: str, now: datetime) -> Intent | None:
    """Ask Stripe to take over what is in the organization's favour, if it pays there and there is something.

    In the caller's transaction. A worker asks; the entry follows from Stripe's answer.
    """
    await hold(conn, org_id)
    customer = await conn.fetchval(queries.paying_customer, org_id)
    amount = await available(conn, org_id)
    if customer is None or amount <= 0:
        return None
    parameters = {
        "customer": customer,
        "amount": to_minor(amount, USD),
        "amount_usd": f"{amount:f}",
        "currency": USD,
        "description": "Credit",
    }
    return await intents.record(conn, org_id, MOVE_CREDIT, parameters, now, turn=timedelta(0))


async def conclude_move(conn: Connection, intent: Intent, _: Json, now: datetime) -> None:
    """Note that Stripe has taken it over, in the transaction that keeps its answer."""
    await hold(conn, intent.org_id)
    moved = Entry(
        f"moved/{intent.intent_id}", "moved", -Decimal(intent.parameters["amount_usd"]),
        "taken over by Stripe's customer balance", BILLING, now,
    )  # fmt: skip
    await add(conn, intent.org_id, moved)


def entry_of(row: asyncpg.Record) -> Entry:
    """The entry in a row."""
    return Entry(**{name: row[name] for name in Entry.__dataclass_fields__})
