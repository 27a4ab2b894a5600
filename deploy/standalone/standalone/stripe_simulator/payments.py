"""Payment intents and charges: what happens when a card is asked for money, and what comes back of it."""

from typing import Any

import stripe

from standalone.stripe_simulator import cards
from standalone.stripe_simulator.cards import Refusal
from standalone.stripe_simulator.clock import DAY
from standalone.stripe_simulator.fields import store
from standalone.stripe_simulator.problems import StripeProblem, invalid
from standalone.stripe_simulator.shapes import Thing, blank, dollars, fields_of, listed
from standalone.stripe_simulator.world import World


def new_intent(world: World, customer: str | None, amount: int, description: str) -> Thing:
    """A payment intent for that many cents, not yet attempted."""
    of_customer = world.table("customer").get(customer or "")
    intent = world.new(
        stripe.PaymentIntent,
        "pi",
        amount=amount,
        amount_capturable=0,
        amount_received=0,
        capture_method="automatic",
        confirmation_method="automatic",
        created=world.time_of(of_customer),
        currency="usd",
        customer=customer,
        description=description,
        payment_method_options={},
        payment_method_types=["card"],
        setup_future_usage="off_session",
        status="requires_payment_method",
    )
    intent["client_secret"] = f"{intent['id']}_secret_simulator"
    world.emit("payment_intent.created", intent)
    return intent


def attempt(world: World, intent: Thing, method: Thing, *, confirmed: bool = False) -> Refusal | None:
    """Ask the card. `confirmed`: its holder has just authenticated. Returns why not, or None when it has paid."""
    refusal = cards.refusal_of(world, method)
    if refusal is cards.AUTHENTICATION and confirmed:
        refusal = None
    if refusal is cards.AUTHENTICATION:
        intent |= {"status": "requires_action", "payment_method": method["id"], "last_payment_error": None}
        intent["next_action"] = {
            "type": "redirect_to_url",
            "redirect_to_url": {"return_url": None, "url": f"{world.base_url}/authenticate/{intent['id']}"},
        }
        world.emit("payment_intent.requires_action", intent)
        return refusal
    charge = _new_charge(world, intent, method, refusal)
    intent["latest_charge"] = charge["id"]
    intent["next_action"] = None
    if refusal:
        intent |= {"status": "requires_payment_method", "payment_method": None}
        intent["last_payment_error"] = {
            "charge": charge["id"],
            "code": refusal.code,
            "decline_code": refusal.decline_code,
            "message": refusal.message,
            "payment_method": dict(method),
            "type": "card_error",
        }
        world.emit("charge.failed", charge)
        world.emit("payment_intent.payment_failed", intent)
        return refusal
    intent |= {
        "status": "succeeded",
        "payment_method": method["id"],
        "amount_received": intent["amount"],
        "last_payment_error": None,
    }
    world.emit("charge.succeeded", charge)
    world.emit("payment_intent.succeeded", intent)
    return None


def _new_charge(world: World, intent: Thing, method: Thing, refusal: Refusal | None) -> Thing:
    paid = refusal is None
    outcome: dict[str, Any] = {
        "advice_code": None,
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": "approved_by_network" if paid else "declined_by_network",
        "reason": refusal and refusal.decline_code,
        "risk_level": "normal",
        "risk_score": 20,
        "seller_message": "Payment complete." if paid else "The bank returned a decline code.",
        "type": "authorized" if paid else "issuer_declined",
    }
    charge = world.new(
        stripe.Charge,
        "ch",
        amount=intent["amount"],
        amount_captured=intent["amount"] if paid else 0,
        amount_refunded=0,
        billing_details=dict(method["billing_details"]),
        captured=paid,
        created=world.time_of(intent),
        currency="usd",
        customer=intent["customer"],
        description=intent["description"],
        disputed=False,
        failure_code=refusal and refusal.code,
        failure_message=refusal and refusal.message,
        fraud_details={},
        outcome=outcome,
        paid=paid,
        payment_intent=intent["id"],
        payment_method=method["id"],
        payment_method_details={"card": _card_of(method), "type": "card"},
        refunded=False,
        status="succeeded" if paid else "failed",
    )
    charge["receipt_url"] = f"{world.base_url}/receipt/{charge['id']}"
    return charge


def _card_of(method: Thing) -> Thing:
    known = fields_of(stripe.Charge.PaymentMethodDetails.Card)
    return blank(stripe.Charge.PaymentMethodDetails.Card) | {k: v for k, v in method["card"].items() if k in known}


def cancel_intent(world: World, intent: Thing, reason: str) -> None:
    """Give up on an intent that has not succeeded."""
    if intent["status"] not in {"succeeded", "canceled"}:
        intent |= {"status": "canceled", "canceled_at": world.time_of(intent), "cancellation_reason": reason}
        world.emit("payment_intent.canceled", intent)


# Refunds and disputes


