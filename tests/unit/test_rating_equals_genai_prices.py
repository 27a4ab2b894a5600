"""For every model and moment that genai-prices knows, and that no document prices, our cost is the library's."""

import decimal
import itertools
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache

import pytest
from genai_prices.data import providers
from genai_prices.data_snapshot import DataSnapshot
from genai_prices.types import (
    ClauseAnd,
    ClauseOr,
    ClauseRegex,
    ModelInfo,
    ModelPrice,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)
from genai_prices.types import Usage as LibraryUsage
from hypothesis import given, settings
from hypothesis import strategies as st

from aragora.billing.pricebook import PriceBook
from aragora.billing.prices.library import convention_of
from aragora.contracts.usage import MAX_COUNT, Usage

BOOK = PriceBook.load()
SNAPSHOT = DataSnapshot(providers, from_auto_update=False)
INSTANT = timedelta(microseconds=1)
MOMENTS = (datetime(2023, 3, 1, tzinfo=UTC), datetime(2025, 7, 1, 12, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))


def ids_in(clause: object) -> list[str]:
    """Ids that may satisfy a matching clause of the library: its literals, and those of an "and" put together."""
    if isinstance(clause, ClauseOr):
        return [text for each in clause.or_ for text in ids_in(each)]
    if isinstance(clause, ClauseAnd):
        parts = [text for each in clause.and_ for text in ids_in(each)]
        return ["".join(parts), *("".join(pair) for pair in itertools.permutations(parts, 2)), *parts]
    literals: list[str] = [] if isinstance(clause, ClauseRegex) else [str(text) for text in vars(clause).values()]
    return literals


@cache
def known_models() -> list[tuple[str, str]]:
    """An id for every model of every provider of the library, but for the models that the documents price."""
    return [
        (provider.id, model_id)
        for provider in providers
        for model in provider.models
        if (model_id := next((i for i in [model.id, *ids_in(model.match)] if provider.find_model(i) is model), None))
        and BOOK.resolve(provider.id, model_id, MOMENTS[1]).source == "genai-prices"
    ]


def found(provider: str, model: str) -> tuple[str, ModelInfo]:
    served_by, info = SNAPSHOT.find_provider_model(model, None, provider, None)
    return served_by.id, info


def boundaries(info: ModelInfo) -> Iterator[datetime]:
    """The moments at which the library's price may change, and those just before."""
    for each in [] if isinstance(info.prices, ModelPrice) else info.prices:
        if isinstance(each.constraint, StartDateConstraint):
            midnight = datetime.combine(each.constraint.start_date, datetime.min.time(), tzinfo=UTC)
            yield from (midnight, midnight - INSTANT)
        elif isinstance(each.constraint, TimeOfDateConstraint):
            for at in (each.constraint.start_time, each.constraint.end_time):
                for day in (datetime(2025, 3, 1, tzinfo=UTC), datetime(2026, 12, 31, tzinfo=UTC)):
                    moment = datetime.combine(day, at)
                    yield from (moment, moment - INSTANT)


@cache
def counts_beside(provider: str, *, serves_claude: bool) -> tuple[bool, bool]:
    """Whether cached and reasoning tokens come on top of the totals, by how the library reads a provider's answers."""
    flavours = next(p for p in providers if p.id == provider).extractors or []
    flavour = next((e for e in flavours if e.api_flavor == "anthropic" and serves_claude), next(iter(flavours), None))
    read = [] if flavour is None else [(str(m.path), m.dest) for m in flavour.mappings]

    def on_top(part: str, total: str) -> bool:
        return any((path, total) in read for path, goal in read if goal == part)

    return on_top("cache_read_tokens", "input_tokens"), on_top("output_reasoning_tokens", "output_tokens")


def listed(info: ModelInfo, at: datetime) -> dict[str, Decimal | TieredPrices]:
    return {key: value for key, value in vars(info.get_prices(at)).items() if value is not None}


def library_cost(provider: str, model: str, usage: Usage, at: datetime) -> Decimal | None:
    """The library's cost, with nothing rounded except the quotient by 3600; None if it calls the counts invalid."""
    served_by, info = found(provider, model)
    cache_on_top, reasoning_on_top = counts_beside(served_by, serves_claude="claude" in f"{model} {info.id}")
    tokens = LibraryUsage(
        input_tokens=usage.tokens_in + cache_on_top * (usage.tokens_cached + usage.tokens_cache_write),
        output_tokens=usage.tokens_out + reasoning_on_top * usage.tokens_reasoning,
        cache_read_tokens=usage.tokens_cached,
        cache_write_tokens=usage.tokens_cache_write,
        output_reasoning_tokens=usage.tokens_reasoning,
        input_audio_tokens=usage.tokens_audio_in,
        output_audio_tokens=usage.tokens_audio_out,
        web_searches=usage.searches or 0,
        input_document_pages=usage.pages or 0,
    )
    arguments = (model, provider, None, at)
    try:
        with decimal.localcontext(decimal.Context(prec=100)):
            cost = SNAPSHOT.calc(tokens, *arguments).total_price
        if usage.seconds is not None:
            seconds = Decimal(usage.seconds)
            timed = LibraryUsage(audio_seconds=seconds, input_audio_seconds=seconds)
            per_call = SNAPSHOT.calc(LibraryUsage(), *arguments).total_price
            with decimal.localcontext(decimal.Context(prec=28)):
                of_time = SNAPSHOT.calc(timed, *arguments).total_price
            with decimal.localcontext(decimal.Context(prec=100)):
                cost += of_time - per_call
    except ValueError:
        return None
    return cost


