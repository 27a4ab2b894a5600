"""What is odd, lost or somebody else's: kept, told to operators, repaired; and nobody gets a plan by it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from paying_world import StripeWorld, stripe_world

from aragora.contracts.events import BillingAttentionNeeded, PaymentDisputed, PaymentRefunded
from billing import reconciling, stripe_following
from standalone.stripe_simulator import catalogue, control, payments
from standalone.stripe_simulator.calls import call
from standalone.stripe_simulator.faults import Fault
from standalone.stripe_simulator.simulator import running_simulator

BEGIN = datetime(2026, 3, 10, 9, tzinfo=UTC)


@pytest.fixture
async def world(billing_database_url: str) -> AsyncIterator[StripeWorld]:
    async with running_simulator(now=BEGIN) as simulator, stripe_world(billing_database_url, simulator) as found:
        yield found


async def plan_of(world: StripeWorld, org: str) -> str:
    return str((await world.subscription(org))["plan"])


async def attention(world: StripeWorld, org_id: str) -> list[str]:
    found = await world.said(org_id, BillingAttentionNeeded)
    return [event.kind for event in found if isinstance(event, BillingAttentionNeeded)]


async def states(world: StripeWorld) -> set[tuple[str, str | None]]:
    return {(row["state"], row["reason"]) for row in await world.pool.fetch("SELECT state, reason FROM stripe_events")}


def elsewhere(world: StripeWorld, price: str = "price_professional", **metadata: str) -> dict[str, Any]:
    """Somebody made a subscription in Stripe's dashboard."""
    card = {"payment_method": "pm_card_visa", "invoice_settings": {"default_payment_method": "pm_card_visa"}}
    customer = call(world.simulator.world, "POST", "/v1/customers", card)
    wanted = {"customer": customer["id"], "items": [{"price": price}], "metadata": metadata}
    return call(world.simulator.world, "POST", "/v1/subscriptions", wanted)


async def test_webhooks_that_never_came_are_found_in_stripes_list(world: StripeWorld, org: str):
    await world.enroll(org)
    await world.subscribe(org)
    assert await reconciling.read_lost_events(world.payments, world.now) > 3
    await world.settle()
    assert await plan_of(world, org) == "professional"
    assert await reconciling.read_lost_events(world.payments, world.now) == 0


async def test_a_comparison_repairs_what_even_stripes_list_has_forgotten(world: StripeWorld, org: str):
    await world.enroll(org)
    await world.subscribe(org)
    found = await reconciling.reconcile(world.payments, world.now)
    assert (found.subscriptions, found.repaired, found.unknown) == (1, (org,), ())
    assert await plan_of(world, org) == "professional"
    assert (await reconciling.reconcile(world.payments, world.now)).repaired == ()
    (subscription,) = world.simulator.world.table("subscription")
    call(world.simulator.world, "DELETE", f"/v1/subscriptions/{subscription}")
    assert (await reconciling.reconcile(world.payments, world.now)).repaired == (org,)
    assert await plan_of(world, org) == "free"


async def test_two_workers_reconcile_in_turns_and_not_more_often_than_needed(world: StripeWorld, org: str):
    await world.enroll(org)
    await world.subscribe(org)
    for _ in range(3):
        await reconciling.reconcile_when_due(world.payments, world.now)
    assert world.simulator.calls.counts["GET /v1/events"] == 1
    await world.advance(timedelta(minutes=11))
    await reconciling.reconcile_when_due(world.payments, world.now)
    assert world.simulator.calls.counts["GET /v1/events"] == 2


async def test_a_subscription_from_the_dashboard_counts_by_what_stripe_says_of_it(world: StripeWorld, org: str):
    await world.enroll(org)
    elsewhere(world, org_id=org)
    await world.deliver_all()
    assert await plan_of(world, org) == "professional"


@pytest.mark.parametrize("metadata", [{}, {"org_id": "org_nobody_knows"}, {"org_id": "x' OR 'x'='x"}], ids=repr)
async def test_nobodys_payment_is_kept_and_told_of(world: StripeWorld, org: str, metadata: dict[str, str]):
    await world.enroll(org)
    elsewhere(world, **metadata)
    await world.deliver_all()
    assert await plan_of(world, org) == "free"
    assert ("unresolved", "unknown_organization") in await states(world)
    await stripe_following.tell_of_unresolved(world.payments, world.now)
    assert await attention(world, "platform") == []  # another webhook may still say whose it is
    for _ in range(2):
        await stripe_following.tell_of_unresolved(world.payments, world.now + timedelta(minutes=6))
    told = await attention(world, "platform")
    assert set(told) == {"unknown_organization"}
    assert len(told) == await world.pool.fetchval("SELECT count(*) FROM stripe_events WHERE state = 'unresolved'")


async def test_what_waited_is_followed_once_it_is_known_whose_it_is(world: StripeWorld, org: str):
    await world.enroll(org)
    subscription = elsewhere(world)
    await world.deliver_all()
    assert await plan_of(world, org) == "free"
    call(world.simulator.world, "POST", f"/v1/subscriptions/{subscription['id']}", {"metadata": {"org_id": org}})
    await world.deliver_all()
    assert await plan_of(world, org) == "professional"
    assert not {state for state, _ in await states(world)} & {"pending", "unresolved"}


