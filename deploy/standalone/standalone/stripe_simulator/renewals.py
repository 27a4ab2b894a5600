"""What time does to a subscription: renewals, the end of a trial, cancellations that were set for later."""

from standalone.stripe_simulator import changes, collection, invoice_lines, invoices, standing
from standalone.stripe_simulator.changes import Change
from standalone.stripe_simulator.clock import DAY
from standalone.stripe_simulator.shapes import Thing
from standalone.stripe_simulator.world import World


def schedule(world: World, subscription: Thing) -> None:
    """See to the subscription when its period ends, or when it is to be cancelled."""
    _, end = changes.period_of(subscription)
    cancel_at = subscription["cancel_at"]
    world.at(min(end, cancel_at or end), turn, subscription)
    trial_end = subscription["trial_end"]
    if subscription["status"] == "trialing" and trial_end:
        world.at(max(trial_end - 3 * DAY, world.time_of(subscription)), announce_trial_end, subscription)


def announce_trial_end(world: World, subscription_id: str) -> None:
    """Three days before a trial ends, or at once if it is shorter."""
    subscription = world.get("subscription", subscription_id)
    if subscription["status"] == "trialing" and subscription["trial_end"] - 3 * DAY <= world.time_of(subscription):
        world.emit("customer.subscription.trial_will_end", subscription)


def turn(world: World, subscription_id: str) -> None:
    """The moment has come to renew or to end, unless something changed since it was set."""
    subscription = world.get("subscription", subscription_id)
    now = world.time_of(subscription)
    if subscription["status"] in standing.ENDED | {"incomplete"}:
        return
    cancel_at = subscription["cancel_at"]
    if cancel_at is not None and cancel_at <= now:
        end(world, subscription)
        return
    start, period_end = changes.period_of(subscription)
    if period_end <= now:
        renew(world, subscription, (start, period_end))
        schedule(world, subscription)


def end(world: World, subscription: Thing) -> None:
    """Cancel at the moment that was set; what was used and what waits is billed a last time."""
    standing.drop_change(world, subscription)
    final = final_invoice(world, subscription, changes.period_of(subscription), "subscription_cycle")
    standing.end(world, subscription, "cancellation_requested")
    collect_final(world, final)


def final_invoice(world: World, subscription: Thing, period: tuple[int, int], reason: str) -> Thing | None:
    """The last invoice, if there is anything to bill: usage, and invoice items that wait."""
    customer = world.get("customer", subscription["customer"])
    lines = _usage(world, subscription, period)
    if not lines and not invoice_lines.pending(world, customer["id"], subscription["id"]):
        return None
    invoice = invoices.draft(world, customer, reason, lines, subscription=subscription, period=period)
    subscription["latest_invoice"] = invoice["id"]
    return invoice


def collect_final(world: World, invoice: Thing | None) -> None:
    """Charge the last invoice, though the subscription has ended."""
    if invoice:
        invoice["auto_advance"] = True
        collection.finalize_and_collect(world, invoice)


def _usage(world: World, subscription: Thing, period: tuple[int, int]) -> list[Thing]:
    metered = [item for item in subscription["items"]["data"] if item["quantity"] is None]
    return [invoice_lines.metered(world, subscription, item, period) for item in metered]


def renew(world: World, subscription: Thing, ended: tuple[int, int]) -> None:
    """Begin the next period: its invoice is a draft for an hour, then it is charged."""
    standing.drop_change(world, subscription)
    items = subscription["items"]["data"]
    customer = world.get("customer", subscription["customer"])
    period = (ended[1], changes.next_boundary(items[0]["price"], subscription["billing_cycle_anchor"], ended[1]))
    moved = [item | {"current_period_start": period[0], "current_period_end": period[1]} for item in items]
    change = Change(moved)
    changes.bill(world, subscription, change, period)
    lines = [*_usage(world, subscription, ended), *change.lines]
    paused = subscription["pause_collection"]
    with world.changing(subscription, "customer.subscription.updated"):
        changes.make(world, subscription, change)
        if subscription["status"] == "trialing":
            subscription["status"] = "active"
        invoice = invoices.draft(
            world, customer, "subscription_cycle", lines, subscription=subscription, period=ended, announce=False
        )
        subscription["latest_invoice"] = invoice["id"]
    advances = subscription["status"] != "unpaid" and not (paused and paused["behavior"] == "keep_as_draft")
    due = world.time_of(subscription) + world.rules.finalization_delay_seconds
    invoice |= {"auto_advance": advances, "automatically_finalizes_at": due if advances else None}
    world.emit("invoice.created", invoice)
    if paused and advances:
        invoice["auto_advance"] = False
        invoices.finalize(world, invoice)
        give_up = collection.void if paused["behavior"] == "void" else collection.mark_uncollectible
        give_up(world, {}, invoice["id"])
    elif advances:
        world.at(due, collection.finalize_when_due, invoice)
