"""The Stripe simulator through the official SDK and a browser's requests: what Stripe's own API would answer."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import httpx
import pytest
import stripe

from standalone.stripe_simulator import catalogue
from standalone.stripe_simulator.shapes import API_VERSION
from standalone.stripe_simulator.simulator import RunningSimulator, running_simulator

BEGIN = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(now=BEGIN) as running:
        catalogue.put_price(running.world, "price_starter", "Starter", 2900)
        catalogue.put_price(running.world, "price_pro", "Pro", 9900)
        yield running


@asynccontextmanager
async def sdk(simulator: RunningSimulator, key: str | None = None) -> AsyncIterator[stripe.StripeClient]:
    """The SDK's client with connections that are closed again."""
    connections, secret = stripe.HTTPXClient(), key or simulator.secret_key
    yield stripe.StripeClient(
        secret, base_addresses={"api": simulator.url}, http_client=connections, max_network_retries=0
    )
    await connections.close_async()


@pytest.fixture
async def client(simulator: RunningSimulator) -> AsyncIterator[stripe.StripeClient]:
    async with sdk(simulator) as running:
        yield running


@pytest.fixture
async def browser(simulator: RunningSimulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=simulator.url) as running:
        yield running


async def checkout(client: stripe.StripeClient) -> stripe.checkout.Session:
    return await client.v1.checkout.sessions.create_async(
        {
            "mode": "subscription",
            "customer_email": "a@example.com",
            "line_items": [{"price": "price_starter", "quantity": 1}],
            "success_url": "https://example.com/done?session={CHECKOUT_SESSION_ID}",
            "cancel_url": "https://example.com/plans",
            "metadata": {"org_id": "one"},
            "subscription_data": {"metadata": {"org_id": "one"}},
        }
    )


async def customer(client: stripe.StripeClient, card: str = "pm_card_visa") -> stripe.Customer:
    return await client.v1.customers.create_async(
        {"payment_method": card, "invoice_settings": {"default_payment_method": card}}
    )


async def subscribe(client: stripe.StripeClient, card: str = "pm_card_visa") -> stripe.Subscription:
    payer = await customer(client, card)
    return await client.v1.subscriptions.create_async({"customer": payer.id, "items": [{"price": "price_starter"}]})


async def test_checkout_declined_then_paid(client, browser):
    session = await checkout(client)
    page = await browser.get(session.url)
    assert "This is not Stripe" in page.text
    assert page.headers["Stripe-Simulator"].startswith("a stand-in")
    declined = await browser.post(session.url, data={"press": "decline", "card": "pm_card_visa"})
    assert (declined.status_code, "insufficient funds" in declined.text) == (402, True)
    assert (await client.v1.checkout.sessions.retrieve_async(session.id)).status == "open"
    assert (await client.v1.subscriptions.list_async({"status": "all"})).data == []
    paid = await browser.post(session.url, data={"press": "pay", "card": "pm_card_visa"})
    assert (paid.status_code, paid.headers["location"]) == (303, f"https://example.com/done?session={session.id}")
    done = await client.v1.checkout.sessions.retrieve_async(
        session.id, {"expand": ["line_items", "subscription.latest_invoice", "customer"]}
    )
    assert (done.status, done.payment_status, done.url) == ("complete", "paid", None)
    assert done.line_items.data[0].price.id == "price_starter"
    assert (done.customer.email, done.subscription.status) == ("a@example.com", "active")
    assert done.subscription.metadata["org_id"] == "one"
    invoice = done.subscription.latest_invoice
    assert (invoice.status, invoice.total, invoice.parent.subscription_details.subscription) == (
        *("paid", 2900),
        done.subscription.id,
    )
    again = await browser.post(f"/checkout/{session.id}", data={"press": "pay", "card": "pm_card_visa"})
    assert (again.status_code, "is complete" in again.text) == (402, True)
    assert (await browser.get(invoice.invoice_pdf)).content.startswith(b"%PDF")
    assert "$29.00" in (await browser.get(invoice.hosted_invoice_url)).text


async def test_a_session_expires_after_a_day(simulator, client, browser):
    session = await checkout(client)
    simulator.world.advance(session.expires_at)
    assert (await client.v1.checkout.sessions.retrieve_async(session.id)).status == "expired"
    late = await browser.post(f"/checkout/{session.id}", data={"press": "pay", "card": "pm_card_visa"})
    assert (late.status_code, "expired" in late.text) == (402, True)
    with pytest.raises(stripe.InvalidRequestError, match="can be expired"):
        await client.v1.checkout.sessions.expire_async(session.id)
    assert simulator.world.events[-1]["type"] == "checkout.session.expired"