async def test_a_foreign_customer_is_not_taken_over(world: StripeWorld, org: str):
    await world.enroll(org)
    await world.subscribe(org, "starter")
    await world.deliver_all()
    elsewhere(world, "price_enterprise", org_id=org)  # another customer, who claims to be the same organization
    await world.deliver_all()
    assert await plan_of(world, org) == "starter"
    assert ("unresolved", "foreign_organization") in await states(world)
    mine = await world.customer_of(org)
    (subscription,) = world.simulator.world.where("subscription", customer=mine)
    assert subscription["status"] == "active"


async def test_an_unknown_price_grants_nothing(world: StripeWorld, org: str):
    await world.enroll(org)
    catalogue.put_price(world.simulator.world, "price_of_another_product", "Consulting", 100)
    elsewhere(world, "price_of_another_product", org_id=org)
    await world.deliver_all()
    assert await plan_of(world, org) == "free"
    assert await attention(world, org) == ["unknown_price"]


async def test_a_second_subscription_ends_and_is_told_of(world: StripeWorld, org: str):
    await world.enroll(org)
    await world.subscribe(org, "starter")
    await world.deliver_all()
    await world.advance(timedelta(hours=1))
    customer = await world.customer_of(org)
    (card,) = world.simulator.world.where("payment_method", customer=customer)
    wanted = {"customer": customer, "items": [{"price": "price_enterprise"}], "default_payment_method": card["id"]}
    call(world.simulator.world, "POST", "/v1/subscriptions", wanted)
    await world.deliver_all()
    assert await plan_of(world, org) == "starter"
    assert await attention(world, org) == ["second_subscription"]
    assert control.live_subscriptions(world.simulator.world) == {await world.customer_of(org): 1}


async def test_refunds_and_disputes_are_told_of_once(world: StripeWorld, org: str):
    await world.enroll(org)
    await world.subscribe(org)
    (charge,) = world.simulator.world.table("charge")
    call(world.simulator.world, "POST", "/v1/refunds", {"charge": charge, "amount": 10_000})
    refunded = [event for event in world.simulator.world.events if event["type"] == "charge.refunded"]
    await world.receive(*refunded)  # before anybody has heard of the invoice
    await world.settle()
    await world.deliver_all()
    (told,) = await world.said(org, PaymentRefunded)
    assert isinstance(told, PaymentRefunded)
    assert told.refunded == Decimal(100)
    dispute = payments.open_dispute(world.simulator.world, charge)
    await world.deliver_all()
    payments.close_dispute(world.simulator.world, dispute["id"], "lost")
    await world.deliver_all()
    disputes = await world.said(org, PaymentDisputed)
    assert [event.status for event in disputes if isinstance(event, PaymentDisputed)] == ["open", "lost"]
    assert await attention(world, org) == ["dispute"]
    history = await world.pool.fetch("SELECT kind, amount FROM billing_history WHERE org_id = $1 ORDER BY kind", org)
    assert [tuple(row) for row in history] == [
        ("invoice", Decimal(299)), ("payment", Decimal(299)), ("refund", Decimal(-100)),
    ]  # fmt: skip


async def test_a_deleted_customer_has_no_plan_and_may_come_again(world: StripeWorld, org: str):
    await world.enroll(org)
    await world.subscribe(org)
    await world.deliver_all()
    call(world.simulator.world, "DELETE", f"/v1/customers/{await world.customer_of(org)}")
    await world.deliver_all()
    assert await plan_of(world, org) == "free"
    assert await world.customer_of(org) is None
    await world.subscribe(org, "starter")
    await world.deliver_all()
    assert await plan_of(world, org) == "starter"


async def test_stripe_away_only_delays(world: StripeWorld, org: str):
    await world.enroll(org)
    await world.subscribe(org)
    await world.receive(*world.simulator.world.events)
    call_count = len(world.simulator.world.events)
    assert call_count
    for status in (429, 500, 503):
        world.simulator.faults.ordered.append(Fault(method="GET", path="/v1/subscriptions", status=status))
    for seconds in (0, 3, 9, 27):
        await stripe_following.follow_events(world.payments, world.now + timedelta(seconds=seconds))
    assert await plan_of(world, org) == "professional"


async def test_webhooks_are_forgotten_once_stripe_has_forgotten_them_too(world: StripeWorld, org: str):
    await world.enroll(org)
    await world.subscribe(org)
    await world.deliver_all()
    elsewhere(world)  # nobody's: kept until somebody says whose
    await world.deliver_all()
    before = await world.pool.fetchval("SELECT count(*) FROM stripe_events")
    await world.pool.execute(stripe_following.queries.forget_events, world.now - timedelta(seconds=1))
    assert await world.pool.fetchval("SELECT count(*) FROM stripe_events") == before
    await world.pool.execute(stripe_following.queries.forget_events, world.now + timedelta(days=35))
    assert {state for state, _ in await states(world)} == {"unresolved"}
