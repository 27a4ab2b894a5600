"""What a given price makes of usage: conventions, units, refusals, and exactness to the last digit."""

import decimal
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aragora.billing.pricebook import PriceBook
from aragora.billing.prices.rates import INSIDE, Convention, Rates, Tier
from aragora.billing.rating import Price, UnrateableError, trimmed
from aragora.contracts.usage import MAX_COUNT, Usage

BOOK = PriceBook.load()
AT = datetime(2026, 11, 21, 12, tzinfo=UTC)

ALL_RATES = Rates(
    input_per_1m=Decimal(3),
    output_per_1m=Decimal(15),
    cached_per_1m=Decimal("0.3"),
    cache_write_per_1m=Decimal("3.75"),
    audio_in_per_1m=Decimal(40),
    audio_out_per_1m=Decimal(80),
    reasoning_per_1m=Decimal(20),
)


def usage(**counts: object) -> Usage:
    made = Usage(event_type="call", provider="p", model="m")
    for name, value in counts.items():
        setattr(made, name, value)
    return made


def per_1m(figure: str) -> Decimal:
    return Decimal(figure).scaleb(-6)


# Conventions: the same call, as each provider reports it.


def test_openai_counts_cached_and_reasoning_tokens_inside_the_totals() -> None:
    # gpt-4o: 2.50 in, 1.25 cached, 10 out. 1,000 in, of which 600 cached; 500 out, of which 200 reasoning.
    call = usage(provider="openai", model="gpt-4o", tokens_in=1000, tokens_cached=600, tokens_out=500)
    call.tokens_reasoning = 200
    assert BOOK.rate(call, AT).cost_usd == per_1m("2.5") * 400 + per_1m("1.25") * 600 + per_1m("10") * 500


def test_anthropic_counts_cached_and_written_tokens_beside_the_input() -> None:
    # claude-sonnet-4: 3 in, 0.30 cache read, 3.75 cache write, 15 out.
    call = usage(provider="anthropic", model="claude-sonnet-4", tokens_in=400, tokens_cached=600, tokens_out=500)
    call.tokens_cache_write = 100
    call.tokens_reasoning = 200
    assert BOOK.rate(call, AT).cost_usd == (
        per_1m("3") * 400 + per_1m("0.3") * 600 + per_1m("3.75") * 100 + per_1m("15") * 500
    )


def test_gemini_counts_thoughts_beside_the_output_and_cached_tokens_inside_the_input() -> None:
    # gemini-2.5-pro: 1.25 in, 0.125 cached, 10 out, thoughts at the output price.
    call = usage(provider="gemini", model="gemini-2.5-pro", tokens_in=1000, tokens_cached=600, tokens_out=500)
    call.tokens_reasoning = 200
    assert BOOK.rate(call, AT).cost_usd == per_1m("1.25") * 400 + per_1m("0.125") * 600 + per_1m("10") * 700


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("bedrock", "us.anthropic.claude-haiku-4-5-20251001-v1:0"),
        ("vertex", "claude-haiku-4-5"),
        ("azure", "claude-haiku-4-5"),
        ("anthropic", "claude-haiku-4-5"),
    ],
)
def test_claude_is_counted_as_anthropic_counts_wherever_its_own_api_is_spoken(provider: str, model: str) -> None:
    fresh = usage(provider=provider, model=model, tokens_in=1000)
    cached = usage(provider=provider, model=model, tokens_in=1000, tokens_cached=10_000)
    fresh_cost, cached_cost = BOOK.rate(fresh, AT).cost_usd, BOOK.rate(cached, AT).cost_usd
    assert fresh_cost is not None
    assert cached_cost == 2 * fresh_cost  # ten times the tokens at a tenth of the price, on top


def test_claude_through_openrouter_is_counted_as_openrouter_counts() -> None:
    call = usage(provider="openrouter", model="anthropic/claude-sonnet-4", tokens_in=1000, tokens_cached=1000)
    assert BOOK.rate(call, AT).cost_usd == per_1m("0.3") * 1000


