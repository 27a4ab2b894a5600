"""Invoices as rows, with the events they give rise to. Every write of an invoice is here."""

from collections.abc import Sequence
from dataclasses import astuple
from datetime import datetime
from decimal import Decimal

import asyncpg

from aragora.chassis import sql, store
from aragora.chassis.sql import Connection
from billing import invoice as domain
from billing.invoice import Invoice, Line, Told

queries = sql.load("billing", "sql/invoices.sql")


def stream_of(invoice_id: str) -> str:
    """The stream of an invoice."""
    return f"invoice/{invoice_id}"


async def save(
    conn: Connection, org_id: str, invoice: Invoice, *, now: datetime, causation_id: str | None = None
) -> None:
    """Keep an invoice as it stands now, with its lines, and say what is new. In the caller's transaction.

    Whoever saves keeps others from saving an earlier state after it: by the organization's turn, or by the row.
    """
    await store.decide_and_append(
        conn, stream_of(invoice.invoice_id), lambda told: domain.decide(told, invoice), domain.evolve, Told(),
        org_id=org_id, occurred_at=now, causation_id=causation_id,
    )  # fmt: skip
    await conn.execute(queries.save_invoice, *_row(org_id, invoice))
    await conn.execute(queries.drop_lines, org_id, invoice.invoice_id, [line.line_id for line in invoice.lines])
    if invoice.lines:
        await conn.executemany(
            queries.save_line,
            [(org_id, invoice.invoice_id, place, *_line_row(line)) for place, line in enumerate(invoice.lines)],
        )
    if invoice.status == "void" and invoice.collected_by == "operator":
        await conn.execute(queries.release_charges, org_id, invoice.invoice_id)
    elif charge_ids := [line.charge_id for line in invoice.lines if line.charge_id]:
        await conn.execute(queries.bind_charges, org_id, invoice.invoice_id, charge_ids)


async def note_refund(conn: Connection, org_id: str, invoice_id: str, refunded: Decimal, *, now: datetime) -> None:
    """Note how much of an invoice has gone back in all. In the caller's transaction."""
    row = await conn.fetchrow(queries.note_refund, org_id, invoice_id, refunded)
    if row is None:
        return
    currency = row["currency"]
    await store.decide_and_append(
        conn, stream_of(invoice_id), lambda told: domain.decide_refund(told, invoice_id, currency, refunded),
        domain.evolve, Told(), org_id=org_id, occurred_at=now,
    )  # fmt: skip


async def load(conn: Connection, org_id: str, invoice_id: str) -> Invoice | None:
    """An invoice with its lines, or None."""
    row = await conn.fetchrow(queries.invoice, org_id, invoice_id)
    if row is None:
        return None
    return invoice_of(row, await conn.fetch(queries.lines_of, org_id, invoice_id))


def invoice_of(row: asyncpg.Record, lines: Sequence[asyncpg.Record] = ()) -> Invoice:
    """The invoice in a row, with the lines in these."""
    columns = {name: row[name] for name in Invoice.__dataclass_fields__ if name not in ("lines", "needs_action")}
    return Invoice(**columns, lines=tuple(Line(**{name: line[name] for name in _LINE}) for line in lines))


_LINE = tuple(Line.__dataclass_fields__)


def _line_row(line: Line) -> tuple[object, ...]:
    return astuple(line)


def _row(org_id: str, invoice: Invoice) -> tuple[object, ...]:
    return (
        org_id, invoice.invoice_id, invoice.collected_by, invoice.number, invoice.status, invoice.currency,
        invoice.subtotal, invoice.total, invoice.credited, invoice.amount_due, invoice.amount_paid, invoice.attempts,
        invoice.next_attempt_at, invoice.period_start, invoice.period_end, invoice.created_at, invoice.finalized_at,
        invoice.due_at, invoice.paid_at, invoice.subscription_id, invoice.payment_intent_id, invoice.hosted_url,
        invoice.pdf_url, invoice.billed_to,
    )  # fmt: skip