async def test_the_portal_cancels_keeps_and_changes_the_card(client, browser):
    subscription = await subscribe(client)
    session = await client.v1.billing_portal.sessions.create_async(
        {"customer": subscription.customer, "return_url": "https://example.com/back"}
    )
    assert "Cancel at the end of the period" in (await browser.get(session.url)).text
    await browser.post(session.url, data={"press": "cancel", "subscription": subscription.id})
    cancelled = await client.v1.subscriptions.retrieve_async(subscription.id)
    end = cancelled["items"].data[0].current_period_end
    assert (cancelled.cancel_at, cancelled.cancel_at_period_end) == (end, False)
    assert "Keep it" in (await browser.get(session.url)).text
    await browser.post(session.url, data={"press": "resume", "subscription": subscription.id})
    assert (await client.v1.subscriptions.retrieve_async(subscription.id)).cancel_at is None
    await browser.post(session.url, data={"press": "card", "card": "pm_card_mastercard"})
    payer = await client.v1.customers.retrieve_async(subscription.customer, {"expand": ["subscriptions"]})
    method = await client.v1.payment_methods.retrieve_async(payer.invoice_settings.default_payment_method)
    assert (method.card.brand, len(payer.subscriptions.data)) == ("mastercard", 1)


async def test_a_failed_renewal_is_paid_on_the_invoice_page(client, browser):
    subscription = await subscribe(client)
    told = await browser.post(
        "/simulator/cards", json={"customer": subscription.customer, "behaviour": "generic_decline"}
    )
    assert told.json() == {"cards": 1}
    await browser.post("/simulator/clock", json={"to": int(datetime(2026, 3, 1, tzinfo=UTC).timestamp())})
    failed = await client.v1.subscriptions.retrieve_async(subscription.id, {"expand": ["latest_invoice"]})
    assert (failed.status, failed.latest_invoice.attempt_count) == ("past_due", 1)
    url = failed.latest_invoice.hosted_invoice_url
    refused = await browser.post(url, data={"card": "pm_card_chargeCustomerFail"})
    assert (refused.status_code, "declined" in refused.text) == (402, True)
    assert (await browser.post(url, data={"card": "pm_card_visa"})).status_code == 303
    assert (await client.v1.subscriptions.retrieve_async(subscription.id)).status == "active"
    asked = (await browser.get("/simulator")).json()
    assert set(asked["charges_per_invoice"].values()) == {1}
    assert asked["live_subscriptions"] == {subscription.customer: 1}


async def test_an_invoice_is_paid_or_refused_with_stripes_errors(client):
    payer = await customer(client, "pm_card_chargeCustomerFail")
    await client.v1.invoice_items.create_async({"customer": payer.id, "amount": 500, "currency": "usd"})
    invoice = await client.v1.invoices.create_async(
        {"customer": payer.id, "pending_invoice_items_behavior": "include", "auto_advance": False}
    )
    await client.v1.invoices.finalize_invoice_async(invoice.id)
    with pytest.raises(stripe.CardError) as refused:
        await client.v1.invoices.pay_async(invoice.id)
    assert (refused.value.http_status, refused.value.code) == (402, "card_declined")
    assert refused.value.error is not None
    assert refused.value.error.decline_code == "generic_decline"
    await client.v1.invoices.pay_async(invoice.id, {"paid_out_of_band": True})
    paid = await client.v1.invoices.retrieve_async(invoice.id, {"expand": ["payments"]})
    assert (paid.status, paid.amount_paid_off_stripe, paid.payments.data[0].status) == ("paid", 500, "canceled")


async def test_what_is_not_there_or_not_allowed(simulator, client):
    with pytest.raises(stripe.InvalidRequestError) as missing:
        await client.v1.customers.retrieve_async("cus_nobody")
    assert (missing.value.http_status, missing.value.code) == (404, "resource_missing")
    with pytest.raises(stripe.InvalidRequestError, match="Received unknown parameter: plan") as unknown:
        await client.v1.subscriptions.create_async({"customer": "cus_nobody", "plan": "pro"})
    assert (unknown.value.http_status, unknown.value.param) == (400, "plan")
    with pytest.raises(stripe.InvalidRequestError, match="simulator does not do"):
        await client.v1.checkout.sessions.create_async({"mode": "payment", "line_items": [{"price": "price_pro"}]})
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL"):
        await client.v1.coupons.list_async()
    async with sdk(simulator, "sk_test_other") as stranger:
        with pytest.raises(stripe.AuthenticationError, match=re.escape("Invalid API Key provided: sk_test_****")):
            await stranger.v1.customers.list_async()
    old = {"stripe_version": "2024-06-20"}
    with pytest.raises(stripe.InvalidRequestError, match=f"plays {API_VERSION} only"):
        await client.v1.customers.list_async(options=old)


async def test_basic_authentication(simulator, browser):
    answer = await browser.get("/v1/prices", params={"limit": 1}, auth=(simulator.secret_key, ""))
    assert answer.json()["data"][0]["id"] == "price_pro"
    assert (await browser.get("/v1/prices")).status_code == 401
    assert answer.headers["Request-Id"].startswith("req_")


