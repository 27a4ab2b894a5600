"""Invoices themselves: drawn up from lines, finalized with a number, voided. What is charged for them: `collection`."""

from collections.abc import Sequence

import stripe

from standalone.stripe_simulator import customers, invoice_lines
from standalone.stripe_simulator.clock import DAY
from standalone.stripe_simulator.fields import store
from standalone.stripe_simulator.problems import invalid
from standalone.stripe_simulator.shapes import Thing, listed
from standalone.stripe_simulator.world import World


def draft(
    world: World,
    customer: Thing,
    reason: str,
    lines: Sequence[Thing],
    *,
    subscription: Thing | None = None,
    period: tuple[int, int] | None = None,
    pick_up: bool = True,
    announce: bool = True,
) -> Thing:
    """A draft of these lines and (`pick_up`) of the invoice items that wait, with its `invoice.created` event.

    Prorations that the change itself made are among those items. `announce=False` leaves the event to the caller.
    """
    invoice = world.new(stripe.Invoice, "in", **_fields(world, customer, reason, subscription, period))
    invoice["auto_advance"] = reason != "manual"
    if subscription:
        world.invoices_of.setdefault(subscription["id"], []).append(invoice["id"])
    bound_to = subscription["id"] if subscription else None
    waiting = invoice_lines.pending(world, customer["id"], bound_to) if pick_up else []
    for item in waiting:
        item["invoice"] = invoice["id"]
    for made in [*map(invoice_lines.line_of, waiting), *lines]:
        _append(world, invoice, made)
    recount(world, invoice)
    if announce:
        world.emit("invoice.created", invoice)
    return invoice


def _append(world: World, invoice: Thing, made: Thing) -> None:
    invoice["lines"]["data"].append(made | {"id": world.new_id("il"), "invoice": invoice["id"]})


def add_item(world: World, invoice: Thing, item: Thing) -> None:
    """Make an invoice item a line of the draft at once."""
    with world.changing(invoice, "invoice.updated"):
        _append(world, invoice, invoice_lines.line_of(item))
        recount(world, invoice)


def _fields(
    world: World, customer: Thing, reason: str, subscription: Thing | None, period: tuple[int, int] | None
) -> Thing:
    now = world.time_of(customer)
    parent = subscription and {
        "quote_details": None,
        "subscription_details": {
            "metadata": dict(subscription["metadata"]),
            "subscription": subscription["id"],
            "subscription_proration_date": None,
        },
        "type": "subscription_details",
    }
    return {
        "account_country": "US",
        "account_name": "Stripe simulator",
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_shipping": 0,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": True,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": False,
            "liability": None,
            "provider": None,
            "status": None,
        },
        "billing_reason": reason,
        "collection_method": subscription["collection_method"] if subscription else "charge_automatically",
        "created": now,
        "currency": "usd",
        "customer": customer["id"],
        "customer_address": customer["address"],
        "customer_email": customer["email"],
        "customer_name": customer["name"],
        "customer_phone": customer["phone"],
        "customer_tax_exempt": "none",
        "customer_tax_ids": [],
        "default_tax_rates": [],
        "discounts": [],
        "issuer": {"type": "self"},
        "lines": listed("/v1/invoices/lines", []),
        "parent": parent,
        "payment_settings": {
            "default_mandate": None,
            "payment_method_options": None,
            "payment_method_types": None,
        },
        "period_start": period[0] if period else now,
        "period_end": period[1] if period else now,
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "starting_balance": 0,
        "status": "draft",
        "status_transitions": dict.fromkeys(("finalized_at", "marked_uncollectible_at", "paid_at", "voided_at")),
        "test_clock": customer["test_clock"],
        "total_discount_amounts": [],
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
    }


