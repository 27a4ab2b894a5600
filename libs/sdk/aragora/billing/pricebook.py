"""The price book: which price applies to a provider's model at a moment.

Asked in this order, the first that knows a price gives it:

1. the operator's own price tables, the last given first;
2. the documented price tables in `aragora/billing/prices/`;
3. genai-prices, for every other model;
4. a table's price for "every other model" of a provider (OpenRouter's documented default is one).

Otherwise the usage is unpriced, with the reason: a model is never billed at another model's price.

A row of a table prevails in what it states. Our documents state input and output and say nothing of cached or audio
tokens or of searches. Where genai-prices lists the same model at the same input and output price, its other rates
complete the row, as they belong to the very price that the document states. Where it lists other figures, they do
not: a ratio would be a guess, so cached tokens then cost the documented input price. Its long-context tiers never
apply to a documented row: the document states one price for every call.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Self

from aragora.billing.prices.library import SOURCE, LibraryModel, canonical_provider, convention_of, find_model
from aragora.billing.prices.rates import INSIDE, RATE_NAMES, Convention, Rates
from aragora.billing.prices.tables import (
    ALWAYS,
    ANY_MODEL,
    FOREVER,
    NO_MODEL,
    PriceRow,
    documented_tables,
    normal,
    read_table,
)
from aragora.billing.rating import Price, Rated, UnrateableError
from aragora.contracts.usage import Usage, amount

_FILED_UNDER = {"gemini": "google"}
"""Our documents' names for providers that genai-prices calls otherwise."""
_MOST_LINES = 10_000
"""Publishers choose the names of models, so what is remembered per name is bounded."""
_MOST_DAYS = 100


@dataclass(frozen=True, slots=True)
class Resolved:
    """The price of a model, for every moment from `valid_from` until just before `valid_until`."""

    price: Price | None
    """None: no price is known, and `reason` says what to do."""
    source: str
    """The price table (its file name without the ending), "genai-prices", or ""."""
    reason: str | None
    valid_from: datetime
    valid_until: datetime


class PriceBook:
    """All known prices. Make one with `PriceBook.load()` and keep it: loading takes a fraction of a second."""

    def __init__(self, tables: Iterable[Sequence[PriceRow]]) -> None:
        """A book of these tables, the one that prevails first, and of genai-prices."""
        self._rows: list[PriceRow] = []
        self._filed: dict[tuple[str, str], list[PriceRow]] = {}
        self._lines: dict[tuple[str | None, str | None], _Line] = {}
        for table in tables:
            for row in sorted(table, key=lambda row: row.valid_from, reverse=True):
                for model_id in row.ids:
                    self._filed.setdefault((_filed_under(row.provider), model_id), []).append(row)
            self._rows += table

    @classmethod
    def load(cls, extra_tables: Sequence[Path] = ()) -> Self:
        """The documented tables, overridden by an operator's own; of those, a later file prevails over an earlier one.

        Raises:
            PriceTableError: a table is wrong; the message names file, line and column.
        """
        return cls([*(read_table(path) for path in reversed(extra_tables)), *documented_tables()])

    def resolve(self, provider: str | None, model: str | None, at: datetime) -> Resolved:
        """The price of a model at a moment (which must have an offset), and how long it holds."""
        return self._line(provider, model).at(at)

    def rate(self, usage: Usage, at: datetime) -> Rated:
        """The cost of usage that occurred at a moment (which must have an offset).

        The publisher's own `cost_usd` prevails. An event that names no provider and no model and counts nothing that
        is bought (a debate, say) costs nothing.

        Raises:
            ValueError: `seconds` or `cost_usd` is not a plain decimal; `aragora.contracts.usage.refusal` sees to that.
        """
        if usage.cost_usd is not None:
            return Rated(amount(usage.cost_usd), "publisher")
        line = self._lines.get((usage.provider, usage.model)) or self._line(usage.provider, usage.model)
        resolved = line.latest
        if not resolved.valid_from <= at < resolved.valid_until:
            resolved = line.at(at)
        if resolved.price is None:
            return Rated(Decimal(0), "") if _bought_nothing(usage) else Rated(None, "", resolved.reason)
        try:
            return Rated(resolved.price.cost(usage), resolved.source)
        except UnrateableError as error:
            return Rated(None, resolved.source, str(error))

    def rows(self, at: datetime) -> list[PriceRow]:
        """The rows of all tables that apply at a moment. They do not list the models that genai-prices serves."""
        return [row for row in self._rows if _first(self._find([_filed_under(row.provider)], row.ids[0]), at) is row]

    def _find(self, providers: Iterable[str], model: str) -> list[PriceRow]:
        return next((rows for name in providers if (rows := self._filed.get((name, model)))), [])

    def _line(self, provider: str | None, model: str | None) -> "_Line":
        line = self._lines.get((provider, model))
        if line is None:
            if len(self._lines) >= _MOST_LINES:
                self._lines.clear()
            line = self._lines[provider, model] = self._known(provider, model)
        return line

    def _known(self, provider: str | None, model: str | None) -> "_Line":
        if provider is None:
            return _Line("the event names no provider; name provider and model, or send your own cost_usd")
        own = _filed_under(normal(provider))
        canonical = canonical_provider(provider) or own
        convention = convention_of(canonical, model or "")
        if model is None:
            reason = f"the event names no model of provider {provider!r}; name it, or send your own cost_usd"
            return _Line(reason, rows=self._find((own, canonical), NO_MODEL), convention=convention)
        rows = self._find((own, canonical), normal(model))
        listings = (found for row in rows for name in row.ids if (found := find_model(provider, name)))
        return _Line(
            f"no price is known for model {model!r} of provider {provider!r}; add it to a price table",
            rows=rows,
            library=find_model(provider, model),
            completing=next((each for each in listings if _may_complete(rows, each)), None),
            otherwise=self._find((own, canonical), ANY_MODEL),
            convention=convention,
        )


