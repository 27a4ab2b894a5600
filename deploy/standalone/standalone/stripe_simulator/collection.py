"""How invoices are collected: charged when they are final, tried again on a schedule, paid by hand, given up."""

import stripe

from standalone.stripe_simulator import cards, invoice_lines, invoices, payments, standing
from standalone.stripe_simulator.cards import Refusal
from standalone.stripe_simulator.clock import DAY
from standalone.stripe_simulator.fields import store
from standalone.stripe_simulator.problems import invalid
from standalone.stripe_simulator.shapes import Thing
from standalone.stripe_simulator.world import World

NO_CARD = Refusal("invoice_no_payment_method", None, "There is no payment method to charge for this invoice.")


def payer_of(world: World, invoice: Thing) -> Thing | None:
    """The card by which an invoice would be paid."""
    customer = world.get("customer", invoice["customer"])
    subscription = invoices.subscription_of(world, invoice)
    own = subscription["default_payment_method"] if subscription else None
    return cards.payer(world, customer, invoice["default_payment_method"], own)


def finalize_and_collect(world: World, invoice: Thing) -> Refusal | None:
    """Finalize, and charge at once what is to be charged by itself. Returns why that failed, if it did."""
    invoices.finalize(world, invoice)
    if invoice["amount_due"] == 0:
        mark_paid(world, invoice)
        return None
    payments.open_payment(world, invoice)
    if invoice["auto_advance"] and invoice["collection_method"] == "charge_automatically":
        return collect(world, invoice)
    return None


def finalize_when_due(world: World, invoice_id: str) -> None:
    """The hour of a renewal's draft is over."""
    invoice = world.table("invoice").get(invoice_id)
    if invoice and invoice["status"] == "draft" and invoice["auto_advance"]:
        finalize_and_collect(world, invoice)


def collect(
    world: World, invoice: Thing, method: Thing | None = None, *, confirmed: bool = False, by_hand: bool = False
) -> Refusal | None:
    """Try once to have the invoice paid. Returns why not, or None when it is paid."""
    method = method or payer_of(world, invoice)
    payment = payments.default_payment(world, invoice)
    intent = payments.intent_of(world, payment)
    refusal = payments.attempt(world, intent, method, confirmed=confirmed) if method else NO_CARD
    if refusal is None:
        now = world.time_of(invoice)
        payment |= {"status": "paid", "amount_paid": payment["amount_requested"]}
        payment["status_transitions"] = payment["status_transitions"] | {"paid_at": now}
        mark_paid(world, invoice, attempted=not (by_hand and invoice["attempted"]))
        world.emit("invoice_payment.paid", payment)
        return None
    _failed(world, invoice, refusal, counts=not (by_hand and invoice["attempted"]))
    return refusal


def mark_paid(world: World, invoice: Thing, *, attempted: bool = False, off_stripe: bool = False) -> None:
    """The invoice is paid: by a card, by nothing being due, or outside Stripe."""
    now = world.time_of(invoice)
    with world.changing(invoice, "invoice.updated"):
        invoice |= {
            "status": "paid",
            "attempted": True,
            "attempt_count": invoice["attempt_count"] + int(attempted),
            "amount_paid": invoice["amount_due"],
            "amount_paid_off_stripe": invoice["amount_due"] if off_stripe else 0,
            "amount_remaining": 0,
            "auto_advance": False,
            "next_payment_attempt": None,
            "status_transitions": invoice["status_transitions"] | {"paid_at": now},
        }
    world.emit("invoice.paid", invoice)
    world.emit("invoice.payment_succeeded", invoice)
    standing.after_payment(world, invoice)


def _failed(world: World, invoice: Thing, refusal: Refusal, *, counts: bool) -> None:
    now = world.time_of(invoice)
    first = world.first_attempts.setdefault(invoice["id"], now)
    attempts = invoice["attempt_count"] + int(counts)
    retried = invoice["billing_reason"] != "subscription_create" and not standing.waits_for(world, invoice)
    left = world.rules.retry_days[attempts - 1 :] if retried and invoice["auto_advance"] else ()
    upcoming = first + left[0] * DAY if left else None
    with world.changing(invoice, "invoice.updated"):
        invoice |= {"attempted": True, "attempt_count": attempts, "next_payment_attempt": upcoming}
    world.emit("invoice.payment_failed", invoice)
    if refusal is cards.AUTHENTICATION:
        world.emit("invoice.payment_action_required", invoice)
    if upcoming is not None and counts:
        world.at(upcoming, retry, invoice)
    standing.after_failure(world, invoice, last=retried and upcoming is None)


def retry(world: World, invoice_id: str) -> None:
    """The next attempt of the schedule."""
    invoice = world.get("invoice", invoice_id)
    due = invoice["next_payment_attempt"]
    if invoice["status"] == "open" and due is not None and due <= world.time_of(invoice):
        collect(world, invoice)


# What the API offers


