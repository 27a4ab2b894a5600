"""Usage beyond a plan becomes lines of Stripe's invoices: each once, whatever comes when, and every cent explained."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from paying_world import StripeWorld, stripe_world
from usage_closings import catalog_with_overage, charged, close, closed, do, explained, reasons

from aragora.contracts.events import BillingAttentionNeeded
from billing.commands import Assign, Comp, Enroll, Trial
from billing.usage_periods import follow_metering
from standalone.stripe_simulator.faults import Fault
from standalone.stripe_simulator.simulator import running_simulator

BEGIN = datetime(2026, 10, 10, 9, tzinfo=UTC)
CLOSES = datetime(2026, 11, 4, tzinfo=UTC)
OCTOBER = "2026-10"


@pytest.fixture
async def world(billing_database_url: str, tmp_path: Path) -> AsyncIterator[StripeWorld]:
    catalog = catalog_with_overage(tmp_path)
    async with (
        running_simulator(now=BEGIN) as simulator,
        stripe_world(billing_database_url, simulator, catalog=catalog) as found,
    ):
        yield found


async def pay(world: StripeWorld, org: str) -> None:
    await world.enroll(org)
    await world.subscribe(org)
    await world.deliver_all()


def items(world: StripeWorld) -> list[dict[str, Any]]:
    return [one for one in world.simulator.world.table("invoiceitem").values() if one["metadata"].get("charge_id")]


async def test_a_line_of_the_next_invoice_and_what_explains_it(world: StripeWorld, org: str):
    await pay(world, org)
    await world.live(CLOSES - BEGIN, timedelta(days=5))
    totals = {"debates": "212", "cost_usd": "41.288125", "tokens": "5120344"}
    await close(world.pool, org, OCTOBER, CLOSES, totals)
    await close(world.pool, org, OCTOBER, CLOSES, totals)
    assert await charged(world.pool, org) == [(OCTOBER, 1, "cost_usd", "1.42"), (OCTOBER, 1, "debates", "6.00")]
    await world.settle()
    assert sorted(one["amount"] for one in items(world)) == [142, 600]
    await world.live(timedelta(days=8), timedelta(days=1))
    newest, first = await explained(world.pool, org)
    assert (first.total, newest.total) == (Decimal("299.00"), Decimal("306.42"))
    by_meter = {line.explanation.usage.meter: line for line in newest.lines if line.explanation.usage}
    assert by_meter["debates"].explanation.text == (
        "In October 2026 212 debates were used, by 100 usage events. Professional, version 1, includes 200; the 12 "
        "beyond it cost USD 0.50 each: exactly USD 6.00 for the whole month, rounded once, half to even: USD 6.00."
    )
    usage = by_meter["cost_usd"].explanation.usage
    assert usage is not None
    assert (usage.exact_usd, usage.usage_digest) == (Decimal("1.4169375"), f"{1:064x}")
    plan = next(line for line in newest.lines if line.rule == "plan")
    assert plan.explanation.text.startswith("The price of Professional, version 1, for a whole period from 10 November")


async def test_closings_in_any_order_and_any_number_add_up_to_the_same(world: StripeWorld):
    totals = {1: "210", 2: "210.5", 3: "251"}
    for number, order in enumerate(itertools.permutations([1, 2, 3, 3, 1], 5)):
        if number % 12:
            continue
        org = f"org_{number}"
        await pay_at_once(world, org)
        for sequence in order:
            await close(world.pool, org, OCTOBER, CLOSES, {"debates": totals[sequence]}, sequence=sequence)
        assert sum(Decimal(amount) for *_, amount in await charged(world.pool, org)) == Decimal("25.50")


async def pay_at_once(world: StripeWorld, org: str) -> None:
    """As if it paid through Stripe: what was asked there is not the question."""
    await do(world.pool, org, BEGIN, Assign("professional"))
    await world.pool.execute(
        "INSERT INTO stripe_subscriptions (org_id, subscription_id, customer_id, status, created_at, reflected_at) "
        "VALUES ($1, 'sub_' || $1, 'cus_' || $1, 'active', $2, $2)", org, BEGIN,
    )  # fmt: skip


async def test_many_workers_charge_a_month_once(world: StripeWorld, org: str):
    await pay_at_once(world, org)
    message = closed(org, OCTOBER, CLOSES, {"debates": "220"})
    await asyncio.gather(*(follow_metering(world.pool, [message], CLOSES) for _ in range(6)))
    assert await charged(world.pool, org) == [(OCTOBER, 1, "debates", "10.00")]
    assert await world.pool.fetchval("SELECT count(*) FROM stripe_intents WHERE org_id = $1", org) == 1


async def test_late_usage_is_a_line_of_the_next_invoice(world: StripeWorld, org: str):
    await pay(world, org)
    await world.live(CLOSES - BEGIN, timedelta(days=5))
    await close(world.pool, org, OCTOBER, CLOSES, {"debates": "220"})
    await world.live(timedelta(days=20), timedelta(days=4))
    await close(world.pool, org, OCTOBER, world.now, {"debates": "223"}, sequence=2)
    await world.live(timedelta(days=20), timedelta(days=4))
    newest, second, _ = await explained(world.pool, org)
    assert [invoice.total for invoice in (newest, second)] == [Decimal("300.50"), Decimal("309.00")]
    (late,) = [line for line in newest.lines if line.explanation.usage]
    assert late.explanation.text.endswith("USD 10.00 of it was charged before: this line is the rest, USD 1.50.")


async def test_who_has_left_is_invoiced_at_once(world: StripeWorld, org: str):
    await pay(world, org)
    (subscription,) = world.simulator.world.table("subscription").values()
    await world.advance(timedelta(days=10))
    await world.payments.gateway.cancel_subscription("key", subscription["id"])
    await world.deliver_all()
    assert (await world.subscription(org))["plan"] == "free"
    await world.advance(CLOSES)
    await close(world.pool, org, OCTOBER, world.now, {"debates": "230"})
    assert await reasons(world.pool, org) == ["It pays through Stripe."]
    await world.live(timedelta(hours=3), timedelta(hours=1))
    newest, _ = await explained(world.pool, org)
    assert (newest.total, newest.status) == (Decimal("15.00"), "paid")
    assert not await world.pool.fetchval("SELECT count(*) FROM usage_charges WHERE invoice_id IS NULL")


@pytest.mark.parametrize("acts", [True, False])
async def test_stripe_fails_in_the_middle(world: StripeWorld, org: str, acts: bool):  # noqa: FBT001 - a parameter
    await pay(world, org)
    await world.advance(CLOSES)
    await close(world.pool, org, OCTOBER, world.now, {"debates": "220"})
    world.simulator.faults.ordered.append(Fault(times=3, path="/v1/invoiceitems", status=500, acts=acts))
    for _ in range(6):
        await world.settle()
        await world.advance(timedelta(minutes=5))
    assert [one["amount"] for one in items(world)] == [1000]
    assert not await world.pool.fetchval("SELECT count(*) FROM stripe_intents WHERE state = 'pending'")


async def test_nobody_is_charged_for_what_is_free(world: StripeWorld):
    await do(world.pool, "org_free", BEGIN, Enroll())
    await do(world.pool, "org_given", BEGIN, Assign("professional"))
    await do(world.pool, "org_comp", BEGIN, Comp("professional"))
    await do(world.pool, "org_trial", BEGIN, Trial("professional", 60))
    await do(world.pool, "org_late", CLOSES, Enroll())
    said = {}
    for org in ("org_free", "org_given", "org_comp", "org_trial", "org_late"):
        await close(world.pool, org, OCTOBER, CLOSES, {"debates": "500"})
        assert await charged(world.pool, org) == []
        said[org] = (await reasons(world.pool, org))[0]
    assert said == {
        "org_free": "Free has no price for what goes beyond it.",
        "org_given": "Nobody pays for Professional: an operator gave it, without terms of billing.",
        "org_comp": "It had Professional free of charge.",
        "org_trial": "It had Professional free of charge.",
        "org_late": "It had no plan in this month.",
    }


async def test_usage_without_a_price_is_for_an_operator(world: StripeWorld, org: str):
    await pay_at_once(world, org)
    message = closed(org, OCTOBER, CLOSES, {"cost_usd": "50"}, unpriced=3)
    await follow_metering(world.pool, [message, message], CLOSES)
    assert await charged(world.pool, org) == [(OCTOBER, 1, "cost_usd", "11.00")]
    (needed,) = await world.said(org, BillingAttentionNeeded)
    assert isinstance(needed, BillingAttentionNeeded)
    assert needed.kind == "unpriced_usage"
