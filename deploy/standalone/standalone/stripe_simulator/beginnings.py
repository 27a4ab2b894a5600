"""How subscriptions begin: with a first invoice that is paid, a trial, or not at all."""

import stripe

from standalone.stripe_simulator import cancellations, cards, changes, collection, invoices, renewals, standing
from standalone.stripe_simulator.changes import Change
from standalone.stripe_simulator.clock import DAY, HOUR
from standalone.stripe_simulator.fields import store
from standalone.stripe_simulator.problems import StripeProblem, invalid, unsupported
from standalone.stripe_simulator.shapes import Thing, listed
from standalone.stripe_simulator.world import World

_CREATION = {
    *("customer", "items", "payment_behavior", "proration_behavior", "trial_end", "trial_period_days", "cancel_at"),
    *("cancel_at_period_end", "default_payment_method", "billing_cycle_anchor", "currency", "off_session", "expand"),
}


def create(world: World, params: Thing) -> Thing:
    """POST /v1/subscriptions."""
    customer = world.alive("customer", params.get("customer", ""), "customer")
    method_id = params.get("default_payment_method")
    payer = cards.payer(world, customer, method_id)
    behavior = params.get("payment_behavior", "allow_incomplete")
    subscription = _begun(world, customer, params, payer)
    change = Change(subscription["items"]["data"])
    changes.bill(world, subscription, change, changes.period_of(subscription), free=bool(subscription["trial_end"]))
    charged = params.get("collection_method") != "send_invoice" and change.amount > 0
    if charged and payer is None and behavior != "default_incomplete":
        raise invalid(
            "This customer has no attached payment source or default payment method. Please consider adding a default "
            "payment method.",
            code="resource_missing",
        )
    refusal = cards.refusal_of(world, payer)
    if charged and refusal and behavior == "error_if_incomplete":
        raise StripeProblem(402, "card_error", refusal.message, code=refusal.code, decline_code=refusal.decline_code)
    world.table("subscription")[subscription["id"]] = subscription
    begin(world, subscription, change, collected=behavior != "default_incomplete")
    return subscription


def _begun(world: World, customer: Thing, params: Thing, payer: Thing | None) -> Thing:
    """The subscription, not yet kept. Raises StripeProblem where the parameters do not do."""
    now = world.time_of(customer)
    subscription_id = world.new_id("sub")
    given = params.get("items") or []
    if not given:
        raise invalid("Missing required param: items.", "items", "parameter_missing")
    trial_end = _trial_end(params, now)
    first = changes.new_item(world, subscription_id, given[0], (now, now), now)
    anchor = trial_end or now
    end = trial_end or changes.next_boundary(first["price"], now, now)
    if params.get("billing_cycle_anchor") not in (None, now):
        raise unsupported("a first period that is shorter than the others", "billing_cycle_anchor")
    items = [changes.new_item(world, subscription_id, one, (now, end), now) for one in given]
    changes.same_interval(items)
    subscription = world.draft(
        stripe.Subscription,
        subscription_id,
        automatic_tax={"disabled_reason": None, "enabled": False, "liability": None},
        billing_cycle_anchor=anchor,
        billing_mode={"flexible": {"proration_discounts": "included"}, "type": "flexible", "updated_at": None},
        billing_schedules=[],
        cancel_at_period_end=False,
        cancellation_details=dict.fromkeys(("comment", "feedback", "feedback_option", "reason")),
        collection_method="charge_automatically",
        created=now,
        currency="usd",
        customer=customer["id"],
        default_payment_method=payer["id"] if payer and params.get("default_payment_method") else None,
        default_tax_rates=[],
        discounts=[],
        invoice_settings={
            **dict.fromkeys(("account_tax_ids", "custom_fields", "description", "footer")),
            "issuer": {"type": "self"},
        },
        items=listed(f"/v1/subscription_items?subscription={subscription_id}", items),
        payment_settings={
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        start_date=now,
        status="trialing" if trial_end else "incomplete",
        test_clock=customer["test_clock"],
        trial_end=trial_end,
        trial_settings={"end_behavior": {"missing_payment_method": "create_invoice"}},
        trial_start=now if trial_end else None,
    )
    store(subscription, {k: v for k, v in params.items() if k not in _CREATION}, stripe.Subscription)
    cancellations.schedule(world, subscription, params)
    return subscription


def _trial_end(params: Thing, now: int) -> int | None:
    days, given = params.get("trial_period_days"), params.get("trial_end")
    end = now + days * DAY if days else given
    if end in (None, "now", ""):
        return None
    if end <= now:
        raise invalid("Timestamp must be in the future.", "trial_end")
    return int(end)


def begin(world: World, subscription: Thing, change: Change, *, collected: bool = True) -> None:
    """Announce a new subscription, draw up its first invoice and have it paid."""
    customer = world.get("customer", subscription["customer"])
    with world.changing(customer, "customer.updated"):
        customer["currency"] = "usd"
    changes.make(world, subscription, change)
    invoice = invoices.draft(
        world, customer, "subscription_create", change.lines, subscription=subscription, announce=False
    )
    invoice["auto_advance"] = collected
    subscription["latest_invoice"] = invoice["id"]
    world.emit("customer.subscription.created", subscription)
    world.emit("invoice.created", invoice)
    if not collected:
        world.at(world.time_of(subscription) + 23 * HOUR, standing.expire_incomplete, subscription)
    refusal = collection.finalize_and_collect(world, invoice)
    if refusal and collected:
        world.at(world.time_of(subscription) + 23 * HOUR, standing.expire_incomplete, subscription)
    if subscription["collection_method"] == "send_invoice" and subscription["status"] == "incomplete":
        with world.changing(subscription, "customer.subscription.updated"):
            subscription["status"] = "active"
    renewals.schedule(world, subscription)