class _Line:
    """What the book says of one provider's model, and what it said last."""

    __slots__ = (
        "_by_day",
        "_completing",
        "_convention",
        "_library",
        "_made",
        "_otherwise",
        "_reason",
        "_rows",
        "latest",
    )

    def __init__(
        self,
        reason: str,
        *,
        rows: Sequence[PriceRow] = (),
        library: LibraryModel | None = None,
        completing: LibraryModel | None = None,
        otherwise: Sequence[PriceRow] = (),
        convention: Convention = INSIDE,
    ) -> None:
        self._reason = reason
        self._rows = rows
        self._library = library
        self._completing = completing
        self._otherwise = otherwise
        self._convention = convention
        self._made: dict[Rates, Price] = {}
        self._by_day: dict[date, list[Resolved]] = {}
        self.latest = Resolved(None, "", reason, ALWAYS, ALWAYS)

    def at(self, moment: datetime) -> Resolved:
        """Events need not come in order, and some prices change several times a day: recent answers are kept by day."""
        day = moment.astimezone(UTC).date()
        known = self._by_day.get(day, ())
        resolved = next((each for each in known if each.valid_from <= moment < each.valid_until), None)
        if resolved is None:
            resolved = self._asked(moment)
            if len(self._by_day) >= _MOST_DAYS:
                self._by_day.clear()
            self._by_day.setdefault(day, []).append(resolved)
        self.latest = resolved
        return resolved

    def _asked(self, moment: datetime) -> Resolved:
        starts = [row.valid_from for row in (*self._rows, *self._otherwise)]
        since = [max((start for start in starts if start <= moment), default=ALWAYS)]
        until = [min((start for start in starts if start > moment), default=FOREVER)]
        row = _first(self._rows, moment)
        price, source, reason = None, "", None
        if row is None and self._library is not None:
            price, start, end = self._library.at(moment)
            source = SOURCE
            since, until = [*since, start], [*until, end]
        elif row is not None or (row := _first(self._otherwise, moment)) is not None:
            rates, source = row.rates, row.source
            if self._completing is not None:
                listed, start, end = self._completing.at(moment)
                rates = _completed(rates, listed.rates)
                since, until = [*since, start], [*until, end]
            price = self._made.get(rates) or self._made.setdefault(rates, Price(rates, convention=self._convention))
        else:
            reason = self._reason
        return Resolved(price, source, reason, max(since), min(until))


def _filed_under(provider: str) -> str:
    return _FILED_UNDER.get(provider, provider)


def _first(rows: Iterable[PriceRow], moment: datetime) -> PriceRow | None:
    return next((row for row in rows if row.valid_from <= moment), None)


def _same_price(rates: Rates, listed: Rates) -> bool:
    stated = (rates.input_per_1m, rates.output_per_1m)
    return stated == (listed.input_per_1m, listed.output_per_1m) != (None, None)


def _may_complete(rows: Iterable[PriceRow], listing: LibraryModel) -> bool:
    """Whether the library lists the model, at some time, at a price that one of the rows states."""
    return any(_same_price(row.rates, price.rates) for row in rows for _, price in listing.prices)


def _completed(rates: Rates, listed: Rates) -> Rates:
    """Documented rates, with what the document does not state taken from a listing of the same price, if it is one."""
    if not _same_price(rates, listed):
        return rates
    return replace(rates, **{name: getattr(listed, name) for name in RATE_NAMES if getattr(rates, name) is None})


def _bought_nothing(usage: Usage) -> bool:
    """No provider is named and nothing is counted that somebody would charge for."""
    return (
        usage.provider is None
        and usage.model is None
        and not (
            usage.tokens_in
            or usage.tokens_out
            or usage.tokens_cached
            or usage.tokens_cache_write
            or usage.tokens_reasoning
            or usage.tokens_audio_in
            or usage.tokens_audio_out
            or usage.searches
            or usage.images
            or usage.pages
            or (usage.seconds is not None and amount(usage.seconds))
        )
    )
