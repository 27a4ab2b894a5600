"""The prices of genai-prices (maintained by the pydantic team), in our own form.

Only the prices that ship with the installed version are used: nothing is fetched, whatever else in this process does
with that library. Each of its prices is translated once; tests prove that the result equals its own calculation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from genai_prices.data import providers
from genai_prices.data_snapshot import DataSnapshot, find_provider_by_id
from genai_prices.types import ModelInfo, ModelPrice, StartDateConstraint, TieredPrices, TimeOfDateConstraint

from aragora.billing.prices.rates import INSIDE, Convention, Rates, Tier
from aragora.billing.prices.tables import ALWAYS, FOREVER
from aragora.billing.rating import EXACT, Price

SOURCE = "genai-prices"

_CACHE_BESIDE = Convention(cache_beside_input=True)
_CONVENTIONS = {
    "anthropic": _CACHE_BESIDE,
    "aws": _CACHE_BESIDE,
    "cursor": _CACHE_BESIDE,
    "minimax": _CACHE_BESIDE,
    "google": Convention(reasoning_beside_output=True),
    "perplexity": Convention(reasoning_beside_output=True),
    "x-ai": Convention(reasoning_beside_output=True),
}
"""Whoever is not here counts every part inside its total. The evidence is how genai-prices reads each provider's
answers (the first of its `extractors`): whether it adds the part to the total. A test compares this table with them."""
_SERVE_CLAUDE_AS_ANTHROPIC = frozenset({"azure", "google"})
"""Clouds that serve Claude through Anthropic's own Messages API, and so with Anthropic's counts."""

_PER_1M = {
    "input_mtok": "input_per_1m",
    "output_mtok": "output_per_1m",
    "cache_read_mtok": "cached_per_1m",
    "cache_write_mtok": "cache_write_per_1m",
    "input_audio_mtok": "audio_in_per_1m",
    "output_audio_mtok": "audio_out_per_1m",
    "output_reasoning_mtok": "reasoning_per_1m",
}
_PER_1000 = {
    "requests_kcount": "per_request",
    "web_searches_kcount": "per_search",
    "input_document_kpages": "per_page",
}
_PER_HOUR = ("input_audio_hours", "audio_hours")
"""Of seconds of audio; the more specific first."""
# The library's other units (cached audio, one-hour cache writes, image and video tokens, citations, characters,
# messages, annotated pages, stored searches) measure what a usage event does not count.

_SHORTEST_SECONDS = {("groq", "whisper-large-v3"): 10, ("groq", "whisper-large-v3-turbo"): 10}
"""Groq charges at least ten seconds per transcription; the library has this rule in code, not in its data."""

_FREE = Rates(input_per_1m=Decimal(0), output_per_1m=Decimal(0))
"""What the library lists without any price is free of charge: `:free` models, moderation, Gemma on the Gemini API."""


def canonical_provider(provider: str) -> str | None:
    """The library's id of the provider with this name ("gemini" and "vertex" are google); None if it has none."""
    found = find_provider_by_id(providers, provider)
    return None if found is None else found.id


def convention_of(provider: str, model: str) -> Convention:
    """How a provider (the library's id) counts a model's tokens."""
    if provider in _SERVE_CLAUDE_AS_ANTHROPIC and "claude" in model.lower():
        return _CACHE_BESIDE
    return _CONVENTIONS.get(provider, INSIDE)


@dataclass(frozen=True, slots=True)
class LibraryModel:
    """A model that the library has prices for."""

    prices: tuple[tuple[Callable[[datetime], bool], Price], ...]
    """When each price applies. The last that does is the one; the first, if none does."""
    starts: tuple[datetime, ...]
    times_of_day: tuple[time, ...]

    def at(self, moment: datetime) -> tuple[Price, datetime, datetime]:
        """The price at a moment, and an interval [from, until) around it in which no other takes over."""
        price = next((p for applies, p in reversed(self.prices) if applies(moment)), self.prices[0][1])
        boundaries = list(self.starts)
        if self.times_of_day:
            today = moment.astimezone(UTC).date()
            days = [today + timedelta(days=d) for d in (-1, 0, 1)]
            boundaries += [datetime.combine(day, at) for day in days for at in self.times_of_day]
        return (
            price,
            max((b for b in boundaries if b <= moment), default=ALWAYS),
            min((b for b in boundaries if b > moment), default=FOREVER),
        )


def find_model(provider: str, model: str) -> LibraryModel | None:
    """What the library knows of a model, by its own matching of provider names and model ids; None if nothing.

    A snapshot of its own each time: the library's snapshots remember every name they were ever asked for.
    """
    try:
        found, info = DataSnapshot(providers, from_auto_update=False).find_provider_model(model, None, provider, None)
    except LookupError:
        return None
    return _translated(found.id, model, info)


def _translated(provider: str, model: str, info: ModelInfo) -> LibraryModel:
    convention = convention_of(provider, f"{model} {info.id}")
    shortest = _SHORTEST_SECONDS.get((provider, info.id), 0)
    dated = (
        [(None, info.prices)]
        if isinstance(info.prices, ModelPrice)
        else [(each.constraint, each.prices) for each in info.prices]
    )
    constraints = [constraint for constraint, _ in dated]
    return LibraryModel(
        prices=tuple((_applies(constraint), _price(price, convention, shortest)) for constraint, price in dated),
        starts=tuple(_midnight(c.start_date) for c in constraints if isinstance(c, StartDateConstraint)),
        times_of_day=tuple(
            _utc(at) for c in constraints if isinstance(c, TimeOfDateConstraint) for at in (c.start_time, c.end_time)
        ),
    )


def _applies(constraint: StartDateConstraint | TimeOfDateConstraint | None) -> Callable[[datetime], bool]:
    return (lambda _: True) if constraint is None else constraint.active


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _utc(at: time) -> time:
    """A time of day in UTC, which is what the library takes a time without an offset for."""
    return (
        at.replace(tzinfo=UTC) if at.tzinfo is None else datetime.combine(date(2000, 1, 2), at).astimezone(UTC).timetz()
    )


def _price(price: ModelPrice, convention: Convention, minimum_seconds: int) -> Price:
    listed = {key: value for key, value in vars(price).items() if value is not None}
    starts = sorted({t.start for value in listed.values() if isinstance(value, TieredPrices) for t in value.tiers})
    return Price(
        _rates(listed, 0),
        # The library compares the total with each price's own thresholds; one threshold after the other is the same.
        tiers=[Tier(above=start, rates=_rates(listed, start + 1)) for start in starts],
        convention=convention,
        minimum_seconds=minimum_seconds,
    )


def _rates(listed: dict[str, Decimal | TieredPrices], total_input: int) -> Rates:
    """The rates of a call with this many input tokens."""
    if not listed:
        return _FREE
    flat = {key: _at(value, total_input) for key, value in listed.items()}
    rates = {name: flat[key] for key, name in _PER_1M.items() if key in flat}
    rates |= {name: EXACT.scaleb(flat[key], -3) for key, name in _PER_1000.items() if key in flat}
    return Rates(**rates, per_hour=next((flat[key] for key in _PER_HOUR if key in flat), None))


def _at(value: Decimal | TieredPrices, total_input: int) -> Decimal:
    if isinstance(value, Decimal):
        return value
    return next((tier.price for tier in reversed(value.tiers) if total_input > tier.start), value.base)
