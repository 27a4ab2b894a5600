"""Every object of the Stripe simulator is one that the official SDK's classes describe: no field less, none more."""

import types
import typing
from typing import Any

import pytest
import stripe as sdk
from stripe_world import Stripe

from standalone.stripe_simulator import checkout, control, payments
from standalone.stripe_simulator.cards import card_named
from standalone.stripe_simulator.shapes import INCLUDED_ON_REQUEST

KINDS: dict[str, type] = {
    one.OBJECT_NAME: one
    for one in (
        *(sdk.Customer, sdk.Product, sdk.Price, sdk.PaymentMethod, sdk.Subscription, sdk.SubscriptionItem),
        *(sdk.Invoice, sdk.InvoiceItem, sdk.InvoicePayment, sdk.PaymentIntent, sdk.Charge, sdk.Refund, sdk.Dispute),
        *(sdk.CustomerBalanceTransaction, sdk.Event, sdk.WebhookEndpoint, sdk.checkout.Session, sdk.billing.Meter),
        *(sdk.billing_portal.Session, sdk.billing.MeterEventSummary, sdk.test_helpers.TestClock),
        *(sdk.InvoiceLineItem, sdk.billing.MeterEvent, sdk.LineItem),
    )
}


def wrong(value: Any, hint: Any, path: str) -> list[str]:
    """What is wrong with a value of an object that was given that type by the SDK."""
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        if value is None:
            return [] if type(None) in choices else [f"{path} is null"]
        known = [one for choice in choices if typing.get_origin(choice) is typing.Literal for one in choice.__args__]
        if known and isinstance(value, str):
            return [] if value in known else [f"{path} is {value!r}"]
        found = [wrong(value, choice, path) for choice in choices if choice is not type(None)]
        return min(found, key=len)
    if origin is typing.Literal:
        return [] if value in choices else [f"{path} is {value!r}"]
    if origin is list or (origin is not None and origin.__name__ == "ListObject"):
        things = value["data"] if origin is not list else value
        return [problem for number, one in enumerate(things) for problem in wrong(one, choices[0], f"{path}[{number}]")]
    if isinstance(hint, typing.ForwardRef):
        kind = KINDS.get(str(value.get("object"))) if isinstance(value, dict) else None
        return faults(value, kind, path) if kind else []
    if isinstance(hint, type) and issubclass(hint, sdk.StripeObject) and hint.__annotations__:
        return faults(value, KINDS.get(vars(hint).get("OBJECT_NAME", ""), hint), path)
    if hint in (str, int, bool):
        return [] if type(value) is hint else [f"{path} is {value!r}, no {hint.__name__}"]
    return []


def faults(thing: Any, kind: type, path: str = "") -> list[str]:
    """Fields that are missing, unknown or of another type."""
    if not isinstance(thing, dict):
        return [f"{path} is {thing!r}"]
    hints = {name: hint for name, hint in kind.__annotations__.items() if name != "OBJECT_NAME"}
    needed = {name for name, hint in hints.items() if type(None) not in typing.get_args(hint)}
    found = [f"{path}.{name} is missing" for name in needed - thing.keys()]
    found += [f"{path}.{name} is unknown to the SDK" for name in thing.keys() - hints.keys()]
    for name in thing.keys() & hints.keys():
        found += wrong(thing[name], hints[name], f"{path}.{name}")
    return found