def test_without_a_price_of_its_own_a_part_costs_what_its_total_costs() -> None:
    # gemini-2.5-flash: the document states 0.125/0.375 and no cached price; the library's 0.03 is of another price.
    call = usage(provider="gemini", model="gemini-2.5-flash", tokens_in=1000, tokens_cached=600, tokens_out=10)
    assert BOOK.rate(call, AT).cost_usd == per_1m("0.125") * 1000 + per_1m("0.375") * 10


@pytest.mark.parametrize("convention", [INSIDE, Convention(cache_beside_input=True)])
def test_long_context_is_decided_by_the_whole_input(convention: Convention) -> None:
    price = Price(
        Rates(input_per_1m=Decimal(1), output_per_1m=Decimal(2), cached_per_1m=Decimal("0.1")),
        tiers=[
            Tier(500, Rates(input_per_1m=Decimal(4), output_per_1m=Decimal(8), cached_per_1m=Decimal("0.4"))),
            Tier(200, Rates(input_per_1m=Decimal(3), output_per_1m=Decimal(6), cached_per_1m=Decimal("0.3"))),
        ],
        convention=convention,
    )

    def cost(total_in: int) -> Decimal:
        fresh = total_in - 100 if convention.cache_beside_input else total_in
        return price.cost(usage(tokens_in=fresh, tokens_cached=100, tokens_out=10)) * 1_000_000

    assert cost(200) == 100 * 1 + 10 + 10 * 2
    assert cost(201) == 101 * 3 + 30 + 10 * 6
    assert cost(500) == 400 * 3 + 30 + 10 * 6
    assert cost(501) == 401 * 4 + 40 + 10 * 8


# Counts that contradict each other are unpriced, loudly, and never negative.


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ({"tokens_in": 10, "tokens_cached": 11}, "tokens_cached and tokens_cache_write (11) exceed tokens_in (10)"),
        ({"tokens_in": 10, "tokens_cached": 6, "tokens_cache_write": 5}, "exceed tokens_in (10)"),
        ({"tokens_in": 10, "tokens_audio_in": 11}, "tokens_audio_in (11) exceed tokens_in (10)"),
        ({"tokens_out": 10, "tokens_reasoning": 11}, "tokens_reasoning (11) exceed tokens_out (10)"),
        ({"tokens_out": 10, "tokens_audio_out": 11}, "tokens_audio_out (11) exceed tokens_out (10)"),
        ({"tokens_in": 10, "tokens_cached": 1, "tokens_audio_in": 1}, "how many of the cached tokens are audio"),
        (
            {"tokens_out": 10, "tokens_reasoning": 1, "tokens_audio_out": 1},
            "how many of the reasoning tokens are audio",
        ),
    ],
)
def test_contradicting_counts_are_refused(counts: dict[str, int], reason: str) -> None:
    with pytest.raises(UnrateableError) as refused:
        Price(ALL_RATES).cost(usage(**counts))
    assert reason in str(refused.value)


def test_the_book_gives_the_reason_and_no_cost() -> None:
    rated = BOOK.rate(usage(provider="openai", model="gpt-4o", tokens_in=10, tokens_cached=11), AT)
    assert rated.cost_usd is None
    assert rated.reason is not None
    assert "exceed tokens_in" in rated.reason


# Flat prices.


