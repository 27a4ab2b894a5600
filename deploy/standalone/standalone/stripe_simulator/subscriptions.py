"""Changes of a subscription: its plan with prorations, its settings, and changes that wait for their payment."""

from typing import Any

import stripe

from standalone.stripe_simulator import (
    cancellations,
    cards,
    changes,
    collection,
    invoice_lines,
    invoices,
    renewals,
    standing,
)
from standalone.stripe_simulator.cards import Refusal
from standalone.stripe_simulator.changes import Change
from standalone.stripe_simulator.clock import HOUR
from standalone.stripe_simulator.fields import store
from standalone.stripe_simulator.problems import StripeProblem, invalid, unsupported
from standalone.stripe_simulator.shapes import Thing
from standalone.stripe_simulator.world import World

_LATER = {
    *("items", "proration_behavior", "proration_date", "payment_behavior", "cancel_at", "cancel_at_period_end"),
    *("billing_cycle_anchor", "trial_end", "default_payment_method", "pause_collection", "off_session", "expand"),
    "cancellation_details",
}
_WITH_PENDING = {
    *("expand", "payment_behavior", "proration_behavior", "proration_date", "billing_cycle_anchor", "items"),
    *("trial_end", "trial_from_plan", "add_invoice_items", "off_session", "discounts"),
}
"""docs.stripe.com/billing/subscriptions/pending-updates-reference"""


def update(world: World, params: Thing, subscription: str) -> Thing:
    """POST /v1/subscriptions/{id}: all of it happens, or none."""
    thing = world.get("subscription", subscription)
    if thing["status"] in standing.ENDED and params.keys() - {"metadata", "cancellation_details", "expand"}:
        raise invalid("A canceled subscription can only update its cancellation_details and metadata.")
    behavior = params.get("payment_behavior", "allow_incomplete")
    if behavior == "pending_if_incomplete" and params.keys() - _WITH_PENDING:
        name = min(params.keys() - _WITH_PENDING)
        raise invalid(f"`{name}` is not supported when `payment_behavior` is `pending_if_incomplete`.", name)
    anew = params.get("billing_cycle_anchor") == "now" or params.get("trial_end") == "now"
    if isinstance(params.get("billing_cycle_anchor"), int) or isinstance(params.get("trial_end"), int):
        raise unsupported("moving the billing cycle to a moment other than now")
    change = _change(world, thing, params, anew=anew) if params.get("items") or anew else None
    if change and behavior in {"error_if_incomplete", "pending_if_incomplete"}:
        refusal = _would_be_refused(world, thing, change, params)
        if refusal and behavior == "error_if_incomplete":
            raise StripeProblem(
                402, "card_error", refusal.message, code=refusal.code, decline_code=refusal.decline_code
            )
        if refusal:
            _wait_for_payment(world, thing, change)
            return thing
    if change:
        standing.drop_change(world, thing)
    invoice = None
    with world.changing(thing, "customer.subscription.updated"):
        _settings(world, thing, params)
        if change:
            changes.make(world, thing, change)
            invoice = _bill_change(world, thing, change, params)
    if invoice:
        collection.finalize_and_collect(world, invoice)
        if not invoice["auto_advance"] and invoice["status"] == "open":
            standing.after_failure(world, invoice, last=False)
    if thing["status"] not in standing.ENDED:
        renewals.schedule(world, thing)
    return thing


def _change(world: World, subscription: Thing, params: Thing, *, anew: bool) -> Change:
    if subscription["status"] == "incomplete":
        raise invalid("The first invoice of the subscription is not paid: its items cannot be changed.", "items")
    now = world.time_of(subscription)
    start, end = changes.period_of(subscription)
    at = params.get("proration_date", now)
    if not start <= at <= end:
        raise invalid("Cannot specify proration_date outside of current subscription period.", "proration_date")
    prorate = params.get("proration_behavior", "create_prorations") != "none"
    return changes.planned(
        world, subscription, params.get("items", []), at=now if anew else at, prorate=prorate, anew=anew
    )


def _bills_now(change: Change, params: Thing) -> bool:
    return bool(change.lines) or params.get("proration_behavior") == "always_invoice"


def _would_be_refused(world: World, subscription: Thing, change: Change, params: Thing) -> Refusal | None:
    if not _bills_now(change, params) or subscription["collection_method"] != "charge_automatically":
        return None
    customer = world.get("customer", subscription["customer"])
    waiting = invoice_lines.pending(world, customer["id"], subscription["id"])
    total = change.amount + sum(item["amount"] for item in waiting) + customer["balance"]
    if total < world.rules.minimum_charge_cents:
        return None
    payer = cards.payer(world, customer, subscription["default_payment_method"])
    return cards.refusal_of(world, payer) if payer else collection.NO_CARD


def _draw_up(world: World, subscription: Thing, change: Change) -> Thing:
    customer = world.get("customer", subscription["customer"])
    for line in change.prorations:
        invoice_lines.keep_as_item(world, customer, line)
    period = changes.period_of(subscription)
    return invoices.draft(
        world, customer, "subscription_update", change.lines, subscription=subscription, period=period
    )


def _wait_for_payment(world: World, subscription: Thing, change: Change) -> None:
    """The change takes effect when its invoice is paid: within 23 hours and this period, or not at all."""
    standing.drop_change(world, subscription)
    now = world.time_of(subscription)
    invoice = _draw_up(world, subscription, change)
    change.invoice = invoice["id"]
    world.pending_changes[subscription["id"]] = change
    expires = min(now + 23 * HOUR, changes.period_of(subscription)[1])
    pending: dict[str, Any] = dict.fromkeys(stripe.Subscription.PendingUpdate.__annotations__)
    pending |= {"expires_at": expires, "subscription_items": change.items, "billing_cycle_anchor": change.anchor}
    with world.changing(subscription, "customer.subscription.updated"):
        subscription |= {"pending_update": pending, "latest_invoice": invoice["id"]}
    world.at(expires, standing.expire_change, subscription)
    collection.finalize_and_collect(world, invoice)


def _bill_change(world: World, subscription: Thing, change: Change, params: Thing) -> Thing | None:
    """Draw up the invoice of a change, or leave its prorations to the next one."""
    if not _bills_now(change, params):
        customer = world.get("customer", subscription["customer"])
        for line in change.prorations:
            invoice_lines.keep_as_item(world, customer, line)
        return None
    if not change.prorations and not change.lines:
        return None
    invoice = _draw_up(world, subscription, change)
    subscription["latest_invoice"] = invoice["id"]
    invoice["auto_advance"] = params.get("payment_behavior") != "default_incomplete"
    return invoice


def _settings(world: World, subscription: Thing, params: Thing) -> None:
    method_id = params.get("default_payment_method")
    if method_id:
        method = cards.find(world, method_id, "default_payment_method")
        if method["customer"] != subscription["customer"]:
            raise invalid("The payment method must be attached to the customer first.", "default_payment_method")
        subscription["default_payment_method"] = method["id"]
    elif method_id == "":
        subscription["default_payment_method"] = None
    if "pause_collection" in params:
        subscription["pause_collection"] = params["pause_collection"] or None
    store(subscription, {k: v for k, v in params.items() if k not in _LATER}, stripe.Subscription)
    details = params.get("cancellation_details") or {}
    subscription["cancellation_details"] = subscription["cancellation_details"] | details
    cancellations.schedule(world, subscription, params)
