"""What usage costs at a given price, exactly.

Pure: it looks nothing up (that is `aragora.billing.pricebook`) and knows no clock. Every price is turned into whole
numbers of one small quantum of money, once; after that a cost is integer arithmetic and one multiplication, in a
context that raises rather than rounds.
"""

from collections.abc import Sequence
from decimal import (
    ROUND_HALF_EVEN,
    Clamped,
    Context,
    Decimal,
    DivisionByZero,
    Inexact,
    InvalidOperation,
    Overflow,
    Underflow,
)
from typing import NamedTuple

from aragora.billing.prices.rates import INSIDE, RATE_NAMES, Convention, Rates, Tier
from aragora.contracts.usage import Usage, amount

EXACT = Context(prec=100, traps=[Clamped, DivisionByZero, Inexact, InvalidOperation, Overflow, Underflow])
"""Raises if a result had to be rounded. The largest cost has fewer than 80 digits: counts have 16, seconds 30 and
prices 30, and there are six places between a million tokens and one."""

_QUOTIENT = Context(prec=28, rounding=ROUND_HALF_EVEN)
"""A price per hour has no exact price per second (1/3600 never ends). That one quotient is rounded half-even to 28
significant digits, which is what genai-prices does too."""
_SECONDS_PER_HOUR = Decimal(3600)


class UnrateableError(ValueError):
    """This usage has no cost at this price. The message says why; send what is missing, or your own `cost_usd`."""


class Rated(NamedTuple):
    """What one usage event costs."""

    cost_usd: Decimal | None
    """Exact, in USD. None: unpriced, and `reason` says why."""
    source: str
    """Where the price comes from: the name of a price table, "genai-prices", "publisher" or, for none, ""."""
    reason: str | None = None


class _TokenUnits(NamedTuple):
    """Quanta of money per token. The last five say how much more (or less) a part costs than its total."""

    above: int
    input: int
    output: int
    cached: int
    cache_write: int
    audio_in: int
    audio_out: int
    reasoning: int


def _per_unit(rates: Rates, name: str) -> Decimal | None:
    rate: Decimal | None = getattr(rates, name)
    if rate is None or not name.endswith("_per_1m"):
        return rate
    return EXACT.scaleb(rate, -6)


