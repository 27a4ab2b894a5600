"""What is kept of a webhook: nothing personal, whatever Stripe sends, and what it takes to follow it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import stripe_inbox

PERSONAL = {
    "ada@example.com", "Ada Lovelace", "+44 20 7946 0958", "12 St James's Square", "London", "SW1Y 4JH",
    "cs_secret_of_the_page", "https://invoice.example/i/key", "https://pay.example/receipt",
    "203.0.113.9", "1815-12-10",
}  # fmt: skip
ADDRESS = {"city": "London", "country": "GB", "line1": "12 St James's Square", "line2": None, "postal_code": "SW1Y 4JH"}
PERSON = {"name": "Ada Lovelace", "email": "ada@example.com", "phone": "+44 20 7946 0958", "address": ADDRESS}
CARD = {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2030, "fingerprint": "abcdef"}

OBJECTS: dict[str, dict[str, Any]] = {
    "checkout.session": {
        "id": "cs_1", "object": "checkout.session", "customer": "cus_1", "customer_email": "ada@example.com",
        "customer_details": {**PERSON, "tax_ids": [{"type": "gb_vat", "value": "GB123"}]}, "status": "complete",
        "collected_information": {"shipping_details": PERSON}, "client_secret": "cs_secret_of_the_page",
        "url": "https://pay.example/receipt", "success_url": "https://a.example", "subscription": "sub_1",
        "custom_fields": [{"key": "born", "text": {"value": "1815-12-10"}}],
        "metadata": {"org_id": "org_1", "n": "Ada Lovelace"},
        "client_reference_id": "org_1", "payment_status": "paid", "shipping_cost": None,
    },
    "customer": {
        "id": "cus_1", "object": "customer", **PERSON, "shipping": PERSON, "balance": -500,
        "description": "Ada Lovelace",
        "preferred_locales": ["en"], "invoice_settings": {"custom_fields": [{"name": "To", "value": "Ada Lovelace"}]},
        "metadata": {"org_id": "org_1", "ip": "203.0.113.9"},
    },
    "subscription": {
        "id": "sub_1", "object": "subscription", "customer": {"id": "cus_1", **PERSON}, "status": "active",
        "description": "For Ada Lovelace", "metadata": {"org_id": "org_1", "kept_until": "2026-05-01T00:00:00+00:00"},
        "items": {"object": "list", "data": [{"id": "si_1", "price": {"id": "price_1", "nickname": "Ada Lovelace"}}]},
        "cancellation_details": {"comment": "Write to ada@example.com"}, "cancel_at": 1_790_000_000,
    },
    "invoice": {
        "id": "in_1", "object": "invoice", "customer": "cus_1", "customer_name": "Ada Lovelace", "total": 9900,
        "customer_email": "ada@example.com", "customer_phone": "+44 20 7946 0958", "customer_address": ADDRESS,
        "customer_shipping": PERSON, "hosted_invoice_url": "https://invoice.example/i/key", "footer": "Ada Lovelace",
        "invoice_pdf": "https://invoice.example/i/key", "account_name": "Ada Lovelace", "status": "paid",
        "parent": {"subscription_details": {"subscription": "sub_1"}},
        "lines": {"data": [{"description": "Ada Lovelace"}]},
        "custom_fields": [{"name": "To", "value": "Ada Lovelace"}], "customer_tax_ids": [{"value": "GB123"}],
    },
    "charge": {
        "id": "ch_1", "object": "charge", "customer": "cus_1", "billing_details": PERSON, "amount_refunded": 100,
        "receipt_email": "ada@example.com", "receipt_url": "https://pay.example/receipt", "shipping": PERSON,
        "payment_method_details": {"card": CARD, "type": "card"}, "calculated_statement_descriptor": "ADA",
        "payment_intent": "pi_1", "invoice": "in_1",
    },
    "dispute": {
        "id": "dp_1", "object": "dispute", "charge": "ch_1", "payment_intent": "pi_1", "status": "needs_response",
        "evidence": {"customer_name": "Ada Lovelace", "customer_email_address": "ada@example.com",
                     "customer_purchase_ip": "203.0.113.9", "billing_address": "12 St James's Square"},
        "amount": 100, "currency": "usd", "reason": "fraudulent",
    },
    "refund": {"id": "re_1", "object": "refund", "charge": "ch_1", "amount": 5,
               "instructions_email": "ada@example.com"},
}  # fmt: skip


def event(about: Any, kind: str = "invoice.paid", **fields: Any) -> dict[str, Any]:
    said = {"id": "evt_1", "type": kind, "created": 1_790_000_000, "livemode": False, "account": None}
    return {**said, "data": {"object": about}, **fields}


@pytest.mark.parametrize("name", OBJECTS)
def test_nothing_personal_is_kept(name: str):
    kept = stripe_inbox.read(event(OBJECTS[name]), is_live=False)
    assert [word for word in PERSONAL | {"4242", "abcdef", "GB123", "Ada", "ADA"} if word in kept.payload] == []
    about = json.loads(kept.payload)["data"]["object"]
    assert (about["id"], about["object"]) == (OBJECTS[name]["id"], name)
    assert kept.object_id == about["id"]
    assert kept.customer_id == (None if name in ("dispute", "refund") else "cus_1")


def test_what_it_takes_to_follow_is_kept():
    assert stripe_inbox.without_personal_data(OBJECTS["refund"]) == {
        "id": "re_1", "object": "refund", "charge": "ch_1", "amount": 5,
    }  # fmt: skip
    assert stripe_inbox.without_personal_data(OBJECTS["subscription"]) == {
        "id": "sub_1", "object": "subscription", "customer": {"id": "cus_1"}, "status": "active",
        "metadata": {"org_id": "org_1", "kept_until": "2026-05-01T00:00:00+00:00"},
        "items": {"object": "list", "data": [{"id": "si_1", "price": {"id": "price_1"}}]}, "cancel_at": 1_790_000_000,
    }  # fmt: skip


FOLLOWED = [
    "checkout.session.completed", "checkout.session.expired", "checkout.session.async_payment_failed",
    "customer.subscription.created", "customer.subscription.updated", "customer.subscription.deleted",
    "customer.subscription.pending_update_applied", "customer.updated", "customer.deleted", "invoice.created",
    "invoice.finalized", "invoice.paid", "invoice.payment_failed", "invoice.payment_action_required", "invoice.voided",
    "charge.refunded", "charge.refund.updated", "charge.dispute.created", "charge.dispute.closed", "refund.created",
]  # fmt: skip
IGNORED = ["invoice.upcoming", "customer.created", "charge.succeeded", "payment_intent.succeeded", "plan.created", "x"]


def test_which_events_are_followed():
    assert all(map(stripe_inbox.is_followed, FOLLOWED))
    assert not any(map(stripe_inbox.is_followed, IGNORED))


def test_why_an_event_is_ignored():
    about = {"id": "in_1", "object": "invoice"}
    assert stripe_inbox.read(event(about), is_live=False).reason is None
    assert stripe_inbox.read(event(about), is_live=True).reason == "other_mode"
    assert stripe_inbox.read(event(about, livemode=True), is_live=False).reason == "other_mode"
    assert stripe_inbox.read(event(about, account="acct_1"), is_live=False).reason == "other_account"
    assert stripe_inbox.read(event(about, "payout.paid"), is_live=False).reason == "unknown_type"
    assert stripe_inbox.read(event({"object": "invoice"}), is_live=False).reason == "no_object"


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["id", "data", "metadata", "x"]) | st.text(), inner)
    ),
)


@given(st.dictionaries(st.sampled_from(["id", "object", "customer", "metadata", "items", "name"]), ANY_JSON))
def test_whatever_the_object_is_it_can_be_kept(about: dict[str, Any]):
    kept = stripe_inbox.read(event(about), is_live=False)
    assert "\\u0000" not in kept.payload
    assert json.loads(kept.payload)["id"] == "evt_1"
    kept.payload.encode()
