"""The standing of a subscription: what paid, unpaid and void invoices make of it, and how it ends."""

from standalone.stripe_simulator import changes, invoices, payments
from standalone.stripe_simulator.changes import Change
from standalone.stripe_simulator.shapes import Thing
from standalone.stripe_simulator.world import World

ENDED = frozenset({"canceled", "incomplete_expired"})


def waits_for(world: World, invoice: Thing) -> Change | None:
    """The change of plan that takes effect when this invoice is paid."""
    subscription = invoices.subscription_of(world, invoice)
    change = subscription and world.pending_changes.get(subscription["id"])
    return change if change and change.invoice == invoice["id"] else None


def after_payment(world: World, invoice: Thing) -> None:
    """An invoice was paid, or will not be asked for any more."""
    subscription = invoices.subscription_of(world, invoice)
    if subscription is None or subscription["status"] in ENDED:
        return
    change = waits_for(world, invoice)
    if change and invoice["status"] == "paid":
        del world.pending_changes[subscription["id"]]
        with world.changing(
            subscription, "customer.subscription.pending_update_applied", "customer.subscription.updated"
        ):
            changes.make(world, subscription, change)
            subscription["pending_update"] = None
    settle(world, subscription)
    _no_longer_delinquent(world, subscription["customer"])


def settle(world: World, subscription: Thing) -> None:
    """Good again when the latest invoice that was asked for is paid, or has been given up."""
    if subscription["status"] not in {"incomplete", "past_due", "unpaid"}:
        return
    asked = [
        one
        for one in of_subscription(world, subscription)
        if one["status"] in {"open", "paid", "uncollectible"} and not waits_for(world, one)
    ]
    if asked and asked[-1]["status"] != "open":
        with world.changing(subscription, "customer.subscription.updated"):
            subscription["status"] = "active"


def of_subscription(world: World, subscription: Thing) -> list[Thing]:
    """The subscription's invoices, oldest first."""
    own = world.invoices_of.get(subscription["id"], [])
    return [world.table("invoice")[one] for one in own if one in world.table("invoice")]


def _no_longer_delinquent(world: World, customer_id: str) -> None:
    customer = world.table("customer").get(customer_id)
    if customer and customer.get("delinquent"):
        still = any(
            one["status"] == "open" and one["attempted"] for one in world.where("invoice", customer=customer_id)
        )
        if not still:
            with world.changing(customer, "customer.updated"):
                customer["delinquent"] = False


def after_failure(world: World, invoice: Thing, *, last: bool) -> None:
    """An attempt failed; `last`: the schedule of retries has none left."""
    customer = world.get("customer", invoice["customer"])
    subscription = invoices.subscription_of(world, invoice)
    if subscription is None or subscription["status"] in ENDED | {"incomplete"} or waits_for(world, invoice):
        return
    with world.changing(customer, "customer.updated"):
        customer["delinquent"] = True
    if last and world.rules.after_last_failure == "canceled":
        end(world, subscription, "payment_failed")
        return
    with world.changing(subscription, "customer.subscription.updated"):
        unpaid = last and world.rules.after_last_failure == "unpaid"
        subscription["status"] = "unpaid" if unpaid or subscription["status"] == "unpaid" else "past_due"


def expire_change(world: World, subscription_id: str) -> None:
    """Drop a change of plan that was not paid for in time."""
    subscription = world.get("subscription", subscription_id)
    waiting = subscription["pending_update"]
    if waiting and waiting["expires_at"] <= world.time_of(subscription):
        drop_change(world, subscription)


def drop_change(world: World, subscription: Thing) -> None:
    """Void the invoice of the change that waits, if there is one, and forget the change."""
    change: Change | None = world.pending_changes.pop(subscription["id"], None)
    if change is None:
        return
    with world.changing(subscription, "customer.subscription.pending_update_expired", "customer.subscription.updated"):
        subscription["pending_update"] = None
    invoice = world.get("invoice", change.invoice or "")
    if invoice["status"] == "open":
        void(world, invoice)


def void(world: World, invoice: Thing) -> None:
    """Make an open invoice as if it had never been asked for; what it did to the balance is undone."""
    now = world.time_of(invoice)
    invoices.give_back(world, invoice)
    with world.changing(invoice, "invoice.updated", "invoice.voided"):
        invoice |= {
            "status": "void",
            "auto_advance": False,
            "next_payment_attempt": None,
            "status_transitions": invoice["status_transitions"] | {"voided_at": now},
        }
    for payment in payments.payments_list(world, invoice["id"])["data"]:
        payment |= {"status": "canceled"}
        payment["status_transitions"] = payment["status_transitions"] | {"canceled_at": now}
        payments.cancel_intent(world, payments.intent_of(world, payment), "void_invoice")


def expire_incomplete(world: World, subscription_id: str) -> None:
    """23 hours have passed since a subscription began without its first payment."""
    subscription = world.get("subscription", subscription_id)
    if subscription["status"] != "incomplete":
        return
    with world.changing(subscription, "customer.subscription.updated"):
        subscription |= {"status": "incomplete_expired", "ended_at": world.time_of(subscription)}
    _stop_collecting(world, subscription, voiding=True)


def end(world: World, subscription: Thing, reason: str | None) -> None:
    """Cancel now. Open invoices stay open, and are no longer collected by themselves."""
    world.pending_changes.pop(subscription["id"], None)
    now = world.time_of(subscription)
    was_incomplete = subscription["status"] == "incomplete"
    subscription |= {
        "status": "canceled",
        "ended_at": now,
        "canceled_at": subscription["canceled_at"] or now,
        "pending_update": None,
    }
    if reason and subscription["cancellation_details"]["reason"] is None:
        subscription["cancellation_details"] = subscription["cancellation_details"] | {"reason": reason}
    _stop_collecting(world, subscription, voiding=was_incomplete)
    world.emit("customer.subscription.deleted", subscription)


def _stop_collecting(world: World, subscription: Thing, *, voiding: bool) -> None:
    for invoice in of_subscription(world, subscription):
        if invoice["status"] == "open" and voiding:
            void(world, invoice)
        elif invoice["status"] in {"draft", "open"}:
            with world.changing(invoice, "invoice.updated"):
                invoice |= {"auto_advance": False, "next_payment_attempt": None}
