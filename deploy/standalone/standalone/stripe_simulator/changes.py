"""What a change of plan does: the items it leaves, the credit for what was not used, the charge for what remains.

Amounts are in cents, in proportion to seconds, each line rounded once (half a cent away from zero). As in Stripe's
flexible billing mode, a credit gives back the unused part of what was last *billed* for an item, not of its list price.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import stripe

from standalone.stripe_simulator import catalogue, invoice_lines
from standalone.stripe_simulator.clock import period_after
from standalone.stripe_simulator.problems import invalid
from standalone.stripe_simulator.shapes import Thing, cents
from standalone.stripe_simulator.world import Billed, World


@dataclass(slots=True)
class Change:
    """A change that is worked out and not yet made."""

    items: list[Thing]
    prorations: list[Thing] = field(default_factory=list)
    lines: list[Thing] = field(default_factory=list)
    """Whole periods, when a new one begins with the change."""
    billed: dict[str, Billed] = field(default_factory=dict)
    anchor: int | None = None
    ends_trial: bool = False
    invoice: str | None = None

    @property
    def amount(self) -> int:
        """What it costs, in cents; negative when it gives back."""
        return sum(line["amount"] for line in [*self.prorations, *self.lines])


def period_of(subscription: Thing) -> tuple[int, int]:
    """The current period: that of the items, which here all bill together."""
    items = subscription["items"]["data"]
    return items[0]["current_period_start"], items[0]["current_period_end"]


def next_boundary(price: Thing, anchor: int, moment: int) -> int:
    """When the period ends that holds the moment."""
    return period_after(moment, anchor, price["recurring"]["interval"], price["recurring"]["interval_count"])


def new_item(world: World, subscription_id: str, given: Thing, period: tuple[int, int], created: int) -> Thing:
    """A subscription item for `{price, quantity, metadata}`. Raises StripeProblem."""
    unknown = given.keys() - {"price", "quantity", "metadata", "id", "deleted", "clear_usage"}
    if unknown:
        raise invalid(f"The simulator does not do items with `{min(unknown)}`.", f"items[{min(unknown)}]")
    price = catalogue.sold(world, given.get("price", ""), "items[0][price]")
    if not price["recurring"]:
        raise invalid("The price specified is set to `type=one_time` but this field only accepts `type=recurring`.")
    quantity = None if price["recurring"]["usage_type"] == "metered" else given.get("quantity", 1)
    return {
        "id": world.new_id("si"),
        "object": "subscription_item",
        "billed_until": None,
        "billing_thresholds": None,
        "created": created,
        "current_period_start": period[0],
        "current_period_end": period[1],
        "current_trial": None,
        "discounts": [],
        "metadata": given.get("metadata") or {},
        "plan": _plan(price),
        "price": dict(price),
        "quantity": quantity,
        "subscription": subscription_id,
        "tax_rates": [],
    }


def _plan(price: Thing) -> Thing:
    shared = ("active", "billing_scheme", "created", "currency", "id", "livemode", "metadata", "nickname", "product")
    plan = {k: price[k] for k in shared} | {"object": "plan", "amount": price["unit_amount"], "tiers_mode": None}
    return plan | dict(price["recurring"]) | {"amount_decimal": price["unit_amount_decimal"], "transform_usage": None}


def same_interval(items: list[Thing]) -> None:
    """Raises StripeProblem 400 where prices of different intervals would bill together."""
    intervals = {(one["price"]["recurring"]["interval"], one["price"]["recurring"]["interval_count"]) for one in items}
    if len(intervals) > 1:
        raise invalid("The simulator bills all items of a subscription at the same interval.", "items")
    prices = [one["price"]["id"] for one in items]
    if len(set(prices)) < len(prices):
        raise invalid("Subscription cannot have multiple subscription items with the same price.", "items")


def planned(
    world: World,
    subscription: Thing,
    given: list[Thing],
    *,
    at: int,
    prorate: bool,
    anew: bool = False,
) -> Change:
    """Work the change out at that moment. `anew`: a new period begins with it, whatever the interval."""
    before = {item["id"]: item for item in subscription["items"]["data"]}
    period = period_of(subscription)
    after = _items_after(world, subscription, given, before, period, at)
    same_interval(after)
    interval = {one["price"]["recurring"]["interval"] for one in after} != {
        one["price"]["recurring"]["interval"] for one in before.values()
    }
    trialing = subscription["status"] == "trialing"
    if (interval and not trialing) or anew:
        return _anew(world, subscription, before, after, at, prorate=prorate)
    change = Change(after)
    if not prorate or trialing:
        return change
    for item in after:
        was = before.pop(item["id"], None)
        if was and (was["price"]["id"], was["quantity"]) == (item["price"]["id"], item["quantity"]):
            continue
        if was:
            change.prorations += credit(world, subscription, was, at)
        if item["quantity"] is not None and at < period[1]:
            whole = catalogue.amount_of(item["price"], item["quantity"])
            amount = cents(Decimal(whole) * (period[1] - at) / (period[1] - period[0]))
            change.prorations.append(invoice_lines.proration(world, subscription, item, amount, (at, period[1])))
            change.billed[item["id"]] = Billed(amount, at, period[1])
    for gone in before.values():
        change.prorations += credit(world, subscription, gone, at)
    return change


def _items_after(
    world: World, subscription: Thing, given: list[Thing], before: dict[str, Thing], period: tuple[int, int], at: int
) -> list[Thing]:
    after = dict(before)
    for one in given:
        item_id = one.get("id")
        if item_id and item_id not in before:
            raise invalid(f"No such subscription item: '{item_id}'", "items[0][id]", "resource_missing")
        if one.get("deleted"):
            after.pop(item_id or "", None)
            continue
        made = new_item(world, subscription["id"], _defaults(one, before.get(item_id or "")), period, at)
        if item_id:
            was = before[item_id]
            made |= {"id": item_id, "created": was["created"], "metadata": one.get("metadata", was["metadata"])}
        after[made["id"]] = made
    if not after:
        raise invalid("A subscription must have at least one active plan.", "items")
    return list(after.values())


def _defaults(given: Thing, was: Thing | None) -> Thing:
    if was is None:
        return given
    kept: dict[str, Any] = {"price": was["price"]["id"]}
    if was["quantity"] is not None:
        kept["quantity"] = was["quantity"]
    return kept | given


def credit(world: World, subscription: Thing, item: Thing, at: int) -> list[Thing]:
    """The line that gives back what was billed for the time after `at`; none where nothing was."""
    billed = world.billed.get(item["id"])
    if billed is None or not billed.start <= at < billed.end:
        return []
    amount = cents(Decimal(billed.amount) * (billed.end - at) / (billed.end - billed.start))
    return [invoice_lines.proration(world, subscription, item, -amount, (at, billed.end))] if amount else []


def _anew(
    world: World, subscription: Thing, before: dict[str, Thing], after: list[Thing], at: int, *, prorate: bool
) -> Change:
    end = next_boundary(after[0]["price"], at, at)
    change = Change(after, anchor=at, ends_trial=True)
    for item in before.values():
        change.prorations += credit(world, subscription, item, at) if prorate else []
    change.items = [item | {"current_period_start": at, "current_period_end": end} for item in after]
    bill(world, subscription, change, (at, end))
    return change


def bill(world: World, subscription: Thing, change: Change, period: tuple[int, int], *, free: bool = False) -> None:
    """Add the lines for a whole period ahead."""
    for item in change.items:
        if item["quantity"] is not None:
            line = invoice_lines.licensed(world, subscription, item, period, free=free)
            change.lines.append(line)
            change.billed[item["id"]] = Billed(line["amount"], *period)


def make(world: World, subscription: Thing, change: Change) -> None:
    """Let the change take effect on the subscription itself; its caller announces it."""
    subscription["items"] = subscription["items"] | {"data": change.items}
    for item in change.items:
        world.table(stripe.SubscriptionItem.OBJECT_NAME)[item["id"]] = item
    world.billed |= change.billed
    if change.anchor is not None:
        subscription["billing_cycle_anchor"] = change.anchor
    if change.ends_trial and subscription["status"] == "trialing":
        subscription |= {"status": "active", "trial_end": change.anchor}