def create_refund(world: World, params: Thing) -> Thing:
    """POST /v1/refunds: of a charge, or of an intent's; the whole rest unless an amount is given."""
    charge_id = params.pop("charge", None)
    intent_id = params.pop("payment_intent", None)
    if intent_id and not charge_id:
        charge_id = world.get("payment_intent", intent_id, "payment_intent")["latest_charge"]
    if not charge_id:
        raise invalid("One of the following params should be provided: `payment_intent` or `charge`.")
    charge = world.get("charge", charge_id, "charge")
    left = charge["amount"] - charge["amount_refunded"]
    amount = params.pop("amount", left)
    if not charge["paid"]:
        raise invalid(f"Charge {charge_id} has failed: nothing can be refunded.", "charge")
    if charge["refunded"]:
        raise invalid(f"Charge {charge_id} has already been refunded.", None, "charge_already_refunded")
    if charge["disputed"]:
        raise invalid(f"Charge {charge_id} has been charged back; cannot issue a refund.", None, "charge_disputed")
    if not 0 < amount <= left:
        text = f"Refund amount ({dollars(amount)}) is greater than unrefunded amount on charge ({dollars(left)})"
        raise invalid(text, "amount")
    refund = world.new(
        stripe.Refund,
        "re",
        amount=amount,
        charge=charge_id,
        created=world.time_of(charge),
        currency="usd",
        customer=charge["customer"],
        destination_details={"card": {"type": "refund"}, "type": "card"},
        payment_intent=charge["payment_intent"],
        status="succeeded",
    )
    store(refund, params, stripe.Refund)
    previous = {"amount_refunded": charge["amount_refunded"]}
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    world.emit("charge.refunded", charge, previous)
    world.emit("refund.created", refund)
    return refund


def open_dispute(world: World, charge_id: str, reason: str = "fraudulent") -> Thing:
    """The cardholder asks the bank for the money back; Stripe takes it at once."""
    charge = world.get("charge", charge_id, "charge")
    if not charge["paid"] or charge["disputed"]:
        raise invalid(f"Charge {charge_id} was not paid, or is disputed already.", "charge")
    now = world.time_of(charge)
    dispute = world.new(
        stripe.Dispute,
        "du",
        amount=charge["amount"],
        balance_transactions=[],
        charge=charge_id,
        created=now,
        currency="usd",
        enhanced_eligibility_types=[],
        evidence=dict.fromkeys(stripe.Dispute.Evidence.__annotations__) | {"enhanced_evidence": {}},
        evidence_details={
            "due_by": now + 10 * DAY,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
            "submission_method": "not_submitted",
        },
        is_charge_refundable=False,
        payment_intent=charge["payment_intent"],
        reason=reason,
        status="needs_response",
    )
    charge["disputed"] = True
    world.emit("charge.dispute.created", dispute)
    world.emit("charge.dispute.funds_withdrawn", dispute)
    return dispute


def close_dispute(world: World, dispute_id: str, status: str) -> Thing:
    """The bank decides: `won` gives the money back, `lost` does not."""
    dispute = world.get("dispute", dispute_id, "dispute")
    if status not in {"won", "lost"} or dispute["status"] in {"won", "lost"}:
        raise invalid("A dispute that is open can be closed as `won` or `lost`.", "status")
    dispute["status"] = status
    world.emit("charge.dispute.closed", dispute)
    if status == "won":
        world.emit("charge.dispute.funds_reinstated", dispute)
    return dispute


# The payments of invoices


def open_payment(world: World, invoice: Thing) -> Thing:
    """The invoice's default payment, made when it is finalized with something to pay."""
    text = f"Payment for Invoice {invoice['number']}"
    intent = new_intent(world, invoice["customer"], invoice["amount_remaining"], text)
    payment = world.new(
        stripe.InvoicePayment,
        "inpay",
        amount_requested=invoice["amount_remaining"],
        created=world.time_of(invoice),
        currency="usd",
        invoice=invoice["id"],
        is_default=True,
        payment={"payment_intent": intent["id"], "type": "payment_intent"},
        status="open",
        status_transitions={"canceled_at": None, "paid_at": None},
    )
    world.payments_of.setdefault(invoice["id"], []).append(payment["id"])
    return payment


def payments_list(world: World, invoice_id: str) -> Thing:
    """An invoice's payments, as `expand=["payments"]` shows them."""
    payments = [world.get("invoice_payment", one) for one in world.payments_of.get(invoice_id, [])]
    return listed(f"/v1/invoice_payments?invoice={invoice_id}", payments)


def default_payment(world: World, invoice: Thing) -> Thing:
    """The payment by which the invoice is collected."""
    known = world.payments_of.get(invoice["id"], [])
    return world.get("invoice_payment", known[-1]) if known else open_payment(world, invoice)


def intent_of(world: World, payment: Thing) -> Thing:
    """The payment intent behind an invoice's payment."""
    return world.get("payment_intent", payment["payment"]["payment_intent"])


def refused(refusal: Refusal, intent: Thing) -> StripeProblem:
    """402 for whoever asked for the payment."""
    charge = intent["latest_charge"]
    more: dict[str, Any] = {"payment_intent": dict(intent), "charge": charge}
    if refusal is cards.AUTHENTICATION:
        return StripeProblem(
            402,
            "card_error",
            "This payment requires additional user action before it can be completed successfully.",
            code="invoice_payment_intent_requires_action",
            **more,
        )
    return StripeProblem(
        402, "card_error", refusal.message, code=refusal.code, decline_code=refusal.decline_code, **more
    )