def create(world: World, params: Thing) -> Thing:
    """POST /v1/invoices: a draft; without `auto_advance` it stays one."""
    customer = world.alive("customer", params.pop("customer", ""), "customer")
    subscription_id = params.pop("subscription", None)
    subscription = world.get("subscription", subscription_id, "subscription") if subscription_id else None
    pick_up = params.pop("pending_invoice_items_behavior", "exclude") == "include" or subscription is not None
    auto_advance = params.pop("auto_advance", False)
    days = params.pop("days_until_due", None)
    invoice = invoices.draft(world, customer, "manual", [], subscription=subscription, pick_up=pick_up, announce=False)
    store(invoice, params, stripe.Invoice)
    invoice["auto_advance"] = auto_advance
    if days is not None:
        invoice["due_date"] = world.time_of(invoice) + days * DAY
    if auto_advance:
        invoice["automatically_finalizes_at"] = world.time_of(invoice) + world.rules.finalization_delay_seconds
        world.at(invoice["automatically_finalizes_at"], finalize_when_due, invoice)
    invoices.recount(world, invoice)
    world.emit("invoice.created", invoice)
    return invoice


def finalize(world: World, params: Thing, invoice: str) -> Thing:
    """POST …/finalize: with `auto_advance` it is charged about an hour later; here at once."""
    thing = world.get("invoice", invoice)
    if thing["status"] != "draft":
        raise invalid("This invoice is already finalized, you can't re-finalize a non-draft invoice.")
    thing["auto_advance"] = params.get("auto_advance", thing["auto_advance"])
    finalize_and_collect(world, thing)
    return thing


def pay(world: World, params: Thing, invoice: str) -> Thing:
    """POST …/pay: now, by a card or (`paid_out_of_band`) outside Stripe. Raises StripeProblem 402 on a refusal."""
    thing = world.get("invoice", invoice)
    if thing["status"] == "draft":
        invoices.finalize(world, thing)
    if thing["status"] == "paid":
        raise invalid("Invoice is already paid")
    if thing["status"] == "void":
        raise invalid("Invoice is void: it can no longer be paid.")
    if thing["amount_due"] == 0:
        mark_paid(world, thing)
        return thing
    if params.get("paid_out_of_band"):
        payment = payments.default_payment(world, thing)
        payments.cancel_intent(world, payments.intent_of(world, payment), "automatic")
        payment |= {"status": "canceled"}
        mark_paid(world, thing, off_stripe=True)
        return thing
    given = params.get("payment_method")
    method = cards.find(world, given) if given else payer_of(world, thing)
    if method is None:
        raise invalid(
            "There is no `default_payment_method` set on this Customer or Invoice. Please attach a payment method "
            "before attempting to pay.",
            code="resource_missing",
        )
    refusal = collect(world, thing, method, by_hand=True)
    if refusal:
        raise payments.refused(refusal, payments.intent_of(world, payments.default_payment(world, thing)))
    return thing


def void(world: World, _params: Thing, invoice: str) -> Thing:
    """POST …/void. A change of plan that waited for it is dropped; a first invoice takes its subscription along."""
    thing = world.get("invoice", invoice)
    if thing["status"] not in {"open", "uncollectible"}:
        raise invalid(f"You can only pass in open or uncollectible invoices. This invoice is {thing['status']}.")
    subscription = invoices.subscription_of(world, thing)
    if subscription and standing.waits_for(world, thing):
        standing.drop_change(world, subscription)
        return thing
    standing.void(world, thing)
    if subscription and subscription["status"] == "incomplete":
        with world.changing(subscription, "customer.subscription.updated"):
            subscription |= {"status": "incomplete_expired", "ended_at": world.time_of(thing)}
    else:
        standing.after_payment(world, thing)
    return thing


def mark_uncollectible(world: World, _params: Thing, invoice: str) -> Thing:
    """POST …/mark_uncollectible."""
    thing = world.get("invoice", invoice)
    if thing["status"] != "open":
        raise invalid("You can only mark an open invoice as uncollectible.")
    with world.changing(thing, "invoice.updated", "invoice.marked_uncollectible"):
        moment = {"marked_uncollectible_at": world.time_of(thing)}
        thing |= {
            "status": "uncollectible",
            "auto_advance": False,
            "next_payment_attempt": None,
            "status_transitions": thing["status_transitions"] | moment,
        }
    standing.after_payment(world, thing)
    return thing


def delete(world: World, _params: Thing, invoice: str) -> Thing:
    """DELETE /v1/invoices/{id}: drafts only; their invoice items wait again."""
    thing = world.get("invoice", invoice)
    if thing["status"] != "draft":
        raise invalid("You can only delete draft invoices", None, "invoice_not_editable")
    for item in world.where("invoiceitem", invoice=invoice):
        item["invoice"] = None
    del world.table("invoice")[invoice]
    world.emit("invoice.deleted", thing)
    return {"id": invoice, "object": "invoice", "deleted": True}


def create_item(world: World, params: Thing) -> Thing:
    """POST /v1/invoiceitems; one that names a draft becomes its line at once."""
    item = invoice_lines.create_item(world, params)
    if item["invoice"]:
        invoices.add_item(world, world.get("invoice", item["invoice"]), item)
    return item
