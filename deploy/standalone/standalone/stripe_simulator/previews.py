"""`POST /v1/invoices/create_preview`: what the next invoice would say, or that of a change that is considered."""

from standalone.stripe_simulator import changes, invoice_lines, invoices
from standalone.stripe_simulator.changes import Change
from standalone.stripe_simulator.problems import invalid, unsupported
from standalone.stripe_simulator.shapes import Thing
from standalone.stripe_simulator.world import World

_KNOWN = {"customer", "subscription", "subscription_details", "invoice_items", "expand", "currency", "preview_mode"}
_KNOWN_DETAILS = {"items", "proration_behavior", "proration_date", "cancel_now", "cancel_at_period_end", "cancel_at"}


def create(world: World, params: Thing) -> Thing:
    """Nothing is kept, and no event is sent."""
    details = params.get("subscription_details") or {}
    strange = sorted((params.keys() - _KNOWN) | (details.keys() - _KNOWN_DETAILS))
    if strange:
        raise unsupported(f"`{strange[0]}` in previews", strange[0])
    subscription_id = params.get("subscription")
    if subscription_id is None:
        raise unsupported("previews without a subscription", "subscription")
    subscription = world.get("subscription", subscription_id, "subscription")
    customer = world.alive("customer", params.get("customer") or subscription["customer"], "customer")
    if subscription["ended_at"] is not None:
        raise invalid("No upcoming invoices for a canceled subscription.", "subscription", "invoice_upcoming_none")
    count = world.count
    try:
        return _preview(world, customer, subscription, details, params.get("invoice_items") or [])
    finally:
        world.count = count  # the ids that a preview drew are drawn again


def _preview(world: World, customer: Thing, subscription: Thing, details: Thing, extra: list[Thing]) -> Thing:
    now = world.time_of(subscription)
    start, end = changes.period_of(subscription)
    at = details.get("proration_date", now)
    behavior = details.get("proration_behavior", "create_prorations")
    waiting = [invoice_lines.line_of(item) for item in invoice_lines.pending(world, customer["id"], subscription["id"])]
    waiting += [_of_extra(one, now) for one in extra]
    change = Change(subscription["items"]["data"])
    if details.get("cancel_now"):
        change.prorations = [
            line
            for item in change.items
            if behavior != "none"
            for line in changes.credit(world, subscription, item, at)
        ]
    elif details.get("items"):
        change = changes.planned(world, subscription, details["items"], at=at, prorate=behavior != "none")
    immediate = bool(change.lines) or details.get("cancel_now") or behavior == "always_invoice"
    lines = [*waiting, *change.prorations, *change.lines]
    reason = "subscription_update" if details.get("items") or details.get("cancel_now") else "upcoming"
    if not immediate or reason == "upcoming":
        if subscription["cancel_at"] is None and not details.get("cancel_at_period_end"):
            following = changes.next_boundary(change.items[0]["price"], subscription["billing_cycle_anchor"], end)
            changes.bill(world, subscription, change, (end, following))
        lines = [*waiting, *change.prorations, *change.lines]
    return invoices.preview(
        world,
        customer,
        lines,
        subscription=subscription,
        reason="upcoming" if not immediate else reason,
        period=(start, end),
        at=now if immediate else end,
    )


def _of_extra(given: Thing, now: int) -> Thing:
    if "amount" not in given:
        raise unsupported("previews of invoice items without an `amount`", "invoice_items")
    period = given.get("period") or {"start": now, "end": now}
    return invoice_lines.line(given["amount"], given.get("description"), (period["start"], period["end"]), 1)
