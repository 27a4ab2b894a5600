"""How subscriptions end: at a moment that is set, at once, or with their customer."""

from standalone.stripe_simulator import changes, customers, invoice_lines, renewals, standing
from standalone.stripe_simulator.problems import invalid, missing
from standalone.stripe_simulator.shapes import Thing
from standalone.stripe_simulator.world import World


def schedule(world: World, subscription: Thing, params: Thing) -> None:
    """Set or take back a cancellation that is to come.

    In the flexible billing mode a cancellation set as `cancel_at` (the customer portal does that) is not taken back by
    `cancel_at_period_end=false`, only by an empty `cancel_at`.
    """
    if "cancel_at" in params and "cancel_at_period_end" in params:
        raise invalid("Received both cancel_at and cancel_at_period_end parameters. Please pass in only one.")
    now, (_, end) = world.time_of(subscription), changes.period_of(subscription)
    moment = params.get("cancel_at")
    if params.get("cancel_at_period_end"):
        moment = end
    elif "cancel_at_period_end" in params and subscription["cancel_at_period_end"]:
        moment = ""
    if moment is None:
        return
    if moment in {"min_period_end", "max_period_end", "max_billed_until"}:
        moment = end
    if moment and moment <= now:
        raise invalid("Timestamp must be in the future.", "cancel_at")
    reason = "cancellation_requested" if moment else None
    subscription |= {
        "cancel_at": moment or None,
        "cancel_at_period_end": bool(params.get("cancel_at_period_end")),
        "canceled_at": now if moment else None,
        "cancellation_details": subscription["cancellation_details"] | {"reason": reason},
    }


def cancel(world: World, params: Thing, subscription: str) -> Thing:
    """DELETE /v1/subscriptions/{id}: now; `prorate` gives credit for the rest, `invoice_now` bills what waits."""
    thing = world.get("subscription", subscription)
    if thing["status"] in standing.ENDED:
        raise missing("subscription", subscription)
    now, period = world.time_of(thing), changes.period_of(thing)
    unused = [line for item in thing["items"]["data"] for line in changes.credit(world, thing, item, now)]
    standing.drop_change(world, thing)
    details = params.get("cancellation_details") or {}
    thing["cancellation_details"] = thing["cancellation_details"] | details
    for line in unused if params.get("prorate") else []:
        invoice_lines.keep_as_item(world, world.get("customer", thing["customer"]), line)
    final = None
    if params.get("invoice_now"):
        final = renewals.final_invoice(world, thing, (period[0], now), "subscription_update")
    standing.end(world, thing, "cancellation_requested")
    renewals.collect_final(world, final)
    return thing


def delete_customer(world: World, _params: Thing, customer: str) -> Thing:
    """DELETE /v1/customers/{id}: its subscriptions end at once."""
    thing = world.alive("customer", customer)
    for subscription in world.where("subscription", customer=customer):
        if subscription["status"] not in standing.ENDED:
            standing.end(world, subscription, "cancellation_requested")
    world.emit("customer.deleted", thing)
    emptied = customers.emptied(thing)
    world.table("customer")[customer] = emptied
    return emptied
