"""The shapes of a price: its rates, its tiers, and how its provider counts."""

from dataclasses import dataclass, fields
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Convention:
    """Where a provider counts the parts of its token totals, when they are not inside the total."""

    cache_beside_input: bool = False
    """Tokens read from and written to the cache come on top of `tokens_in`."""
    reasoning_beside_output: bool = False
    """Reasoning tokens come on top of `tokens_out`."""


INSIDE = Convention()
"""Every part is inside its total: OpenAI, and whoever copies its API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Prices in USD, in the unit in which they are published. None: there is no price of this kind."""

    input_per_1m: Decimal | None = None
    output_per_1m: Decimal | None = None
    cached_per_1m: Decimal | None = None
    """None: cached tokens cost what other input costs. The same holds, with their total, for the next four."""
    cache_write_per_1m: Decimal | None = None
    audio_in_per_1m: Decimal | None = None
    audio_out_per_1m: Decimal | None = None
    reasoning_per_1m: Decimal | None = None
    per_request: Decimal | None = None
    """For each call. Where the same price also has a unit that the event counts (images, searches, ...), that count
    is charged instead: they are two spellings of one charge."""
    per_search: Decimal | None = None
    per_image: Decimal | None = None
    per_page: Decimal | None = None
    per_second: Decimal | None = None
    per_hour: Decimal | None = None
    """Charged by the second."""


RATE_NAMES = tuple(field.name for field in fields(Rates))


@dataclass(frozen=True, slots=True)
class Tier:
    """Rates for the whole call, once its input (cached tokens included) exceeds `above` tokens."""

    above: int
    rates: Rates
