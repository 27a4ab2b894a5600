"""Amounts, meters and days as people read them. Amounts stay exact: nothing is rounded. Pure."""

from datetime import date, datetime
from decimal import Decimal

_METERS = {
    "api_calls": "API calls",
    "cost_usd": "spending",
    "unique_users": "people",
}
_PROVIDERS = {
    "openai": "OpenAI",
    "deepseek": "DeepSeek",
    "xai": "xAI",
    "openrouter": "OpenRouter",
    "huggingface": "Hugging Face",
}
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


def provider_of(meter: str) -> str | None:
    """The provider that a meter counts, as `calls:gemini` does; None if it counts any."""
    what, _, provider = meter.partition(":")
    return provider if provider and what in ("calls", "tokens") else None


def meter_words(meter: str) -> str:
    """A meter's name in words: `calls to Gemini` for `calls:gemini`."""
    provider = provider_of(meter)
    if provider:
        shown = _PROVIDERS.get(provider, provider.replace("_", " ").title())
        return f"calls to {shown}" if meter.startswith("calls:") else f"tokens of {shown}"
    return _METERS.get(meter, meter.replace("_", " "))


def amount_of(meter: str, amount: Decimal) -> str:
    """An amount of a meter: dollars for `cost_usd`, else a number. Every digit that counts is there."""
    return f"${_digits(amount, 2)}" if meter == "cost_usd" else _digits(amount, 0)


def money(amount: Decimal, currency: str) -> str:
    """An amount of a currency (ISO 4217, lower case): `$299.00`, `299.00 EUR`."""
    return f"${_digits(amount, 2)}" if currency == "usd" else f"{_digits(amount, 2)} {currency.upper()}"


def _digits(amount: Decimal, at_least: int) -> str:
    text = f"{amount:,f}"
    whole, _, rest = text.partition(".")
    rest = rest.rstrip("0").ljust(at_least, "0")
    return f"{whole}.{rest}" if rest else whole


def day_words(day: date | datetime) -> str:
    """`1 July 2026`, in UTC."""
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"


def month_words(month: str) -> str:
    """`June 2026` for `2026-06`."""
    return f"{_MONTHS[int(month[5:7]) - 1]} {month[:4]}"


def title_case(plan: str) -> str:
    """The id of a plan as a name."""
    return plan.replace("_", " ").replace("-", " ").title()
