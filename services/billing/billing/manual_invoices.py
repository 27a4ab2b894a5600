"""Our own invoices, drawn up, paid and voided: each in one transaction, in which nobody else bills the organization.

The month that is due next is in the row of the terms, and goes on in the transaction that draws the invoice up: so
there is one invoice per month, however often a worker dies, and however many there are.
"""

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal

import structlog

from aragora.chassis import sql
from aragora.chassis.sql import Connection, Pool
from aragora.contracts.ids import new_id
from billing import invoices, ledger, manual_invoice, stretches, subscriptions
from billing.commands import Settle
from billing.invoice import Invoice
from billing.ledger import BILLING, Entry
from billing.manual_invoice import Terms
from billing.reflecting import reconsider
from billing.usage_periods import history_of
from billing.usage_periods import queries as charge_queries

BATCH = 100

queries = sql.load("billing", "sql/manual.sql")
_log = structlog.get_logger(__name__)


class UnknownInvoice(Exception):
    """The organization has no such invoice."""


class NotPayable(Exception):
    """This invoice takes no payment of an operator's, or cannot be voided. The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Payment:
    """Money that came for an invoice. `reference` (a bank's, say) names it: recorded again, it changes nothing."""

    invoice_id: str
    amount: Decimal
    reference: str
    paid_on: date


async def terms_of(conn: Connection, org_id: str) -> Terms | None:
    """The terms of an organization, those that have ended too; None: it never had any."""
    row = await conn.fetchrow(queries.terms_of, org_id)
    return None if row is None else Terms(**dict(row))


async def save_terms(conn: Connection, org_id: str, terms: Terms, set_by: str, now: datetime) -> None:
    """Keep the terms, in the caller's transaction and under `ledger.hold`."""
    await conn.execute(
        queries.save_terms, org_id, terms.starts_on, terms.ends_on, terms.net_days, terms.billed_to, terms.next_month,
        terms.due_at, set_by, now,
    )  # fmt: skip


async def draw_up_due(pool: Pool, now: datetime) -> int:
    """Draw up every invoice that is due by now, each in a transaction of its own. Returns how many months were done."""
    drawn = 0
    async with pool.acquire() as conn:
        while due := [row["org_id"] for row in await conn.fetch(queries.due_terms, now, BATCH)]:
            for org_id in due:
                async with conn.transaction():
                    drawn += await _draw_up_next(conn, org_id, now)
    return drawn


async def _draw_up_next(conn: Connection, org_id: str, now: datetime) -> bool:
    await ledger.hold(conn, org_id)
    terms = await terms_of(conn, org_id)
    if terms is None or terms.due_at is None or terms.due_at > now:
        return False  # another worker was here
    month = terms.next_month
    known = await subscriptions.load_plans(conn)
    await subscriptions.execute(conn, org_id, Settle(), known, now=now)
    had = stretches.stretches(await history_of(conn, org_id), *stretches.span_of(month))
    lines = manual_invoice.plan_lines(had, terms, month, known)
    for row in await conn.fetch(charge_queries.waiting_charges, org_id):
        plan_name = known.version(row["plan"], row["plan_version"]).name
        lines.append(manual_invoice.charge_line(row, plan_name))
    if lines:
        invoice_id = f"inv_{new_id().hex}"
        available = await ledger.available(conn, org_id)
        number = f"ARA-{now.year}-{await conn.fetchval(queries.next_number, now.year):06d}"
        invoice = manual_invoice.drawn_up(invoice_id, number, lines, available, terms, month, now)
        if invoice.credited:
            await _note_credited(conn, org_id, invoice, now)
        await invoices.save(conn, org_id, invoice, now=now)
        _log.info("invoice_drawn_up", org_id=org_id, month=month, invoice_id=invoice_id, lines=len(lines))
    else:
        _log.info("nothing_to_bill", org_id=org_id, month=month)
    then = manual_invoice.after(terms)
    await conn.execute(queries.go_on, org_id, then.next_month, then.due_at)
    return True


async def _note_credited(conn: Connection, org_id: str, invoice: Invoice, now: datetime) -> None:
    entry = Entry(
        f"applied/{invoice.invoice_id}", "applied" if invoice.credited > 0 else "credit", -invoice.credited,
        f"invoice {invoice.number}", BILLING, now, invoice_id=invoice.invoice_id,
    )  # fmt: skip
    await ledger.add(conn, org_id, entry)


async def record_payment(
    conn: Connection, org_id: str, payment: Payment, recorded_by: str, now: datetime, grace: timedelta
) -> tuple[Invoice, Decimal]:
    """Record a payment. Returns the invoice after it, and what was paid too much: that is credited.

    Once nothing is owed, the organization's dunning ends. `grace`: how long a grace period is.

    Raises:
        UnknownInvoice, NotPayable: nothing was done.
    """
    async with conn.transaction():
        await ledger.hold(conn, org_id)
        invoice = await _own(conn, org_id, payment.invoice_id)
        if invoice.status not in ("open", "paid"):
            raise NotPayable(f"The invoice is {invoice.status}: nothing is owed for it. Grant a credit instead.")
        entry = Entry(
            f"payment/{payment.reference}", "payment", payment.amount, f"paid {payment.paid_on}: {payment.reference}",
            recorded_by, now, invoice_id=invoice.invoice_id,
        )  # fmt: skip
        before = await ledger.find(conn, org_id, entry.entry_id)
        if before is not None:
            said = (before.amount, before.invoice_id, before.reason)
            if said != (entry.amount, entry.invoice_id, entry.reason):
                raise NotPayable(f"Another payment has the reference {payment.reference} already: choose its own one.")
            over = await ledger.find(conn, org_id, f"overpaid/{payment.reference}")
            return invoice, over.amount if over else Decimal(0)
        await ledger.add(conn, org_id, entry)
        then, over_usd = manual_invoice.paid(invoice, payment.amount, stretches.midnight(payment.paid_on))
        await invoices.save(conn, org_id, then, now=now)
        if over_usd:
            more = Entry(
                f"overpaid/{payment.reference}", "credit", over_usd, f"paid too much for invoice {invoice.number}",
                recorded_by, now, invoice_id=invoice.invoice_id,
            )  # fmt: skip
            await ledger.grant(conn, org_id, more)
        if not then.is_owed:
            await reconsider(conn, org_id, now=now, grace=grace)
    return then, over_usd


async def void(
    conn: Connection, org_id: str, invoice_id: str, recorded_by: str, now: datetime, grace: timedelta
) -> Invoice:
    """Withdraw one of our own invoices that is not paid: what was taken off it, and what was paid of it, is credited.

    Its charges for usage wait for the next invoice. Done again, it changes nothing.

    Raises:
        UnknownInvoice, NotPayable: nothing was done.
    """
    async with conn.transaction():
        await ledger.hold(conn, org_id)
        invoice = await _own(conn, org_id, invoice_id)
        if invoice.status == "void":
            return invoice
        if invoice.status != "open":
            raise NotPayable(f"The invoice is {invoice.status} and stays so. Grant a credit instead.")
        then = replace(invoice, status="void")
        await invoices.save(conn, org_id, then, now=now)
        of_it = f"invoice {invoice.number}, which was withdrawn"
        if invoice.credited:
            returned = Entry(
                f"returned/{invoice_id}", "returned", invoice.credited, of_it, recorded_by, now, invoice_id=invoice_id
            )
            await ledger.add(conn, org_id, returned)
        if invoice.amount_paid:
            back = Entry(
                f"paid-of/{invoice_id}", "credit", invoice.amount_paid, f"paid of {of_it}", recorded_by, now,
                invoice_id=invoice_id,
            )  # fmt: skip
            await ledger.grant(conn, org_id, back)
        await reconsider(conn, org_id, now=now, grace=grace)
    return then


async def _own(conn: Connection, org_id: str, invoice_id: str) -> Invoice:
    invoice = await invoices.load(conn, org_id, invoice_id)
    if invoice is None:
        raise UnknownInvoice(f"The organization has no invoice {invoice_id}.")
    if invoice.collected_by != "operator":
        raise NotPayable("Stripe collects this invoice: settle it there.")
    return invoice
