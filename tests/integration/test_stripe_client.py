"""The documented Stripe functions against the simulator, through Stripe's own SDK and real HTTP."""

# ruff: noqa: PLC0415 -- each example begins with its own imports

import asyncio
from types import SimpleNamespace

import pytest
import stripe

from aragora.billing import stripe_client
from aragora.billing.models import SubscriptionTier
from aragora.billing.stripe_client import StripeConfigError, StripeRequestError, StripeUnavailable
from standalone.stripe_simulator import cards, catalogue, checkout
from standalone.stripe_simulator.control import live_subscriptions
from standalone.stripe_simulator.faults import Fault
from standalone.stripe_simulator.simulator import RunningSimulator, running_simulator

PRICES = {"starter": 9_900, "professional": 29_900, "enterprise": 99_900}  # cents a month
SESSIONS = "POST /v1/checkout/sessions"


@pytest.fixture
async def simulator(monkeypatch: pytest.MonkeyPatch):
    async with running_simulator() as running:
        for tier, cents in PRICES.items():
            catalogue.put_price(running.world, f"price_{tier}", tier, cents)
            monkeypatch.setenv(f"STRIPE_PRICE_{tier.upper()}", f"price_{tier}")
        monkeypatch.setenv("STRIPE_API_BASE", running.url)
        monkeypatch.setenv("STRIPE_SECRET_KEY", running.secret_key)
        monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", running.webhook_secret)
        monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0)  # between one try and the next
        yield running


async def check_out(tier: SubscriptionTier = SubscriptionTier.STARTER, **given: str) -> stripe_client.CheckoutSession:
    return await asyncio.to_thread(
        lambda: stripe_client.create_checkout_session(
            customer_email="user@example.com",
            tier=tier,
            success_url="https://app.example.com/success",
            cancel_url="https://app.example.com/cancel",
            metadata={"org_id": "org_123"},
            **given,
        )
    )


def paid(simulator: RunningSimulator, session_id: str) -> str:
    """Press the page's button; the id of the subscription."""
    session = checkout.complete(simulator.world, session_id, cards.card_named("pm_card_visa"))
    return str(session["subscription"])


async def subscribed(simulator: RunningSimulator) -> str:
    return paid(simulator, (await check_out()).id)


def webhook(simulator: RunningSimulator, event_type: str) -> SimpleNamespace:
    """The request by which Stripe tells of the last event of that type."""
    event = [event for event in simulator.world.events if event["type"] == event_type][-1]
    body, headers = simulator.signed(event)
    return SimpleNamespace(body=body, headers=headers)


async def test_the_documented_examples(simulator: RunningSimulator, capsys: pytest.CaptureFixture[str]):
    def creating_checkout_sessions():
        from aragora.billing.models import SubscriptionTier
        from aragora.billing.stripe_client import (
            StripeConfigError,
            create_checkout_session,
        )

        try:
            session = create_checkout_session(
                customer_email="user@example.com",
                tier=SubscriptionTier.PROFESSIONAL,
                success_url="https://app.example.com/success",
                cancel_url="https://app.example.com/cancel",
                metadata={"org_id": "org_123"},
            )
            # Redirect user to session.url
        except StripeConfigError as e:
            print(f"Stripe not configured: {e}")
        return session

    session = await asyncio.to_thread(creating_checkout_sessions)
    assert session.url == f"{simulator.url}/checkout/{session.id}"
    subscription_id = paid(simulator, session.id)
    upgraded = []

    from aragora.billing.stripe_client import (
        verify_webhook_signature,
    )

    def handle_stripe_webhook(request):
        payload = request.body
        signature = request.headers.get("Stripe-Signature")

        # Verify signature
        event = verify_webhook_signature(payload, signature)

        if event.type == "checkout.session.completed":
            # Upgrade organization tier
            org_id = event.data.metadata.get("org_id")
            upgraded.append(org_id)
        elif event.type == "customer.subscription.deleted":
            # Downgrade to free tier
            upgraded.remove(event.data.metadata.get("org_id"))

    handle_stripe_webhook(webhook(simulator, "checkout.session.completed"))
    assert upgraded == ["org_123"]

    def managing_subscriptions():
        from aragora.billing.stripe_client import (
            cancel_subscription,
            get_subscription,
            update_subscription,
        )

        # Get subscription details
        sub = get_subscription(subscription_id)
        print(sub.status)  # "active", "canceled", etc.
        print(sub.current_period_end)

        # Cancel at period end
        cancel_subscription(subscription_id, at_period_end=True)

        # Upgrade/downgrade
        update_subscription(
            subscription_id,
            new_price_id="price_enterprise",
        )
        return sub, get_subscription(subscription_id)

    before, after = await asyncio.to_thread(managing_subscriptions)
    assert capsys.readouterr().out == f"active\n{before.current_period_end}\n"
    assert (before.tier, before.cancel_at_period_end) == (SubscriptionTier.PROFESSIONAL, False)
    assert (after.tier, after.price_id) == (SubscriptionTier.ENTERPRISE, "price_enterprise")
    assert after.cancel_at_period_end
    assert after.metadata == before.metadata == {"org_id": "org_123"}

    await asyncio.to_thread(stripe_client.cancel_subscription, subscription_id, at_period_end=False)
    handle_stripe_webhook(webhook(simulator, "customer.subscription.deleted"))
    assert upgraded == []