def preview(
    world: World,
    customer: Thing,
    lines: Sequence[Thing],
    *,
    subscription: Thing | None,
    reason: str,
    period: tuple[int, int],
    at: int,
) -> Thing:
    """The invoice that would be drawn up: nothing is kept."""
    fields = _fields(world, customer, reason, subscription, period) | {"created": at}
    invoice = world.draft(stripe.Invoice, f"upcoming_in_{customer['id']}", **fields)
    invoice["lines"] = listed(
        f"/v1/invoices/{invoice['id']}/lines",
        [made | {"id": f"il_tmp_{n}", "invoice": invoice["id"]} for n, made in enumerate(lines, 1)],
    )
    recount(world, invoice)
    invoice["ending_balance"] = _balance_after(world, invoice)[0]
    return invoice


def recount(world: World, invoice: Thing) -> None:
    """Sum the lines, and set the customer's balance against them."""
    invoice["lines"]["url"] = f"/v1/invoices/{invoice['id']}/lines"
    total = sum(made["amount"] for made in invoice["lines"]["data"])
    for name in ("subtotal", "subtotal_excluding_tax", "total", "total_excluding_tax"):
        invoice[name] = total
    invoice["starting_balance"] = world.get("customer", invoice["customer"]).get("balance", 0)
    invoice["amount_due"] = invoice["amount_remaining"] = _balance_after(world, invoice)[1]


def _balance_after(world: World, invoice: Thing) -> tuple[int, int]:
    """The customer's balance afterwards, and what is due.

    A negative sum becomes credit; credit is used up; a debit is collected; less than the minimum is carried over.
    """
    owed = invoice["total"] + invoice["starting_balance"]
    small = owed < world.rules.minimum_charge_cents and invoice["collection_method"] == "charge_automatically"
    return (owed, 0) if invoice["total"] <= 0 or owed <= 0 or small else (0, owed)


def finalize(world: World, invoice: Thing) -> None:
    """Give it a number and make it final; from here only its payment changes."""
    if invoice["status"] != "draft":
        raise invalid("This invoice is already finalized, you can't re-finalize a non-draft invoice.")
    customer = world.get("customer", invoice["customer"])
    now = world.time_of(invoice)
    recount(world, invoice)
    ending, due = _balance_after(world, invoice)
    moved = ending - invoice["starting_balance"]
    if moved:
        customers.change_balance(world, customer, moved, "applied_to_invoice", invoice["id"])
    sequence = customer["next_invoice_sequence"]
    customer["next_invoice_sequence"] = sequence + 1
    invoice |= {
        "amount_due": due,
        "amount_remaining": due,
        "automatically_finalizes_at": None,
        "effective_at": now,
        "ending_balance": ending,
        "hosted_invoice_url": f"{world.base_url}/invoice/{invoice['id']}",
        "invoice_pdf": f"{world.base_url}/invoice/{invoice['id']}/pdf",
        "number": f"{customer['invoice_prefix']}-{sequence:04d}",
        "status": "open",
        "status_transitions": invoice["status_transitions"] | {"finalized_at": now},
        "webhooks_delivered_at": now,
    }
    if invoice["collection_method"] == "send_invoice" and invoice["due_date"] is None:
        invoice["due_date"] = now + 30 * DAY
    world.emit("invoice.finalized", invoice)


def give_back(world: World, invoice: Thing) -> None:
    """Undo what finalizing did to the customer's balance, as voiding does."""
    moved = invoice["starting_balance"] - (invoice["ending_balance"] or 0)
    if invoice["ending_balance"] is not None and moved:
        customer = world.get("customer", invoice["customer"])
        customers.change_balance(world, customer, moved, "unapplied_from_invoice", invoice["id"])


def update(world: World, params: Thing, invoice: str) -> Thing:
    """POST /v1/invoices/{id}."""
    thing = world.get("invoice", invoice)
    frozen = params.keys() & {"collection_method", "days_until_due", "due_date", "discounts", "default_tax_rates"}
    if frozen and thing["status"] != "draft":
        raise invalid("Finalized invoices can't be updated in this way", min(frozen))
    with world.changing(thing, "invoice.updated"):
        store(thing, params, stripe.Invoice)
    return thing


def subscription_of(world: World, invoice: Thing) -> Thing | None:
    """The subscription that the invoice is for."""
    details = invoice["parent"] and invoice["parent"]["subscription_details"]
    return world.get("subscription", details["subscription"]) if details else None