def drawn_usage(provider: str, model: str, at: datetime, draw: random.Random, most: int = MAX_COUNT // 4) -> Usage:
    """Consistent counts in the units of this model's price."""
    units = listed(found(provider, model)[1], at)
    usage = Usage(event_type="call", provider=provider, model=model)
    if not units or {"input_mtok", "output_mtok"} & units.keys():
        thresholds = [t.start for u in units.values() if isinstance(u, TieredPrices) for t in u.tiers]
        near = [t + d for t in thresholds for d in (-1, 0, 1)]
        total_in, total_out = draw.choice([*near, 0, 1, 1500, draw.randint(0, most)]), draw.randint(0, most)
        cached = draw.randint(0, total_in) if draw.random() < 0.5 else 0
        written = draw.randint(0, total_in - cached) if draw.random() < 0.5 else 0
        audio_in = draw.randint(0, total_in - cached - written) if draw.random() < 0.3 else 0
        reasoning = draw.randint(0, total_out) if draw.random() < 0.5 else 0
        usage.tokens_in, usage.tokens_out = total_in, total_out
        usage.tokens_cached, usage.tokens_cache_write = cached, written
        usage.tokens_audio_in, usage.tokens_reasoning = audio_in, reasoning
        usage.tokens_audio_out = draw.randint(0, total_out - reasoning) if draw.random() < 0.3 else 0
    if "web_searches_kcount" in units:
        usage.searches = draw.randint(0, 10_000)
    if "input_document_kpages" in units:
        usage.pages = draw.randint(0, 10_000)
    if "audio_hours" in units:
        usage.seconds = draw.choice(["0", "0.5", "9.999", "10", "3600", str(draw.randint(0, 10**7))])
    return usage


def assert_equal(usage: Usage, at: datetime) -> None:
    assert usage.provider is not None
    assert usage.model is not None
    rated = BOOK.rate(usage, at)
    assert rated.source == "genai-prices"
    if rated.reason is not None and "usage events do not count" in rated.reason:
        assert not listed(found(usage.provider, usage.model)[1], at).keys() & {"input_mtok", "audio_hours"}
        return
    assert rated.cost_usd == library_cost(usage.provider, usage.model, usage, at), (usage, at, rated)


def test_every_model_at_its_boundaries_costs_what_the_library_says() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    models = known_models()
    assert len(models) > 1500
    for provider, model in models:
        for at in (*MOMENTS, *boundaries(found(provider, model)[1])):
            assert_equal(drawn_usage(provider, model, at, draw), at)


@settings(max_examples=1000, deadline=None)
@given(data=st.data())
def test_any_usage_at_any_moment_costs_what_the_library_says(data: st.DataObject) -> None:
    provider, model = data.draw(st.sampled_from(known_models()))
    dated = list(boundaries(found(provider, model)[1]))
    at = data.draw(
        st.datetimes(datetime(2022, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - it adds UTC
        | st.sampled_from([*MOMENTS, *dated])
    )
    draw = data.draw(st.randoms(use_true_random=False))
    assert_equal(drawn_usage(provider, model, at, draw), at)


@pytest.mark.parametrize("model", ["deepseek-v4-flash", "deepseek-v4-pro", "deepseek-reasoner", "deepseek-flash"])
def test_prices_by_time_of_day_change_at_the_library_s_boundaries(model: str) -> None:
    at, end = datetime(2026, 9, 30, tzinfo=UTC), datetime(2026, 10, 2, tzinfo=UTC)
    changes = 0
    while at < end:
        resolved = BOOK.resolve("deepseek", model, at)
        assert resolved.valid_from <= at < resolved.valid_until
        usage = Usage(event_type="call", provider="deepseek", model=model, tokens_in=1_000_003, tokens_out=70_001)
        for moment in (resolved.valid_from, at, resolved.valid_until - INSTANT):
            assert_equal(usage, moment)
        at, changes = resolved.valid_until, changes + 1
    assert changes > 3


def test_a_late_event_gets_the_price_of_its_own_time_whatever_was_asked_before() -> None:
    model = next(
        (provider, model)
        for provider, model in known_models()
        if any(True for _ in boundaries(found(provider, model)[1]))
        and "input_mtok" in listed(found(provider, model)[1], MOMENTS[0])
    )
    usage = Usage(event_type="call", provider=model[0], model=model[1], tokens_in=12_345, tokens_out=678)
    moments = [*boundaries(found(*model)[1]), *MOMENTS]
    for at in [*moments, *reversed(moments), *moments]:
        assert_equal(usage, at)


def test_a_moment_in_another_time_zone_is_the_same_moment() -> None:
    tokyo = datetime.fromisoformat("2026-10-01T13:00:00+09:00")
    usage = Usage(event_type="call", provider="deepseek", model="deepseek-v4-pro", tokens_in=1_000_000)
    assert BOOK.rate(usage, tokyo) == BOOK.rate(usage, tokyo.astimezone(UTC))


@pytest.mark.parametrize("provider", [p.id for p in providers])
def test_each_provider_counts_as_the_library_reads_its_answers(provider: str) -> None:
    for model in ("claude-opus-4-5", "any"):
        if model != "any" and provider not in {"anthropic", "aws", "azure", "google"}:
            continue
        expected = counts_beside(provider, serves_claude=model != "any")
        convention = convention_of(provider, model)
        assert (convention.cache_beside_input, convention.reasoning_beside_output) == expected
