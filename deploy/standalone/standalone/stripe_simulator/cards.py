"""Stripe's test cards and what each does when it is charged (docs.stripe.com/testing)."""

from dataclasses import dataclass
from typing import Any

import stripe

from standalone.stripe_simulator.problems import StripeProblem, invalid, missing, unsupported
from standalone.stripe_simulator.shapes import Thing
from standalone.stripe_simulator.world import World


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a card says no: Stripe's error code, the bank's decline code, and the sentence for people."""

    code: str
    decline_code: str | None
    message: str


_DECLINED = "Your card was declined."
AUTHENTICATION = Refusal("authentication_required", "authentication_required", "Your card requires authentication.")
BEHAVIOURS: dict[str, Refusal | None] = {
    "succeeds": None,
    "generic_decline": Refusal("card_declined", "generic_decline", _DECLINED),
    "insufficient_funds": Refusal("card_declined", "insufficient_funds", "Your card has insufficient funds."),
    "lost_card": Refusal("card_declined", "lost_card", _DECLINED),
    "expired_card": Refusal("expired_card", "expired_card", "Your card has expired."),
    "incorrect_cvc": Refusal("incorrect_cvc", "incorrect_cvc", "Your card's security code is incorrect."),
    "processing_error": Refusal(
        "processing_error",
        "processing_error",
        "An error occurred while processing your card. Try again in a little bit.",
    ),
    "authentication_required": AUTHENTICATION,
}


@dataclass(frozen=True, slots=True)
class TestCard:
    """A card of Stripe's test mode; a card that is refused already when it is saved has `saves=False`."""

    payment_method: str
    number: str
    behaviour: str = "succeeds"
    brand: str = "visa"
    saves: bool = True


TEST_CARDS = (
    TestCard("pm_card_visa", "4242424242424242"),
    TestCard("pm_card_mastercard", "5555555555554444", brand="mastercard"),
    TestCard("pm_card_amex", "378282246310005", brand="amex"),
    TestCard("pm_card_us", "4242424242424242"),
    TestCard("pm_card_chargeCustomerFail", "4000000000000341", "generic_decline"),
    TestCard("pm_card_authenticationRequired", "4000002760003184", "authentication_required"),
    TestCard("pm_card_chargeDeclined", "4000000000000002", "generic_decline", saves=False),
    TestCard("pm_card_chargeDeclinedInsufficientFunds", "4000000000009995", "insufficient_funds", saves=False),
    TestCard("pm_card_chargeDeclinedLostCard", "4000000000009987", "lost_card", saves=False),
    TestCard("pm_card_chargeDeclinedExpiredCard", "4000000000000069", "expired_card", saves=False),
    TestCard("pm_card_chargeDeclinedIncorrectCvc", "4000000000000127", "incorrect_cvc", saves=False),
    TestCard("pm_card_chargeDeclinedProcessingError", "4000000000000119", "processing_error", saves=False),
)
BY_ID = {card.payment_method: card for card in TEST_CARDS}
BY_NUMBER = {card.number: card for card in reversed(TEST_CARDS)}


def from_card(world: World, card: TestCard) -> Thing:
    """A payment method of its own that behaves like the test card."""
    details: dict[str, Any] = {
        "brand": card.brand,
        "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"},
        "country": "US",
        "display_brand": card.brand,
        "exp_month": 12,
        "exp_year": 2040,
        "fingerprint": f"fingerprint{card.number[-4:]}",
        "funding": "credit",
        "generated_from": None,
        "last4": card.number[-4:],
        "networks": {"available": [card.brand], "preferred": None},
        "regulated_status": "unregulated",
        "three_d_secure_usage": {"supported": True},
        "wallet": None,
    }
    method = world.new(
        stripe.PaymentMethod,
        "pm",
        billing_details={"address": None, "email": None, "name": None, "phone": None, "tax_id": None},
        card=details,
        created=world.time_of(),
        type="card",
        allow_redisplay="unspecified",
    )
    world.behaviours[method["id"]] = card.behaviour
    return method


def card_named(name: str) -> TestCard:
    """The test card with that payment method id, token (`tok_visa`) or number."""
    number = name.replace(" ", "").replace("-", "")
    card = BY_ID.get(name) or BY_ID.get(name.replace("tok_", "pm_card_", 1)) or BY_NUMBER.get(number)
    if card is None:
        raise unsupported(f"the card {name[:4]}…: use one of Stripe's test cards")
    return card


def create(world: World, params: Thing) -> Thing:
    """POST /v1/payment_methods: a card by `card[token]` or `card[number]`."""
    if params.get("type") != "card":
        raise unsupported("payment methods other than cards", "type")
    card = params.get("card") or {}
    method = from_card(world, card_named(card.get("token") or card.get("number") or "pm_card_visa"))
    method["metadata"] = params.get("metadata") or {}
    method["billing_details"] |= params.get("billing_details") or {}
    return method


def find(world: World, method_id: str, param: str = "payment_method") -> Thing:
    """The payment method, or what one of Stripe's shared test ids stands for. Raises StripeProblem 404."""
    if method_id in BY_ID:
        return from_card(world, BY_ID[method_id])
    if method_id not in world.table("payment_method"):
        raise missing("PaymentMethod", method_id, param)
    return world.get("payment_method", method_id, param)


def attach(world: World, method_id: str, customer: Thing, param: str = "payment_method") -> Thing:
    """Save the card with the customer; a card that its bank refuses is not saved (402)."""
    if method_id in BY_ID and not BY_ID[method_id].saves:
        refusal = BEHAVIOURS[BY_ID[method_id].behaviour]
        if refusal:
            raise StripeProblem(
                402, "card_error", refusal.message, code=refusal.code, decline_code=refusal.decline_code
            )
    method = find(world, method_id, param)
    if method["customer"] not in (None, customer["id"]):
        raise invalid("The payment method is attached to another customer; detach it first.", param)
    if method["customer"] is None:
        method["customer"] = customer["id"]
        world.emit("payment_method.attached", method)
    return method


def detach(world: World, method: Thing) -> Thing:
    """Take the card from its customer; it cannot be charged again."""
    if method["customer"] is None:
        raise invalid("The payment method you provided is not attached to a customer so detachment is impossible.")
    customer = world.get("customer", method["customer"])
    with world.changing(customer, "customer.updated"):
        if customer["invoice_settings"]["default_payment_method"] == method["id"]:
            customer["invoice_settings"] |= {"default_payment_method": None}
    for subscription in world.where("subscription", customer=customer["id"], default_payment_method=method["id"]):
        subscription["default_payment_method"] = None
    with world.changing(method, "payment_method.detached"):
        method["customer"] = None
    return method


def payer(world: World, customer: Thing, *preferred: str | None) -> Thing | None:
    """The card that pays: the first of the preferred ones, else the customer's default for invoices."""
    for method_id in (*preferred, customer["invoice_settings"]["default_payment_method"]):
        if method_id:
            return find(world, method_id)
    return None


def refusal_of(world: World, method: Thing | None) -> Refusal | None:
    """What the card would answer to a charge."""
    return BEHAVIOURS[world.behaviours[method["id"]]] if method else None
