"""Who is billed by us: an invoice per month, once, without gaps in the numbers; paid in parts, too much, withdrawn."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest
from usage_closings import catalog_with_overage, close, do, explained

from aragora.chassis import store
from aragora.chassis.sql import Pool
from aragora.contracts.events import (
    InvoiceFinalized,
    InvoiceVoided,
    PaymentFailed,
    PaymentRecovered,
    PaymentReminderDue,
    PaymentSucceeded,
)
from billing import invoices, ledger, manual_invoice, manual_invoices
from billing.commands import Assign, Comp
from billing.due import settle_due
from billing.ledger import Entry
from billing.manual_invoices import NotPayable, Payment, UnknownInvoice, draw_up_due, record_payment, void
from billing.reflecting import DUNNING, reconsider
from billing.settings import read_catalog
from billing.subscriptions import publish_catalog

BEGIN = datetime(2026, 10, 1, tzinfo=UTC)
NOV_5, DEC_5 = datetime(2026, 11, 5, tzinfo=UTC), datetime(2026, 12, 5, tzinfo=UTC)
GRACE = timedelta(days=10)
WHO = "operator_1"


@pytest.fixture
async def pool(billing_database_url: str, tmp_path: Path) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(billing_database_url, min_size=1, max_size=10) as one:
        async with one.acquire() as connection:
            await publish_catalog(connection, read_catalog(catalog_with_overage(tmp_path)), now=BEGIN)
        yield one


async def bill(pool: Pool, org: str, starts_on: date = date(2026, 10, 1)) -> None:
    async with pool.acquire() as conn, conn.transaction():
        terms = manual_invoice.set_terms(None, starts_on, 14, json.dumps({"name": "Acme"}))
        await manual_invoices.save_terms(conn, org, terms, WHO, BEGIN)


async def credit(pool: Pool, org: str, amount: str, entry_id: str = "credit/1") -> None:
    async with pool.acquire() as conn, conn.transaction():
        await ledger.grant(conn, org, Entry(entry_id, "credit", Decimal(amount), "thanks", WHO, BEGIN))


async def balance(pool: Pool, org: str) -> Decimal:
    async with pool.acquire() as conn:
        return await ledger.balance(conn, org)


async def test_a_month_is_billed_once_by_many_workers(pool: Pool):
    for number in range(4):
        await do(pool, f"org_{number}", BEGIN, Assign("professional"))
        await bill(pool, f"org_{number}")
    assert sum(await asyncio.gather(*(draw_up_due(pool, NOV_5 - timedelta(seconds=1)) for _ in range(2)))) == 0
    assert sum(await asyncio.gather(*(draw_up_due(pool, NOV_5) for _ in range(5)))) == 4
    rows = await pool.fetch("SELECT org_id, number, total, status, due_at FROM invoices ORDER BY number")
    assert [row["number"] for row in rows] == [f"ARA-2026-00000{place}" for place in (1, 2, 3, 4)]
    assert {(row["total"], row["status"], row["due_at"]) for row in rows} == {
        (Decimal("299.00"), "open", NOV_5 + timedelta(days=14))
    }
    assert await draw_up_due(pool, NOV_5) == 0


async def test_a_crash_leaves_no_gap_and_no_second_invoice(pool: Pool, org: str, monkeypatch):
    await do(pool, org, BEGIN, Assign("professional"))
    await bill(pool, org)
    await credit(pool, org, "50")

    async def dies(*_: object, **__: object) -> None:
        raise ConnectionError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(invoices, "save", dies)
        with pytest.raises(ConnectionError):
            await draw_up_due(pool, NOV_5)
    assert await balance(pool, org) == 50
    assert await draw_up_due(pool, NOV_5) == 1
    (invoice,) = await explained(pool, org)
    assert (invoice.number, invoice.total, invoice.credited, invoice.amount_due) == (
        "ARA-2026-000001", Decimal("299.00"), Decimal(50), Decimal("249.00"),
    )  # fmt: skip
    assert await balance(pool, org) == 0


async def test_everything_on_one_invoice_is_explained(pool: Pool, org: str):
    await do(pool, org, BEGIN, Assign("starter"))
    await do(pool, org, datetime(2026, 10, 11, tzinfo=UTC), Assign("professional"))
    await do(pool, org, datetime(2026, 10, 21, tzinfo=UTC), Comp("enterprise", datetime(2026, 10, 26, tzinfo=UTC)))
    await settle_due(pool, NOV_5)
    await bill(pool, org, date(2026, 10, 6))
    await close(pool, org, "2026-10", NOV_5 - timedelta(days=1), {"debates": "205", "cost_usd": "40.10"})
    await draw_up_due(pool, NOV_5)
    (invoice,) = await explained(pool, org)
    # 5 of 31 days of 99; 10 and 6 of 31 of 299; five debates at 0.50; 0.10 of usage at 1.10
    assert [(line.rule, str(line.amount)) for line in invoice.lines] == [
        ("proration", "15.97"), ("proration", "96.45"), ("proration", "57.87"),
        ("overage", "0.11"), ("overage", "2.50"),
    ]  # fmt: skip
    assert invoice.total == Decimal("172.90")
    assert invoice.lines[1].explanation.text == (
        "Professional, version 1, at USD 299 a month, was in force from 11 October 2026 to 20 October 2026: 864,000 of "
        "the month's 2,678,400 seconds, which is USD 96.45, rounded once, half to even."
    )


async def test_months_that_were_missed_are_all_billed_and_an_empty_one_is_not(pool: Pool, org: str):
    await do(pool, org, BEGIN, Assign("starter"))
    await do(pool, org, datetime(2026, 11, 1, tzinfo=UTC), Assign("free"))
    await do(pool, org, datetime(2026, 12, 1, tzinfo=UTC), Assign("starter"))
    await bill(pool, org)
    assert await draw_up_due(pool, datetime(2027, 1, 20, tzinfo=UTC)) == 3
    billed = await explained(pool, org)
    assert {f"{one.period_start:%Y-%m}" for one in billed} == {"2026-10", "2026-12"}
    assert {one.number for one in billed} == {"ARA-2027-000001", "ARA-2027-000002"}


async def test_late_usage_waits_for_the_next_invoice_also_after_the_last_one(pool: Pool, org: str):
    await do(pool, org, BEGIN, Assign("professional"))
    await bill(pool, org)
    async with pool.acquire() as conn, conn.transaction():
        known = await manual_invoices.terms_of(conn, org)
        assert known is not None
        ended = manual_invoice.end_terms(known, date(2026, 11, 1))
        await manual_invoices.save_terms(conn, org, ended, WHO, BEGIN)
    await draw_up_due(pool, NOV_5)
    await close(pool, org, "2026-10", NOV_5 + timedelta(days=1), {"debates": "201"})
    assert await draw_up_due(pool, DEC_5 - timedelta(seconds=1)) == 0
    assert await draw_up_due(pool, DEC_5) == 1
    newest, first = await explained(pool, org)
    assert (first.total, newest.total) == (Decimal("299.00"), Decimal("0.50"))
    assert await draw_up_due(pool, DEC_5 + timedelta(days=200)) == 0


async def pay(pool: Pool, org: str, invoice_id: str, amount: str, reference: str) -> tuple[str, str, str]:
    async with pool.acquire() as conn:
        payment = Payment(invoice_id, Decimal(amount), reference, NOV_5.date())
        invoice, over = await record_payment(conn, org, payment, WHO, NOV_5, GRACE)
    return invoice.status, f"{invoice.amount_paid:.2f}", f"{over:.2f}"


async def test_payments_in_parts_twice_and_too_much(pool: Pool, org: str):
    await do(pool, org, BEGIN, Assign("starter"))
    await bill(pool, org)
    await draw_up_due(pool, NOV_5)
    (invoice,) = await explained(pool, org)
    assert await pay(pool, org, invoice.invoice_id, "40.00", "a") == ("open", "40.00", "0.00")
    results = await asyncio.gather(*(pay(pool, org, invoice.invoice_id, "60.00", "b") for _ in range(4)))
    assert set(results) == {("paid", "99.00", "1.00")}
    assert await pay(pool, org, invoice.invoice_id, "40.00", "a") == ("paid", "99.00", "0.00")
    assert await balance(pool, org) == 1
    with pytest.raises(NotPayable, match="Another payment has the reference a"):
        await pay(pool, org, invoice.invoice_id, "41.00", "a")
    with pytest.raises(UnknownInvoice):
        await pay(pool, org, "inv_no", "41.00", "c")
    with pytest.raises(UnknownInvoice):
        await pay(pool, "org_other", invoice.invoice_id, "41.00", "c")
    async with pool.acquire() as conn:
        _, said = await store.load(conn, f"invoice/{invoice.invoice_id}", org_id=org)
        with pytest.raises(NotPayable, match="is paid and stays so"):
            await void(conn, org, invoice.invoice_id, WHO, NOV_5, GRACE)
    assert [type(event) for event in said] == [InvoiceFinalized, PaymentSucceeded]
    history = await pool.fetch("SELECT kind, amount FROM billing_history WHERE org_id = $1 ORDER BY kind, amount", org)
    assert [(row["kind"], row["amount"]) for row in history] == [
        ("credit", 1), ("invoice", 99), ("payment", 40), ("payment", 60),
    ]  # fmt: skip


async def test_a_withdrawn_invoice_gives_everything_back(pool: Pool, org: str):
    await do(pool, org, BEGIN, Assign("professional"))
    await bill(pool, org)
    await credit(pool, org, "100")
    await close(pool, org, "2026-10", NOV_5 - timedelta(days=1), {"debates": "210"})
    await draw_up_due(pool, NOV_5)
    (invoice,) = await explained(pool, org)
    assert (invoice.total, invoice.amount_due) == (Decimal("304.00"), Decimal("204.00"))
    await pay(pool, org, invoice.invoice_id, "4.00", "a")
    async with pool.acquire() as conn:
        for _ in range(2):
            assert (await void(conn, org, invoice.invoice_id, WHO, NOV_5, GRACE)).status == "void"
        _, said = await store.load(conn, f"invoice/{invoice.invoice_id}", org_id=org)
    assert [type(event) for event in said] == [InvoiceFinalized, InvoiceVoided]
    assert await balance(pool, org) == 104
    with pytest.raises(NotPayable, match="is void"):
        await pay(pool, org, invoice.invoice_id, "4.00", "b")
    await draw_up_due(pool, DEC_5)
    newest, _ = await explained(pool, org)
    assert [line.rule for line in newest.lines] == ["plan", "overage"]
    assert (newest.total, newest.credited) == (Decimal("304.00"), Decimal(104))


async def test_an_invoice_that_is_not_paid_when_it_is_due_is_dunned_until_it_is(pool: Pool, org: str):
    await do(pool, org, BEGIN, Assign("starter"))
    await bill(pool, org)
    await draw_up_due(pool, NOV_5)
    due_at = NOV_5 + timedelta(days=14)
    for moment in (due_at - timedelta(seconds=1), due_at, due_at + timedelta(hours=1)):
        async with pool.acquire() as conn, conn.transaction():
            await reconsider(conn, org, now=moment, grace=GRACE)
    (invoice,) = await explained(pool, org)
    await pay(pool, org, invoice.invoice_id, "98.99", "a")
    await pay(pool, org, invoice.invoice_id, "0.01", "b")
    async with pool.acquire() as conn:
        _, said = await store.load(conn, DUNNING, org_id=org)
    assert [type(event) for event in said] == [PaymentFailed, PaymentReminderDue, PaymentRecovered]
    assert isinstance(said[0], PaymentFailed)
    assert (said[0].failed_at, said[0].grace_ends_at) == (due_at, due_at + GRACE)
