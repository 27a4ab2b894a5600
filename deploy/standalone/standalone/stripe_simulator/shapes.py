"""Objects with every field that the SDK's classes declare, so that what reads them never meets a missing one."""

import types
import typing
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from typing import Any

import msgspec
import stripe

API_VERSION: str = stripe.api_version
"""The one version of the API that is played: the SDK's own."""

Thing = dict[str, Any]
"""An object of Stripe's, as its JSON is."""

INCLUDED_ON_REQUEST = {
    "charge": {"refunds"},
    "checkout.session": {"line_items"},
    "customer": {"sources", "subscriptions", "tax_ids", "cash_balance"},
    "invoice": {"payments", "confirmation_secret"},
    "price": {"tiers", "currency_options"},
}
"""Fields that Stripe leaves out unless `expand` names them."""

OTHER_CARDS = {
    "billing_details",
    "card",
    "customer",
    "customer_account",
    "metadata",
    "allow_redisplay",
    "radar_options",
}
"""Of a payment method's optional fields, those that every kind has or that are the card's."""


def copied(thing: Thing) -> Thing:
    """A copy that shares nothing; several times faster than `copy.deepcopy`."""
    copy: Thing = msgspec.msgpack.decode(msgspec.msgpack.encode(thing))
    return copy


def blank(kind: type) -> Thing:
    """Every optional field of the SDK's class, null."""
    return dict.fromkeys(_optional_fields(kind))


@cache
def fields_of(kind: type) -> frozenset[str]:
    """The names of the class's fields."""
    return frozenset(kind.__annotations__) - {"OBJECT_NAME"}


@cache
def _optional_fields(kind: type) -> tuple[str, ...]:
    name = getattr(kind, "OBJECT_NAME", "")
    left_out = INCLUDED_ON_REQUEST.get(name, set()) | {"deleted"}
    optional = [field for field, hint in kind.__annotations__.items() if _may_be_null(hint)]
    if kind is stripe.PaymentMethod:
        optional = [field for field in optional if field in OTHER_CARDS]
    return tuple(field for field in optional if field not in left_out)


def _may_be_null(hint: Any) -> bool:
    return typing.get_origin(hint) in {typing.Union, types.UnionType} and type(None) in typing.get_args(hint)


def listed(url: str, things: list[Thing]) -> Thing:
    """A list object that holds all there is."""
    return {"object": "list", "data": things, "has_more": False, "url": url}


def cents(amount: Decimal) -> int:
    """Whole cents, half a cent away from zero: each line is rounded once."""
    return int(amount.quantize(Decimal(1), ROUND_HALF_UP))


def dollars(amount: int) -> str:
    """`$12.50`, and `-$12.50`."""
    return f"{'-' if amount < 0 else ''}${abs(amount) // 100:,}.{abs(amount) % 100:02}"
