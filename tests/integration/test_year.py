"""A year of nine organizations with Stripe's clock: every invoice equals the table that was computed by hand."""

import os
import random
from collections.abc import AsyncIterator
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import pytest
from paying_world import PRICES, StripeWorld, stripe_world
from usage_closings import catalog_with_overage, explained
from year_stories import BEGIN, END, STORIES, live_through
from year_table import Line, Row, datetime_of, invoices_of

from billing.invoice_answers import Invoice, InvoiceLine, Usage
from standalone.stripe_simulator import control
from standalone.stripe_simulator.simulator import running_simulator

SEED = int(os.environ.get("ARAGORA_TEST_SEED", "20270131"))
CENT = Decimal("0.01")
OVERAGE = {"debates": (Decimal(200), Decimal("0.50")), "cost_usd": (Decimal(40), Decimal("1.10"))}
"""What Professional includes, and what one beyond it costs."""


@pytest.fixture
async def world(billing_database_url: str, tmp_path: Path) -> AsyncIterator[StripeWorld]:
    catalog = catalog_with_overage(tmp_path)
    async with (
        running_simulator(now=BEGIN) as simulator,
        stripe_world(billing_database_url, simulator, catalog=catalog) as found,
    ):
        yield found


async def test_a_quarter(world: StripeWorld):
    await live_and_compare(world, ["month-ends", "up-and-down", "fails", "metered", "by-hand"], "2027-04-14")


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("turn", range(3))
async def test_the_year(world: StripeWorld, turn: int):
    await live_and_compare(world, list(STORIES), f"{END:%Y-%m-%d}", SEED + turn)


async def live_and_compare(world: StripeWorld, orgs: list[str], until: str, seed: int = SEED) -> None:
    print(f"seed {seed}")
    await live_through(world, orgs, datetime_of(until), random.Random(seed))
    for org in orgs:
        found = sorted(await explained(world.pool, org), key=lambda one: one.created_at)
        expected = [row for row in invoices_of(org) if row.at < datetime_of(until)]
        assert [await row_of(world, org, one) for one in found] == expected, org
        for invoice in found:
            for line in invoice.lines:
                assert_explained(invoice, line)
        await assert_as_at_stripe(world, org)
    assert set(control.charges_per_invoice(world.simulator.world).values()) <= {0, 1}
    unfinished = await world.pool.fetch(
        "SELECT event_id, state, reason FROM stripe_events WHERE state NOT IN ('handled', 'ignored') "
        "UNION ALL SELECT intent_id, state, kind FROM stripe_intents WHERE state <> 'done'"
    )
    assert not unfinished


async def row_of(world: StripeWorld, org: str, invoice: Invoice) -> Row:
    """The row that the table has, if billing is right."""
    lines = []
    for one in invoice.lines:
        usage, price = one.explanation.usage, one.explanation.price
        what = usage.meter if usage else (price and price.plan) or "?"
        lines.append(Line(one.rule, what, one.amount, usage.used if usage else None))
    query = "SELECT attempts, amount_refunded FROM invoices WHERE org_id = $1 AND invoice_id = $2"
    ((attempts, refunded),) = await world.pool.fetch(query, org, invoice.invoice_id)
    return Row(
        invoice.created_at, tuple(sorted(lines, key=str)), invoice.total, invoice.credited, invoice.amount_due,
        invoice.status, invoice.paid_at, attempts, refunded,
    )  # fmt: skip


def assert_explained(invoice: Invoice, line: InvoiceLine) -> None:
    """That the explanation names the rule, the version of the plan and the figures, and that they make the amount."""
    said, price = line.explanation, line.explanation.price
    assert price is not None
    assert price.version == 1
    assert line.period_start is not None
    assert line.period_end is not None
    if line.rule == "overage":
        assert_usage_explained(said.usage)
        return
    assert price.plan is not None
    monthly = Decimal(PRICES[price.plan]).scaleb(-2)
    assert price.price == monthly
    assert f"{abs(line.amount):,.2f}" in said.text
    assert price.plan.title() in said.text
    if line.rule == "plan":
        assert line.amount == monthly
        assert "version 1" in said.text
    elif invoice.collected_by == "operator":
        assert said.share is not None
        share = monthly * said.share.microseconds / said.share.of_microseconds
        assert share.quantize(CENT, ROUND_HALF_EVEN) == line.amount
        assert "version 1" in said.text
    else:
        assert price.stripe_price_id == f"price_{price.plan}"
        assert "in proportion to the time" in said.text


def assert_usage_explained(usage: Usage | None) -> None:
    assert usage is not None
    included, price = OVERAGE[usage.meter]
    assert usage.included == included
    assert usage.charged_quantity == usage.used - included
    assert usage.exact_usd == (usage.used - included) * price
    assert usage.amount_usd == usage.exact_usd.quantize(CENT, ROUND_HALF_EVEN) - usage.charged_before_usd
    assert (usage.usage_events, usage.usage_digest) == (100 * usage.sequence, f"{usage.sequence:064x}")


async def assert_as_at_stripe(world: StripeWorld, org: str) -> None:
    """That billing has every invoice that Stripe has, as Stripe has it, and what was charged is what was paid."""
    stripe = world.simulator.world
    customers = [one["id"] for one in stripe.table("customer").values() if one["metadata"].get("org_id") == org]
    theirs = {
        one["id"]: (
            one["number"], one["status"], one["total"], one["amount_due"], one["amount_paid"], one["attempt_count"],
            sorted(line["amount"] for line in one["lines"]["data"]),
        )
        for one in stripe.table("invoice").values() if one["customer"] in customers
    }  # fmt: skip
    rows = await world.pool.fetch(
        "SELECT i.invoice_id, number, status, (total * 100)::int, (amount_due * 100)::int, (amount_paid * 100)::int, "
        "attempts, array_agg((l.amount * 100)::int ORDER BY l.amount) FROM invoices AS i "
        "JOIN invoice_lines AS l USING (org_id, invoice_id) WHERE org_id = $1 AND collected_by = 'stripe' "
        "GROUP BY org_id, invoice_id",
        org,
    )
    assert {row[0]: tuple(row)[1:] for row in rows} == theirs
    charges = [one for one in stripe.table("charge").values() if one["customer"] in customers and one["paid"]]
    paid, refunded = sum(one["amount"] for one in charges), sum(one["amount_refunded"] for one in charges)
    (sums,) = await world.pool.fetch(
        "SELECT coalesce(sum(amount_paid * 100), 0)::int, coalesce(sum(amount_refunded * 100), 0)::int "
        "FROM invoices WHERE org_id = $1 AND collected_by = 'stripe'",
        org,
    )
    assert tuple(sums) == (paid, refunded)