@pytest.mark.parametrize(
    ("rates", "counts", "expected"),
    [
        (Rates(per_request=Decimal("0.5")), {}, "0.5"),
        (Rates(per_request=Decimal("0.5")), {"requests": 3}, "1.5"),
        (Rates(per_request=Decimal("0.5")), {"requests": 0}, "0"),
        (Rates(per_search=Decimal("0.001")), {"searches": 7}, "0.007"),
        (Rates(per_image=Decimal("0.04")), {"images": 2}, "0.08"),
        (Rates(per_image=Decimal("0.04")), {"images": 0}, "0"),
        (Rates(per_page=Decimal("0.002")), {"pages": 500}, "1"),
        (Rates(per_second=Decimal("0.05")), {"seconds": "2.5"}, "0.125"),
        (Rates(per_hour=Decimal("3.6")), {"seconds": "0.001"}, "0.000001"),
        (Rates(per_hour=Decimal("3.6")), {"seconds": "0"}, "0"),
        (Rates(per_request=Decimal(1), per_image=Decimal(2)), {"images": 3, "requests": 1}, "6"),
        (Rates(per_request=Decimal(1), per_second=Decimal(2)), {"seconds": "3", "requests": 1}, "6"),
        (Rates(per_request=Decimal(1), per_image=Decimal(2)), {"requests": 3}, "3"),
        (Rates(per_request=Decimal("0.1"), input_per_1m=Decimal(10)), {"tokens_in": 1_000_000}, "10.1"),
        (Rates(input_per_1m=Decimal(3), per_search=Decimal("0.01")), {"tokens_in": 1_000_000, "searches": 2}, "3.02"),
        (Rates(input_per_1m=Decimal(3)), {"requests": 9}, "0"),
        (Rates(input_per_1m=Decimal(3)), {"images": 0, "searches": 0, "seconds": "0"}, "0"),
        (Rates(input_per_1m=Decimal(3)), {"tokens_in": 1, "tokens_out": 5}, "0.000003"),
    ],
)
def test_flat_prices(rates: Rates, counts: dict[str, int | str], expected: str) -> None:
    assert Price(rates).cost(usage(**counts)) == Decimal(expected)


@pytest.mark.parametrize(
    ("rates", "counts", "reason"),
    [
        (Rates(per_image=Decimal(1)), {}, "priced per image, and the event counts none"),
        (Rates(per_image=Decimal(1)), {"requests": 1}, "counts none of these"),
        (Rates(per_second=Decimal(1)), {}, "counts none of these"),
        (Rates(per_search=Decimal(1), per_page=Decimal(1)), {}, "priced per search and page"),
        (Rates(per_image=Decimal(1)), {"images": 1, "tokens_in": 5}, "not in tokens"),
        (Rates(per_request=Decimal(1)), {"tokens_out": 5}, "not in tokens"),
        (Rates(per_request=Decimal(1)), {"images": 1}, "no price for images"),
        (Rates(per_request=Decimal(1)), {"seconds": "1"}, "no price for seconds"),
        (Rates(input_per_1m=Decimal(1)), {"tokens_in": 1, "images": 1}, "no price for images; it is priced per token"),
        (Rates(input_per_1m=Decimal(1)), {"pages": 1}, "no price for pages"),
        (Rates(input_per_1m=Decimal(1)), {"searches": 1}, "no price for searches"),
        (Rates(input_per_1m=Decimal(1)), {"seconds": "0.1"}, "no price for seconds"),
        (Rates(), {}, "a unit that usage events do not count"),
    ],
)
def test_what_the_price_does_not_cover_is_refused(rates: Rates, counts: dict[str, int | str], reason: str) -> None:
    with pytest.raises(UnrateableError) as refused:
        Price(rates).cost(usage(**counts))
    assert reason in str(refused.value)


def test_a_shortest_time_is_charged() -> None:
    whisper = Price(Rates(per_hour=Decimal(36)), minimum_seconds=10)
    assert whisper.cost(usage(seconds="1")) == whisper.cost(usage(seconds="10")) == Decimal("0.1")
    assert whisper.cost(usage(seconds="11")) == Decimal("0.11")


# Exactness.

amounts = st.builds(
    lambda whole, places, digits: Decimal(f"{whole}.{digits % 10**places:0{places}}" if places else whole),
    st.integers(0, 10**12 - 1),
    st.integers(0, 18),
    st.integers(0, 10**18 - 1),
)
counts = st.integers(0, MAX_COUNT)


