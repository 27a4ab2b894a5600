"""Credits and coupons: each once, never more than there is, and at Stripe for those who pay there."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from paying_world import StripeWorld, stripe_world

from aragora.contracts.events import CreditGranted
from billing import coupons, ledger
from billing.coupons import Coupon, CouponExists, NotRedeemable, UnknownCoupon
from billing.ledger import Entry
from standalone.stripe_simulator.faults import Fault
from standalone.stripe_simulator.simulator import running_simulator

BEGIN = datetime(2026, 10, 10, 9, tzinfo=UTC)
WHO = "operator_1"


@pytest.fixture
async def world(billing_database_url: str) -> AsyncIterator[StripeWorld]:
    async with running_simulator(now=BEGIN) as simulator, stripe_world(billing_database_url, simulator) as found:
        yield found


async def grant(world: StripeWorld, org: str, amount: str, name: str = "1") -> bool:
    async with world.pool.acquire() as conn, conn.transaction():
        entry = Entry(f"credit/{name}", "credit", Decimal(amount), "sorry", WHO, world.now)
        return await ledger.grant(conn, org, entry)


async def balances(world: StripeWorld, org: str) -> tuple[str, str]:
    """What there is, and what of it is free."""
    async with world.pool.acquire() as conn:
        return f"{await ledger.balance(conn, org):.2f}", f"{await ledger.available(conn, org):.2f}"


async def create(world: StripeWorld, coupon: Coupon) -> None:
    async with world.pool.acquire() as conn, conn.transaction():
        await coupons.create(conn, coupon, WHO, world.now)


async def redeem(world: StripeWorld, org: str, code: str = "WELCOME") -> Any:
    async with world.pool.acquire() as conn:
        try:
            return (await coupons.redeem(conn, org, code, "user_1", world.now)).amount
        except (NotRedeemable, UnknownCoupon) as refused:
            return type(refused)


async def test_a_credit_is_granted_once_and_said_once(world: StripeWorld, org: str):
    assert sorted(await asyncio.gather(*(grant(world, org, "12.50") for _ in range(4)))) == [False, False, False, True]
    assert await balances(world, org) == ("12.50", "12.50")
    (said,) = await world.said(org, CreditGranted)
    assert isinstance(said, CreditGranted)
    assert (said.amount, said.source, said.entry_id) == (Decimal("12.50"), "operator", "credit/1")


async def test_the_ledger_is_only_added_to(world: StripeWorld, org: str):
    await grant(world, org, "1")
    for change in ("UPDATE ledger_entries SET amount = 2", "DELETE FROM ledger_entries"):
        with pytest.raises(Exception, match="append-only"):
            await world.pool.execute(change)


async def test_who_pays_through_stripe_has_the_credit_there(world: StripeWorld, org: str):
    await world.enroll(org)
    await grant(world, org, "20.00")
    await world.settle()
    assert await balances(world, org) == ("20.00", "20.00")
    await world.subscribe(org)
    await world.deliver_all()
    async with world.pool.acquire() as conn, conn.transaction():
        await ledger.move_to_stripe(conn, org, world.now)
    assert await balances(world, org) in (("20.00", "0.00"), ("0.00", "0.00"))
    await world.settle()
    assert await balances(world, org) == ("0.00", "0.00")
    await grant(world, org, "5.00", "2")
    world.simulator.faults.ordered.append(Fault(times=2, path="/v1/customers", status=500, acts=True))
    for _ in range(4):
        await world.settle()
        assert (await balances(world, org))[1] == "0.00"
        await world.advance(timedelta(minutes=3))
    assert await balances(world, org) == ("0.00", "0.00")
    (customer,) = world.simulator.world.table("customer").values()
    assert customer["balance"] == -2500
    await world.live(timedelta(days=32), timedelta(days=4))
    rows = await world.pool.fetch("SELECT total, credited, amount_due FROM invoices WHERE org_id = $1 ORDER BY 2", org)
    assert [tuple(row) for row in rows] == [(299, 0, 299), (299, 25, 274)]


async def test_what_stripe_refuses_stays_here(world: StripeWorld, org: str):
    await world.enroll(org)
    await world.subscribe(org)
    await world.deliver_all()
    await world.pool.execute("UPDATE stripe_customers SET customer_id = 'cus_gone'")
    await grant(world, org, "20.00")
    assert await balances(world, org) == ("20.00", "0.00")
    await world.settle()
    assert await balances(world, org) == ("20.00", "20.00")


async def test_a_coupon_is_redeemed_once_by_each_and_not_after_the_last(world: StripeWorld):
    await create(world, Coupon("WELCOME", Decimal(10), 3, None))
    results = await asyncio.gather(*(redeem(world, f"org_{number % 6}") for number in range(12)))
    assert sorted(map(str, results)) == sorted(map(str, [Decimal(10)] * 3 + [NotRedeemable] * 9))
    found = await world.pool.fetchrow("SELECT count(*), sum(amount) FROM ledger_entries")
    assert tuple(found or ()) == (3, 30)
    async with world.pool.acquire() as conn:
        assert (await coupons.read(conn, "WELCOME")).redemptions == 3
        assert [one.code for one in await coupons.latest(conn, 10)] == ["WELCOME"]


async def test_coupons_that_are_no_good(world: StripeWorld):
    await create(world, Coupon("UNTIL", Decimal(10), None, world.now + timedelta(days=1)))
    assert await redeem(world, "org_a", "NOSUCH") is UnknownCoupon
    assert await redeem(world, "org_a", "UNTIL") == 10
    assert await redeem(world, "org_a", "UNTIL") is NotRedeemable
    await create(world, Coupon("UNTIL", Decimal(10), None, world.now + timedelta(days=1)))
    with pytest.raises(CouponExists):
        await create(world, Coupon("UNTIL", Decimal(11), None, world.now + timedelta(days=1)))
    await world.advance(timedelta(days=1))
    assert await redeem(world, "org_b", "UNTIL") is NotRedeemable