async def test_the_same_key_gets_the_same_answer(simulator, client):
    once = {"idempotency_key": "once"}
    first = await client.v1.customers.create_async({"email": "a@example.com"}, once)
    again = await client.v1.customers.create_async({"email": "a@example.com"}, once)
    assert (again.id, again.last_response.headers["idempotent-replayed"]) == (first.id, "true")
    with pytest.raises(stripe.IdempotencyError):
        await client.v1.customers.create_async({"email": "b@example.com"}, once)
    simulator.world.advance(simulator.world.clock.now() + 86_401)
    assert (await client.v1.customers.create_async({"email": "b@example.com"}, once)).id != first.id
    found = await client.v1.customers.list_async({"email": "b@example.com"})
    assert len(found.data) == 1


async def test_trouble_on_order(simulator, client, browser):
    async def order(**fault) -> None:
        assert (await browser.post("/simulator/faults", json=fault)).status_code == 200

    await order(status=429, method="POST")
    await client.v1.customers.list_async()
    with pytest.raises(stripe.RateLimitError):
        await client.v1.customers.create_async({})
    for status in (500, 503):
        await order(status=status, path="/v1/customers")
        with pytest.raises(stripe.APIError):
            await client.v1.customers.create_async({})
    await order(drop=True)
    with pytest.raises(stripe.APIConnectionError):
        await client.v1.customers.create_async({})
    assert simulator.world.table("customer") == {}
    key = {"idempotency_key": "acted"}
    for fault in ({"drop": True}, {"status": 500}):
        await order(acts=True, **fault)
        with pytest.raises((stripe.APIError, stripe.APIConnectionError)):
            await client.v1.customers.create_async({}, key)
    await client.v1.customers.create_async({}, key)
    assert len(simulator.world.table("customer")) == 1
    await order(seconds=0.01)
    await client.v1.customers.list_async()
    assert simulator.calls.counts["POST /v1/customers"] == 3
    assert (await browser.delete("/simulator/faults")).json() == {}


async def test_lists_are_pages_newest_first(client):
    made = [(await client.v1.customers.create_async({"description": str(n)})).id for n in range(7)]
    page = await client.v1.customers.list_async({"limit": 3})
    assert ([one.id for one in page.data], page.has_more) == (made[:3:-1], True)
    assert [one.id async for one in page.auto_paging_iter()] == made[::-1]
    before = await client.v1.customers.list_async({"limit": 3, "ending_before": made[2]})
    assert [one.id for one in before.data] == made[5:2:-1]
    events = await client.v1.events.list_async({"types": ["customer.created"], "limit": 100})
    assert [event.data.object["id"] for event in events.data] == made[::-1]
    assert (await client.v1.events.list_async({"type": "invoice.*"})).data == []
    none = await client.v1.events.list_async({"created": {"lt": events.data[0].created}})
    assert none.data == []


async def test_usage_is_metered_once_and_billed_with_the_next_invoice(simulator, client):
    meter = await client.v1.billing.meters.create_async(
        {"display_name": "Tokens", "event_name": "tokens", "default_aggregation": {"formula": "sum"}}
    )
    price = await client.v1.prices.create_async(
        {
            "product_data": {"name": "Tokens"},
            "currency": "usd",
            "unit_amount_decimal": "0.35",
            "recurring": {"interval": "month", "usage_type": "metered", "meter": meter.id},
        }
    )
    payer = await customer(client)
    subscription = await client.v1.subscriptions.create_async(
        {"customer": payer.id, "items": [{"price": "price_starter"}, {"price": price.id}]}
    )
    usage = {"event_name": "tokens", "payload": {"stripe_customer_id": payer.id, "value": "1230"}, "identifier": "a"}
    await client.v1.billing.meter_events.create_async(usage)
    with pytest.raises(stripe.InvalidRequestError, match="already exists with identifier"):
        await client.v1.billing.meter_events.create_async(usage)
    start = int(datetime(2026, 1, 31, tzinfo=UTC).timestamp())
    sums = await client.v1.billing.meters.event_summaries.list_async(
        meter.id, {"customer": payer.id, "start_time": start, "end_time": start + 86_400}
    )
    assert sums.data[0].aggregated_value == 1230
    await simulator.advance(datetime(2026, 2, 28, 14, tzinfo=UTC))
    invoices = await client.v1.invoices.list_async({"subscription": subscription.id})
    assert [line.amount for line in invoices.data[0].lines.data] == [431, 2900]


async def test_a_deleted_customer_is_gone_with_its_subscriptions(client):
    subscription = await subscribe(client)
    await client.v1.customers.delete_async(subscription.customer)
    gone = await client.v1.customers.retrieve_async(subscription.customer)
    assert gone.deleted is True
    assert (await client.v1.subscriptions.retrieve_async(subscription.id)).status == "canceled"
    with pytest.raises(stripe.InvalidRequestError, match="No such customer"):
        await client.v1.customers.update_async(subscription.customer, {"description": "back"})