async def test_a_change_of_plan_is_charged_by_the_second(simulator: RunningSimulator):
    subscription_id = await subscribed(simulator)
    changed = await asyncio.to_thread(
        stripe_client.update_subscription, subscription_id, new_price_id="price_professional"
    )
    assert (changed.status, changed.tier) == ("active", SubscriptionTier.PROFESSIONAL)
    items = simulator.world.table("invoiceitem").values()
    assert sorted(item["amount"] > 0 for item in items) == [False, True]  # what is left, and what is new
    assert len(simulator.world.table("invoice")) == 1  # both wait for the next invoice


async def test_to_end_at_once_is_to_end_once(simulator: RunningSimulator):
    subscription_id = await subscribed(simulator)
    for _ in range(2):
        ended = await asyncio.to_thread(stripe_client.cancel_subscription, subscription_id, at_period_end=False)
        assert ended.status == "canceled"
    simulator.faults.ordered.append(Fault(times=1, method="DELETE", status=500, acts=True))
    other = await subscribed(simulator)
    ended = await asyncio.to_thread(stripe_client.cancel_subscription, other, at_period_end=False)
    assert (ended.id, ended.status) == (other, "canceled")
    assert set(live_subscriptions(simulator.world).values()) == set()


async def test_what_is_not_there_is_refused(simulator: RunningSimulator):
    subscription_id = await subscribed(simulator)
    for ask, code in [
        (lambda: stripe_client.get_subscription("sub_none"), "resource_missing"),
        (lambda: stripe_client.cancel_subscription("sub_none"), "resource_missing"),
        (lambda: stripe_client.cancel_subscription("sub_none", at_period_end=False), "resource_missing"),
        (lambda: stripe_client.update_subscription(subscription_id, new_price_id="price_none"), "resource_missing"),
    ]:
        with pytest.raises(StripeRequestError, match="No such") as refused:
            await asyncio.to_thread(ask)
        assert refused.value.code == code


async def test_a_key_makes_one_session(simulator: RunningSimulator):
    first = await check_out(idempotency_key="checkout-1")
    assert await check_out(idempotency_key="checkout-1") == first
    with pytest.raises(StripeRequestError, match="same parameters"):
        await check_out(SubscriptionTier.ENTERPRISE, idempotency_key="checkout-1")
    assert len(simulator.world.table("checkout.session")) == 1


@pytest.mark.parametrize("acts", [False, True])
async def test_an_answer_that_was_lost_is_asked_for_again(simulator: RunningSimulator, acts):
    simulator.faults.ordered.append(Fault(times=2, method="POST", status=503, acts=acts))
    session = await check_out()
    assert list(simulator.world.table("checkout.session")) == [session.id]


async def test_stripe_in_trouble(simulator: RunningSimulator, monkeypatch: pytest.MonkeyPatch):
    for fault in (Fault(times=3, status=500), Fault(status=429), Fault(drop=True)):
        simulator.faults.ordered.append(fault)
        with pytest.raises(StripeUnavailable, match="try again"):
            await check_out()
    assert simulator.world.table("checkout.session") == {}
    for nowhere, why in [(f"{simulator.url}/elsewhere", "no object or error"), ("http://127.0.0.1:1", "no answer")]:
        monkeypatch.setenv("STRIPE_API_BASE", nowhere)
        with pytest.raises(StripeUnavailable, match=f"{why}.*STRIPE_API_BASE"):
            await check_out()


@pytest.mark.usefixtures("simulator")
async def test_another_accounts_key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_test_another")
    with pytest.raises(StripeConfigError, match="set STRIPE_SECRET_KEY to the secret key") as refused:
        await check_out()
    assert "another" not in str(refused.value)
