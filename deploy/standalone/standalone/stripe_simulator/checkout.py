"""Checkout and the customer portal: what their pages do when somebody presses a button."""

from typing import Any

import stripe

from standalone.stripe_simulator import beginnings, cards, catalogue, changes, customers, payments, subscriptions
from standalone.stripe_simulator.cards import TestCard
from standalone.stripe_simulator.clock import DAY
from standalone.stripe_simulator.fields import store
from standalone.stripe_simulator.problems import invalid, unsupported
from standalone.stripe_simulator.shapes import Thing, listed
from standalone.stripe_simulator.world import World

_ELSEWHERE = {"line_items", "subscription_data", "customer", "mode", "expires_at", "customer_update"}


def create(world: World, params: Thing) -> Thing:
    """POST /v1/checkout/sessions, for a subscription."""
    if params.get("mode") != "subscription":
        raise unsupported("Checkout in other modes than `subscription`", "mode")
    customer = world.alive("customer", params["customer"], "customer") if params.get("customer") else None
    if customer and params.get("customer_email"):
        raise invalid("You may only specify one of these parameters: customer, customer_email.", "customer_email")
    now = world.time_of(customer)
    expires_at = params.get("expires_at", now + DAY)
    if not now + 1_800 <= expires_at <= now + DAY:
        text = "The `expires_at` timestamp must be 30 minutes to 24 hours from Checkout Session creation."
        raise invalid(text, "expires_at")
    items = _line_items(world, params.get("line_items") or [])
    total = sum(item["amount_total"] for item in items)
    offered = params.get("subscription_data") or {}
    if offered.get("trial_period_days") or offered.get("trial_end"):
        total = 0
    session = world.new(
        stripe.checkout.Session,
        "cs_test",
        amount_subtotal=total,
        amount_total=total,
        automatic_tax={"enabled": False, "liability": None, "provider": None, "status": None},
        created=now,
        currency="usd",
        custom_fields=[],
        custom_text=dict.fromkeys(stripe.checkout.Session.CustomText.__annotations__),
        customer=customer and customer["id"],
        expires_at=expires_at,
        mode="subscription",
        payment_method_collection="always",
        payment_method_types=["card"],
        payment_status="unpaid",
        shipping_options=[],
        status="open",
        total_details={"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        ui_mode="hosted_page",
    )
    store(session, {k: v for k, v in params.items() if k not in _ELSEWHERE}, stripe.checkout.Session)
    session["url"] = f"{world.base_url}/checkout/{session['id']}"
    world.orders[session["id"]] = {"line_items": items, "subscription_data": offered}
    world.at(expires_at, expire_when_due, session)
    return session


def _line_items(world: World, given: list[Thing]) -> list[Thing]:
    if not given:
        raise invalid("Missing required param: line_items.", "line_items", "parameter_missing")
    items: list[Thing] = []
    for number, one in enumerate(given):
        param = f"line_items[{number}][price]"
        if "price_data" in one:
            raise unsupported("`price_data` in Checkout: make a price first", f"line_items[{number}][price_data]")
        price = catalogue.sold(world, one.get("price", ""), param)
        metered = bool(price["recurring"]) and price["recurring"]["usage_type"] == "metered"
        if not metered and "quantity" not in one:
            raise invalid("Quantity is required for non-metered prices.", f"line_items[{number}][quantity]")
        quantity = None if metered else one["quantity"]
        amount = 0 if metered else catalogue.amount_of(price, quantity or 0)
        items.append(
            {
                "id": world.new_id("li"),
                "object": "item",
                "adjustable_quantity": None,
                "amount_discount": 0,
                "amount_subtotal": amount,
                "amount_tax": 0,
                "amount_total": amount,
                "currency": "usd",
                "description": catalogue.named(world, price),
                "discounts": [],
                "metadata": {},
                "price": dict(price),
                "quantity": quantity,
                "taxes": [],
            }
        )
    if not any(item["price"]["recurring"] for item in items):
        raise invalid("You must provide at least one recurring price in `subscription` mode.", "line_items")
    return items


def update(world: World, params: Thing, session: str) -> Thing:
    """POST /v1/checkout/sessions/{id}."""
    thing = world.get("checkout.session", session)
    store(thing, params, stripe.checkout.Session)
    return thing


def line_items(world: World, session_id: str) -> Thing:
    """What the session sells, as `expand=["line_items"]` shows it."""
    return listed(f"/v1/checkout/sessions/{session_id}/line_items", world.orders[session_id]["line_items"])


def expire(world: World, _params: Thing, session: str) -> Thing:
    """POST …/expire."""
    thing = world.get("checkout.session", session)
    if thing["status"] != "open":
        raise invalid("Only Checkout Sessions with a status in [`open`] can be expired.")
    thing |= {"status": "expired", "url": None}
    world.emit("checkout.session.expired", thing)
    return thing


def expire_when_due(world: World, session_id: str) -> None:
    """Its day is over."""
    if world.get("checkout.session", session_id)["status"] == "open":
        expire(world, {}, session_id)


def complete(world: World, session_id: str, card: TestCard, email: str | None = None, name: str | None = None) -> Thing:
    """Pay: the customer, the card, the subscription and its first invoice come to be, in that order.

    Raises StripeProblem 402 when the card is refused: the session stays open, and another card may be tried.
    """
    session = world.get("checkout.session", session_id)
    if session["status"] != "open":
        raise invalid(f"This Checkout Session is {session['status']}.")
    order = world.orders[session_id]
    method = cards.from_card(world, card)
    refusal = cards.refusal_of(world, method)
    if refusal and refusal is not cards.AUTHENTICATION and session["amount_total"]:
        intent = payments.new_intent(world, session["customer"], session["amount_total"], "Subscription creation")
        payments.attempt(world, intent, method)
        raise payments.refused(refusal, intent)
    customer = _customer(world, session, email, name)
    cards.attach(world, method["id"], customer)
    offered = order["subscription_data"]
    given: dict[str, Any] = {
        **offered,
        "customer": customer["id"],
        "items": [
            {"price": item["price"]["id"]} | ({"quantity": item["quantity"]} if item["quantity"] else {})
            for item in order["line_items"]
        ],
        "default_payment_method": method["id"],
    }
    # The cardholder sits before the page, so a bank that wants to be asked has been asked.
    behaviour, world.behaviours[method["id"]] = world.behaviours[method["id"]], "succeeds"
    subscription = beginnings.create(world, given)
    world.behaviours[method["id"]] = behaviour
    session |= {
        "status": "complete",
        "payment_status": "paid" if session["amount_total"] else "no_payment_required",
        "customer": customer["id"],
        "customer_details": dict.fromkeys(stripe.checkout.Session.CustomerDetails.__annotations__)
        | {"email": customer["email"], "name": customer["name"], "tax_exempt": "none", "tax_ids": []},
        "subscription": subscription["id"],
        "invoice": subscription["latest_invoice"],
        "url": None,
    }
    world.emit("checkout.session.completed", session)
    return session


def _customer(world: World, session: Thing, email: str | None, name: str | None) -> Thing:
    if session["customer"]:
        return world.alive("customer", session["customer"], "customer")
    known = session["customer_email"] or email
    if not known:
        raise invalid("An e-mail address is needed.", "email")
    return customers.create(world, {"email": known} | ({"name": name} if name else {}))


# The customer portal


def create_portal(world: World, params: Thing) -> Thing:
    """POST /v1/billing_portal/sessions."""
    customer = world.alive("customer", params.get("customer", ""), "customer")
    flow = params.pop("flow_data", None)
    session = world.new(
        stripe.billing_portal.Session,
        "bps",
        configuration="bpc_simulator",
        created=world.time_of(customer),
        customer=customer["id"],
        flow=flow and {"after_completion": {"type": "portal_homepage"}} | flow,
    )
    store(session, {k: v for k, v in params.items() if k != "customer"}, stripe.billing_portal.Session)
    session["url"] = f"{world.base_url}/portal/{session['id']}"
    return session


def portal_cancel(world: World, subscription_id: str) -> Thing:
    """End it with the period. In the flexible billing mode the portal sets `cancel_at`, not `cancel_at_period_end`."""
    end = changes.period_of(world.get("subscription", subscription_id))[1]
    return subscriptions.update(world, {"cancel_at": end}, subscription_id)


def portal_resume(world: World, subscription_id: str) -> Thing:
    """Take the cancellation back."""
    return subscriptions.update(world, {"cancel_at": ""}, subscription_id)


def portal_card(world: World, customer_id: str, card: TestCard) -> Thing:
    """Replace the card by which the customer and its subscriptions pay."""
    customer = world.alive("customer", customer_id)
    method = cards.attach(world, cards.from_card(world, card)["id"], customer)
    customers.update(world, {"invoice_settings": {"default_payment_method": method["id"]}}, customer_id)
    for subscription in world.where("subscription", customer=customer_id):
        if subscription["default_payment_method"] and subscription["ended_at"] is None:
            subscriptions.update(world, {"default_payment_method": method["id"]}, subscription["id"])
    return method