@settings(max_examples=300)
@given(st.tuples(amounts, amounts, amounts, amounts, amounts), st.tuples(counts, counts, counts, counts))
def test_a_cost_is_the_exact_sum_whatever_the_context_of_the_caller(
    figures: tuple[Decimal, ...], numbers: tuple[int, ...]
) -> None:
    per_in, per_out, cached, per_item, seconds = figures
    tokens_in, tokens_out, tokens_cached, items = numbers
    price = Price(
        Rates(input_per_1m=per_in, output_per_1m=per_out, cached_per_1m=cached, per_page=per_item, per_second=per_item),
        convention=Convention(cache_beside_input=True),
    )
    call = usage(tokens_in=tokens_in, tokens_out=tokens_out, pages=items, seconds=format(seconds, "f"))
    call.tokens_cached = tokens_cached
    with decimal.localcontext(decimal.Context(prec=3)):
        cost, plain = price.cost(call), price.cost(usage(tokens_in=tokens_in, tokens_out=tokens_out))
    tokens = (Fraction(per_in) * tokens_in + Fraction(per_out) * tokens_out) / 1_000_000
    assert Fraction(plain) == tokens
    assert Fraction(cost) == tokens + Fraction(cached) * tokens_cached / 1_000_000 + Fraction(per_item) * items + (
        Fraction(per_item) * Fraction(seconds)
    )


def test_the_largest_count_is_exact() -> None:
    price = Price(Rates(input_per_1m=Decimal("0.123456789"), output_per_1m=Decimal("987654.321")))
    expected = Decimal(9007199254740992 * 123456789).scaleb(-15, decimal.Context(prec=60))
    assert price.cost(usage(tokens_in=MAX_COUNT)) == expected


@pytest.mark.parametrize(
    ("cost", "text"), [("0.016500", "0.0165"), ("18.000", "18"), ("1E+3", "1000"), ("0.000", "0"), ("2", "2")]
)
def test_trimmed(cost: str, text: str) -> None:
    assert str(trimmed(Decimal(cost))) == text


# What needs no price, and what has none.


def test_the_publisher_s_own_figure_prevails() -> None:
    assert BOOK.rate(usage(provider="openai", model="gpt-4o", tokens_in=5, cost_usd="1.50"), AT) == (
        Decimal("1.50"),
        "publisher",
        None,
    )
    assert BOOK.rate(usage(provider="nobody", model="unknown", cost_usd="0"), AT).cost_usd == 0


@pytest.mark.parametrize("counts", [{}, {"requests": 2}, {"seconds": "0"}, {"images": 0}])
def test_an_event_without_provider_that_buys_nothing_costs_nothing(counts: dict[str, int | str]) -> None:
    rated = BOOK.rate(usage(provider=None, model=None, **counts), AT)
    assert rated == (Decimal(0), "", None)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: usage(provider=None, model=None, tokens_in=1), "names no provider"),
        (lambda: usage(provider=None, model=None, images=1), "names no provider"),
        (lambda: usage(provider=None, model=None, seconds="1"), "names no provider"),
        (lambda: usage(provider=None, model="gpt-4o"), "names no provider"),
        (lambda: usage(provider="openai", model=None, tokens_in=1), "names no model of provider 'openai'"),
        (lambda: usage(provider="openai", model="gpt-99", tokens_in=1), "no price is known for model 'gpt-99'"),
        (lambda: usage(provider="video", model="veo-9"), "no price is known for model 'veo-9' of provider 'video'"),
        (lambda: usage(provider="mistral", model="unheard-of", tokens_in=1), "no price is known"),
        (lambda: usage(provider="internal", model=None), "names no model"),
        (lambda: usage(provider="openai", model="tts-1"), "a unit that usage events do not count"),
        (lambda: usage(provider="openai", model="whisper-1", tokens_in=1), "priced per hour, not in tokens"),
        (lambda: usage(provider="tavily", model=None, tokens_in=1), "not in tokens"),
    ],
)
def test_unknown_is_unpriced_and_says_why(call: Callable[[], Usage], reason: str) -> None:
    rated = BOOK.rate(call(), AT)
    assert rated.cost_usd is None
    assert rated.reason is not None
    assert reason in rated.reason


def test_what_the_library_lists_as_free_is_free() -> None:
    assert BOOK.rate(usage(provider="google", model="gemma-3", tokens_in=10, tokens_out=10), AT).cost_usd == 0
