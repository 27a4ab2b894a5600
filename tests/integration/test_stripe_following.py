"""What follows from Stripe's webhooks: the whole way, from Stripe's state to what is in force here."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from paying_world import StripeWorld, stripe_world

from aragora.contracts.events import (
    EntitlementsChanged,
    GracePeriodExpired,
    InvoiceFinalized,
    PaymentActionRequired,
    PaymentFailed,
    PaymentRecovered,
    PaymentReminderDue,
    PaymentSucceeded,
)
from billing import paid_changes
from standalone.stripe_simulator import checkout as stripe_checkout
from standalone.stripe_simulator.calls import call
from standalone.stripe_simulator.simulator import running_simulator

BEGIN = datetime(2026, 3, 10, 9, tzinfo=UTC)


@pytest.fixture
async def world(billing_database_url: str) -> AsyncIterator[StripeWorld]:
    async with running_simulator(now=BEGIN) as simulator, stripe_world(billing_database_url, simulator) as found:
        yield found


async def test_who_pays_gets_the_plan(world: StripeWorld, org: str):
    await world.enroll(org)
    await world.subscribe(org)
    assert (await world.subscription(org))["plan"] == "free"
    await world.deliver_all()
    row = await world.subscription(org)
    assert (row["plan"], row["status"]) == ("professional", "active")
    entitled = await world.said(org, EntitlementsChanged)
    assert [event.plan for event in entitled if isinstance(event, EntitlementsChanged)] == ["free", "professional"]
    (finalized,) = await world.said(org, InvoiceFinalized)
    (paid,) = await world.said(org, PaymentSucceeded)
    assert isinstance(finalized, InvoiceFinalized)
    assert isinstance(paid, PaymentSucceeded)
    assert finalized.total == paid.amount == Decimal("299.00")
    before = await world.said(org)
    await world.pool.execute("UPDATE stripe_events SET state = 'pending'")
    await world.settle()
    assert await world.said(org) == before


async def test_a_failed_renewal_is_dunned_and_ends_in_the_default_plan(world: StripeWorld, org: str):
    await world.enroll(org)
    await world.subscribe(org)
    await world.deliver_all()
    await world.card_of(org, "generic_decline")
    await world.live(timedelta(days=45))
    assert (await world.subscription(org))["plan"] == "free"
    failures = [event for event in await world.said(org, PaymentFailed) if isinstance(event, PaymentFailed)]
    assert [event.attempt for event in failures] == [1, 2, 3, 4]
    first = failures[0].failed_at
    assert first == datetime(2026, 4, 10, 10, tzinfo=UTC)  # a month after the first one, and an hour as a draft
    reminders = [one for one in await world.said(org, PaymentReminderDue) if isinstance(one, PaymentReminderDue)]
    assert [(one.due_at - first).days for one in reminders] == [0, 3, 5, 7, 9]
    (expired,) = await world.said(org, GracePeriodExpired)
    assert isinstance(expired, GracePeriodExpired)
    assert expired.expired_at == first + timedelta(days=10)
    (subscription,) = world.simulator.world.table("subscription").values()
    assert subscription["status"] == "canceled"


async def test_a_payment_in_time_recovers(world: StripeWorld, org: str):
    await world.enroll(org)
    await world.subscribe(org)
    await world.deliver_all()
    await world.card_of(org, "generic_decline")
    await world.live(timedelta(days=33))
    assert (await world.subscription(org))["plan"] == "professional"
    assert (await world.dunning(org)).invoice_id is not None
    await world.card_of(org, "succeeds")
    await world.live(timedelta(days=5))
    assert len(await world.said(org, PaymentRecovered)) == 1
    assert (await world.dunning(org)).invoice_id is None
    assert (await world.subscription(org))["plan"] == "professional"
    assert not await world.said(org, GracePeriodExpired)


async def test_a_bank_that_asks_is_told_of_once(world: StripeWorld, org: str):
    await world.enroll(org)
    await world.subscribe(org)
    await world.deliver_all()
    await world.card_of(org, "authentication_required")
    await world.live(timedelta(days=36))
    (asked,) = await world.said(org, PaymentActionRequired)
    assert isinstance(asked, PaymentActionRequired)
    assert asked.amount == Decimal("299.00")
    assert (await world.subscription(org))["plan"] == "professional"


async def test_a_cancellation_on_stripes_own_page_is_taken_back_here(world: StripeWorld, org: str):
    await world.enroll(org)
    await world.subscribe(org)
    await world.deliver_all()
    (subscription,) = world.simulator.world.table("subscription")
    stripe_checkout.portal_cancel(world.simulator.world, subscription)
    await world.deliver_all()
    assert (await world.subscription(org))["status"] == "canceling"
    await paid_changes.resume(world.payments, subscription, org, world.now)
    assert (await world.subscription(org))["status"] == "active"
    assert world.simulator.world.get("subscription", subscription)["cancel_at"] is None
    await world.change(org, "starter", at_period_end=True)
    stripe_checkout.portal_cancel(world.simulator.world, subscription)
    await world.deliver_all()
    await world.change(org, "enterprise")
    row = await world.subscription(org)
    assert (row["plan"], row["status"], row["pending_at"]) == ("enterprise", "active", None)


async def test_what_somebody_scribbles_into_the_metadata_keeps_no_plan_and_breaks_nothing(world: StripeWorld, org: str):
    await world.enroll(org)
    await world.subscribe(org, "starter")
    await world.deliver_all()
    (subscription,) = world.simulator.world.table("subscription")
    for scribbled in ({"kept_plan": "platinum", "kept_until": "2099-01-01T00:00:00+00:00"},
                      {"kept_plan": "enterprise", "kept_until": "soon"}):  # fmt: skip
        call(world.simulator.world, "POST", f"/v1/subscriptions/{subscription}", {"metadata": scribbled})
        await world.deliver_all()
        assert (await world.subscription(org))["plan"] == "starter"
    await world.change(org, "professional")
    assert (await world.subscription(org))["plan"] == "professional"
