"""Amounts as Stripe writes them (whole minor units: cents) and as we do (decimals of the main unit). Pure."""

from decimal import ROUND_HALF_EVEN, Decimal

_WITHOUT_MINOR_UNIT = frozenset(
    ["bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof", "xpf"]
)  # Stripe's list of zero-decimal currencies
_THREE_PLACES = frozenset({"bhd", "jod", "kwd", "omr", "tnd"})
USD = "usd"


def places_of(currency: str) -> int:
    """How many decimals an amount of this currency (lower case) has."""
    if currency in _WITHOUT_MINOR_UNIT:
        return 0
    return 3 if currency in _THREE_PLACES else 2


def from_minor(amount: int, currency: str) -> Decimal:
    """1999 of `usd` is 19.99."""
    return Decimal(amount).scaleb(-places_of(currency))


def to_minor(amount: Decimal, currency: str) -> int:
    """19.99 of `usd` is 1999.

    Raises:
        ValueError: the amount has more decimals than the currency: round it first, where it is decided.
    """
    minor = amount.scaleb(places_of(currency))
    if minor != minor.to_integral_value():
        raise ValueError(f"{amount} {currency} is no whole number of its smallest unit")
    return int(minor)


def rounded(amount: Decimal, currency: str = USD) -> Decimal:
    """To the currency's smallest unit, halves to the even one. Done once, on an invoice line."""
    return amount.quantize(Decimal(1).scaleb(-places_of(currency)), ROUND_HALF_EVEN)