@pytest.fixture(scope="module")
def lived() -> Stripe:
    """A world in which everything has happened once."""
    stripe = Stripe()
    session = stripe.post(
        "/v1/checkout/sessions",
        mode="subscription",
        customer_email="a@example.com",
        success_url="https://example.com/{CHECKOUT_SESSION_ID}",
        line_items=[{"price": "price_starter", "quantity": 1}],
        metadata={"org_id": "one"},
    )
    with pytest.raises(Exception, match="insufficient funds"):
        checkout.complete(stripe.world, session["id"], card_named("4000 0000 0000 9995"))
    done = checkout.complete(stripe.world, session["id"], card_named("4242424242424242"))
    customer, subscription = done["customer"], stripe.get(f"/v1/subscriptions/{done['subscription']}")
    stripe.post("/v1/billing_portal/sessions", customer=customer, return_url="https://example.com")
    stripe.until("2026-04-16")
    stripe.change(subscription, "price_pro", proration_behavior="always_invoice")
    control.behave(stripe.world, "insufficient_funds", customer=customer)
    pending = {"payment_behavior": "pending_if_incomplete", "proration_behavior": "always_invoice"}
    stripe.post(
        f"/v1/subscriptions/{subscription['id']}",
        items=[{"id": subscription["items"]["data"][0]["id"], "quantity": 2}],
        **pending,
    )
    stripe.until("2026-05-10")
    checkout.portal_card(stripe.world, customer, card_named("pm_card_visa"))
    control.pay_in_person(stripe.world, stripe.world.get("invoice", stripe.now(subscription)["latest_invoice"]))
    charges = [one["id"] for one in stripe.get("/v1/charges", limit=100)["data"] if one["paid"]]
    stripe.post("/v1/refunds", charge=charges[0], amount=100)
    dispute = payments.open_dispute(stripe.world, charges[1])
    payments.close_dispute(stripe.world, dispute["id"], "lost")
    meter = stripe.post(
        "/v1/billing/meters",
        display_name="Tokens",
        event_name="tokens",
        default_aggregation={"formula": "sum"},
    )
    stripe.post(
        "/v1/billing/meter_events",
        event_name="tokens",
        identifier="once",
        payload={"stripe_customer_id": customer, "value": "12.5"},
    )
    assert meter["status"] == "active"
    stripe.post("/v1/invoiceitems", customer=customer, amount=700, currency="usd")
    stripe.post("/v1/webhook_endpoints", url="https://example.com/hook", enabled_events=["*"])
    stripe.post("/v1/test_helpers/test_clocks", frozen_time=1)
    stripe.delete(f"/v1/subscriptions/{subscription['id']}", prorate=True, invoice_now=True)
    stripe.subscribe(stripe.customer("pm_card_authenticationRequired"), trial_period_days=1)
    stripe.until("2026-05-20")
    return stripe


def test_every_object_has_the_fields_that_the_sdk_declares(lived: Stripe):
    found = {
        problem
        for name, table in lived.world.tables.items()
        for thing in table.values()
        for problem in faults(thing, KINDS[name], name)
    }
    assert found == set()


def test_every_event_is_one_that_stripe_sends_with_a_whole_object(lived: Stripe):
    known = typing.get_args(sdk.Event.__annotations__["type"])
    assert {event["type"] for event in lived.world.events} - set(known) == set()
    for event in lived.world.events:
        held = event["data"]["object"]
        assert faults(held, KINDS[held["object"]], event["type"]) == []


def test_what_is_included_on_request_only(lived: Stripe):
    (first, *_) = lived.get("/v1/invoices")["data"]
    assert first.keys() & INCLUDED_ON_REQUEST["invoice"] == set()
    oldest = lived.get("/v1/invoices", status="paid")["data"][-1]["id"]
    paid = lived.get(f"/v1/invoices/{oldest}", expand=["payments.data.payment.payment_intent", "customer"])
    (payment,) = paid["payments"]["data"]
    assert paid["customer"]["email"] == "a@example.com"
    assert payment["payment"]["payment_intent"]["status"] == "succeeded"


def test_the_types_that_were_seen(lived: Stripe):
    assert set(lived.types()) >= {
        *("checkout.session.completed", "customer.created", "customer.updated", "payment_method.attached"),
        *("customer.subscription.created", "customer.subscription.updated", "customer.subscription.deleted"),
        *("customer.subscription.pending_update_expired", "invoice.created", "invoice.finalized", "invoice.paid"),
        *("invoice.payment_succeeded", "invoice.payment_failed", "invoice.voided", "invoice.updated"),
        *("payment_intent.created", "payment_intent.payment_failed", "payment_intent.succeeded", "charge.succeeded"),
        *("charge.failed", "charge.refunded", "refund.created", "charge.dispute.created", "charge.dispute.closed"),
        *("invoiceitem.created", "payment_intent.canceled", "invoice_payment.paid", "billing.meter.created"),
    }