class Price:
    """One price of one model, ready to be applied.

    A price with only one side of tokens (an embedding's input) does not charge for the other. `minimum_seconds` is the
    shortest time that is charged for.
    """

    __slots__ = (
        "_input",
        "_is_timed",
        "_output",
        "_per_request",
        "_plain",
        "_quantum",
        "_tiers",
        "_units",
        "convention",
        "minimum_seconds",
        "rates",
        "tiers",
    )

    def __init__(
        self, rates: Rates, *, tiers: Sequence[Tier] = (), convention: Convention = INSIDE, minimum_seconds: int = 0
    ) -> None:
        self.rates = rates
        self.tiers = tuple(sorted(tiers, key=lambda tier: tier.above))
        self.convention = convention
        self.minimum_seconds = minimum_seconds
        places = max(
            (
                -int(value.as_tuple().exponent)
                for each in (rates, *(tier.rates for tier in self.tiers))
                for name in RATE_NAMES
                if (value := _per_unit(each, name)) is not None
            ),
            default=0,
        )
        places = max(places, 0)
        self._quantum = Decimal((0, (1,), -places))
        in_tokens = rates.input_per_1m is not None or rates.output_per_1m is not None
        # Highest tier first: the first whose threshold is passed applies.
        self._tiers = (
            tuple(
                _token_units(above, each, places)
                for above, each in [*((t.above, t.rates) for t in reversed(self.tiers)), (-1, rates)]
            )
            if in_tokens
            else ()
        )
        self._per_request = _quanta(rates.per_request, places)
        self._units = (
            ("searches", _quanta(rates.per_search, places)),
            ("images", _quanta(rates.per_image, places)),
            ("pages", _quanta(rates.per_page, places)),
        )
        self._is_timed = not (rates.per_second is None and rates.per_hour is None)
        self._plain = in_tokens and not self.tiers and self._per_request is None
        self._input = self._tiers[-1].input if in_tokens else 0
        self._output = self._tiers[-1].output if in_tokens else 0

    def cost(self, usage: Usage) -> Decimal:
        """The exact cost in USD.

        Raises:
            UnrateableError: the usage has a quantity that this price does not cover, or none that it does, or counts
                that contradict each other.
        """
        if self._plain and not (
            usage.tokens_cached
            or usage.tokens_cache_write
            or usage.tokens_reasoning
            or usage.tokens_audio_in
            or usage.tokens_audio_out
            or usage.searches
            or usage.images
            or usage.pages
            or usage.seconds
        ):
            return _multiply(self._quantum, self._input * usage.tokens_in + self._output * usage.tokens_out)
        tokens = self._tokens(usage)
        counted, quanta = self._counted(usage)
        if not (self._tiers or counted or self._per_request is not None):
            raise UnrateableError(f"this model is priced per {self._units_named()}, and the event counts none of these")
        cost = _multiply(self._quantum, tokens + quanta)
        return cost if usage.seconds is None else EXACT.add(cost, self._time(amount(usage.seconds)))

    def _tokens(self, usage: Usage) -> int:
        """Quanta for the tokens."""
        cached, written, reasoning = usage.tokens_cached, usage.tokens_cache_write, usage.tokens_reasoning
        audio_in, audio_out = usage.tokens_audio_in, usage.tokens_audio_out
        total_in, total_out = usage.tokens_in, usage.tokens_out
        if self.convention.cache_beside_input:
            total_in += cached + written
        if self.convention.reasoning_beside_output:
            total_out += reasoning
        self._check_parts(usage, total_in, total_out)
        if not (total_in or total_out):
            return 0
        if not self._tiers:
            raise UnrateableError(f"this model is priced per {self._units_named()}, not in tokens")
        for units in self._tiers:
            if total_in > units.above:
                break
        return (
            total_in * units.input
            + total_out * units.output
            + cached * units.cached
            + written * units.cache_write
            + audio_in * units.audio_in
            + audio_out * units.audio_out
            + reasoning * units.reasoning
        )

    def _check_parts(self, usage: Usage, total_in: int, total_out: int) -> None:
        """Refuse parts that exceed their total, and parts whose overlap is not known but would matter."""
        cached, written, reasoning = usage.tokens_cached, usage.tokens_cache_write, usage.tokens_reasoning
        audio_in, audio_out = usage.tokens_audio_in, usage.tokens_audio_out
        for part, part_name, total, total_name in (
            (cached + written, "tokens_cached and tokens_cache_write", total_in, "tokens_in"),
            (audio_in, "tokens_audio_in", total_in, "tokens_in"),
            (reasoning, "tokens_reasoning", total_out, "tokens_out"),
            (audio_out, "tokens_audio_out", total_out, "tokens_out"),
        ):
            if part > total:
                raise UnrateableError(f"{part_name} ({part}) exceed {total_name} ({total}), of which they are part")
        rates = self.rates
        cache_in = (cached and rates.cached_per_1m is not None) or (written and rates.cache_write_per_1m is not None)
        if cache_in and audio_in and rates.audio_in_per_1m is not None:
            raise UnrateableError("how many of the cached tokens are audio is not known, but decides their price")
        if audio_out and reasoning and None not in (rates.audio_out_per_1m, rates.reasoning_per_1m):
            raise UnrateableError("how many of the reasoning tokens are audio is not known, but decides their price")

    def _counted(self, usage: Usage) -> tuple[bool, int]:
        """Whether the event counts something that has a price apiece, and the quanta for that or for the calls."""
        counted, quanta = usage.seconds is not None and self._is_timed, 0
        for name, unit in self._units:
            count: int | None = getattr(usage, name)
            if count is not None and unit is not None:
                counted, quanta = True, quanta + count * unit
            elif count:
                raise UnrateableError(f"this model has no price for {name}; it is priced per {self._units_named()}")
        if self._per_request is not None and not counted:
            quanta = self._per_request * (1 if usage.requests is None else usage.requests)
        return counted, quanta

    def _time(self, seconds: Decimal) -> Decimal:
        """USD for a length of time."""
        if not seconds:
            return seconds
        seconds = max(seconds, Decimal(self.minimum_seconds))
        if self.rates.per_second is not None:
            return EXACT.multiply(self.rates.per_second, seconds)
        if self.rates.per_hour is not None:
            return _QUOTIENT.divide(EXACT.multiply(self.rates.per_hour, seconds), _SECONDS_PER_HOUR)
        raise UnrateableError(f"this model has no price for seconds; it is priced per {self._units_named()}")

    def _units_named(self) -> str:
        named = ["token"] if self._tiers else []
        named += [n[4:] for n in RATE_NAMES if n.startswith("per_") and getattr(self.rates, n) is not None]
        return " and ".join(named) or "a unit that usage events do not count"


def _quanta(rate: Decimal | None, places: int) -> int | None:
    return None if rate is None else int(EXACT.scaleb(rate, places))


def _token_units(above: int, rates: Rates, places: int) -> _TokenUnits:
    def quanta(name: str) -> int | None:
        return _quanta(_per_unit(rates, name), places)

    def beyond(name: str, total: int) -> int:
        own = quanta(name)
        return 0 if own is None else own - total

    total_in, total_out = quanta("input_per_1m") or 0, quanta("output_per_1m") or 0
    return _TokenUnits(
        above=above,
        input=total_in,
        output=total_out,
        cached=beyond("cached_per_1m", total_in),
        cache_write=beyond("cache_write_per_1m", total_in),
        audio_in=beyond("audio_in_per_1m", total_in),
        audio_out=beyond("audio_out_per_1m", total_out),
        reasoning=beyond("reasoning_per_1m", total_out),
    )


def trimmed(cost_usd: Decimal) -> Decimal:
    """The same amount without trailing zeros and without an exponent: 0.016500 becomes 0.0165."""
    short = EXACT.normalize(cost_usd)
    return short if int(short.as_tuple().exponent) <= 0 else EXACT.quantize(short, Decimal(1))


_multiply = EXACT.multiply
