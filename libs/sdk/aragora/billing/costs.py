"""What a call costs, for those who only want to know."""

from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING

from aragora.billing.rating import trimmed
from aragora.contracts.usage import MAX_COUNT, Usage

if TYPE_CHECKING:
    from aragora.billing.pricebook import PriceBook


class UnknownPriceError(LookupError):
    """There is no price for this usage. The message says why, and what to do."""


def calculate_token_cost(
    provider: str,
    model: str,
    tokens_in: int,
    tokens_out: int,
    *,
    tokens_cached: int = 0,
    tokens_cache_write: int = 0,
    tokens_reasoning: int = 0,
    tokens_audio_in: int = 0,
    tokens_audio_out: int = 0,
    at: datetime | None = None,
) -> Decimal:
    """The exact cost in USD of one call, from the same price book that the platform bills with.

    Counts are as the provider reports them; whether cached and reasoning tokens are inside `tokens_in` and `tokens_out`
    or come on top is the provider's convention, which the price book knows. `at` is the moment of the call, with an
    offset; now, if it is not given.

    Raises:
        UnknownPriceError: no price is known, or it does not cover these counts.
        ValueError: a count is not a whole number from 0 to 2^53, or `at` has no offset.
    """
    moment = datetime.now(UTC) if at is None else at
    if moment.tzinfo is None:
        raise ValueError("at must have an offset, such as datetime.now(UTC) has")
    usage = Usage(
        event_type="estimate",
        provider=provider,
        model=model,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        tokens_cached=tokens_cached,
        tokens_cache_write=tokens_cache_write,
        tokens_reasoning=tokens_reasoning,
        tokens_audio_in=tokens_audio_in,
        tokens_audio_out=tokens_audio_out,
    )
    for name in (name for name in usage.__struct_fields__ if name.startswith("tokens_")):
        count = getattr(usage, name)
        if type(count) is not int or not 0 <= count <= MAX_COUNT:
            raise ValueError(f"{name} must be a whole number from 0 to 2**53, not {count!r}")
    rated = _book().rate(usage, moment)
    if rated.cost_usd is None:
        raise UnknownPriceError(rated.reason)
    return trimmed(rated.cost_usd)


@cache
def _book() -> "PriceBook":
    # Only who asks for a cost waits half a second for the price data, not everybody who records usage.
    from aragora.billing.pricebook import PriceBook  # noqa: PLC0415

    return PriceBook.load()
