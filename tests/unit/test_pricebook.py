"""Looking prices up: tables of one's own, dates, intervals, bad files, and the estimate of the SDK."""

import socket
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from aragora.billing.costs import UnknownPriceError, calculate_token_cost
from aragora.billing.pricebook import _MOST_LINES, PriceBook
from aragora.billing.prices.tables import ALWAYS, FOREVER, PriceTableError
from aragora.contracts.usage import Usage

NOW = datetime(2026, 11, 21, tzinfo=UTC)
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)


def table(folder: Path, text: str, name: str = "ours.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def cost(book: PriceBook, provider: str, model: str, at: datetime = NOW, tokens_in: int = 1_000_000) -> Decimal | None:
    return book.rate(Usage(event_type="call", provider=provider, model=model, tokens_in=tokens_in), at).cost_usd


def test_an_operator_s_table_overrides_documents_and_library_from_its_date(tmp_path: Path) -> None:
    own = table(
        tmp_path,
        "# what we pay\nprovider,model,valid_from,input_per_1m,output_per_1m\n"
        "openai,gpt-4o,2026-01-01,2,8\n"
        "openai,gpt-4o,2026-07-01T00:00:00+02:00,1,4\n"
        "groq,llama-3.3-70b-versatile,,7,7\n"
        "acme,rocket-1,,5,5\n",
    )
    book = PriceBook.load([own])
    july = datetime(2026, 6, 30, 22, tzinfo=UTC)
    assert cost(book, "openai", "gpt-4o", NEW_YEAR - INSTANT) == Decimal("2.5")
    assert cost(book, "openai", "gpt-4o", NEW_YEAR) == 2
    assert cost(book, "openai", "gpt-4o", july - INSTANT) == 2
    assert cost(book, "openai", "gpt-4o", july) == 1
    assert cost(book, "openai", "gpt-4o", NEW_YEAR - INSTANT) == Decimal("2.5")
    assert cost(book, "groq", "llama-3.3-70b-versatile") == 7
    assert cost(book, "Acme", "Rocket 1") == 5
    assert book.resolve("openai", "gpt-4o", NEW_YEAR).source == "ours"
    assert book.resolve("openai", "gpt-4o", NEW_YEAR).valid_from == NEW_YEAR
    assert book.resolve("openai", "gpt-4o", NEW_YEAR).valid_until == july
    assert book.resolve("openai", "gpt-4o", NEW_YEAR - INSTANT).valid_until == NEW_YEAR
    assert [row.source for row in book.rows(NOW) if row.model == "gpt-4o"] == ["ours"]
    assert [row.source for row in book.rows(NEW_YEAR - INSTANT) if row.model == "gpt-4o"] == ["aragora"]


def test_of_two_tables_the_later_prevails(tmp_path: Path) -> None:
    first = table(tmp_path, "provider,model,per_image\nstability,qwen-image,1\nstability,other,3\n", "first.csv")
    second = table(tmp_path, "provider,model,per_image\nstability,qwen-image,2\n", "second.csv")
    book = PriceBook.load([first, second])
    images = Usage(event_type="call", provider="stability", model="qwen-image", images=1)
    assert book.rate(images, NOW) == (Decimal(2), "second", None)
    images.model = "other"
    assert book.rate(images, NOW) == (Decimal(3), "first", None)


def test_a_table_may_state_every_rate_and_a_price_for_every_other_model(tmp_path: Path) -> None:
    own = table(
        tmp_path,
        "provider,model,input_per_1m,output_per_1m,cached_per_1m,per_second\nacme,* -,10,20,1,\nacme,voice,,,,0.5\n",
    )
    book = PriceBook.load([own])
    call = Usage(event_type="call", provider="acme", model="whatever", tokens_in=10, tokens_cached=10)
    assert book.rate(call, NOW).cost_usd == Decimal("0.00001")
    call.model = None
    assert book.rate(call, NOW).cost_usd == Decimal("0.00001")
    assert book.rate(Usage(event_type="call", provider="acme", model="voice", seconds="2"), NOW).cost_usd == 1


def test_a_row_at_the_library_s_own_price_keeps_the_library_s_cached_price_and_any_other_does_not(
    tmp_path: Path,
) -> None:
    call = Usage(event_type="call", provider="openai", model="gpt-4o", tokens_in=1_000_000, tokens_cached=1_000_000)
    assert PriceBook.load().rate(call, NOW).cost_usd == Decimal("1.25")
    own = table(tmp_path, "provider,model,input_per_1m,output_per_1m\nopenai,gpt-4o,2,8\n")
    assert PriceBook.load([own]).rate(call, NOW).cost_usd == 2


def test_a_documented_price_is_the_same_for_a_long_call() -> None:
    assert cost(PriceBook.load(), "gemini", "gemini-2.5-pro", tokens_in=300_000) == Decimal("0.375")


def test_a_price_without_dates_always_holds() -> None:
    resolved = PriceBook.load().resolve("stability", "stable-diffusion", NOW)
    assert (resolved.valid_from, resolved.valid_until, resolved.source) == (ALWAYS, FOREVER, "alwrity")
    unknown = PriceBook.load().resolve("stability", "unheard-of", NOW)
    assert (unknown.price, unknown.valid_from, unknown.valid_until) == (None, ALWAYS, FOREVER)


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("", 0, "provider"),
        ("provider,input_per_1m\nopenai,1\n", 1, "model"),
        ("provider,model,price\nopenai,gpt-4o,1\n", 1, "price"),
        ("provider,model,per_image,per_image\nopenai,gpt-4o,1,1\n", 1, "per_image"),
        ("# note\n\nprovider,model,input_per_1m\nopenai,gpt-4o,1,2\n", 4, "-"),
        ("provider,model,input_per_1m\nopenai,gpt-4o\n", 2, "-"),
        ("provider,model,input_per_1m\nopenai,gpt-4o,-1\n", 2, "input_per_1m"),
        ("provider,model,input_per_1m\nopenai,gpt-4o,NaN\n", 2, "input_per_1m"),
        ("provider,model,input_per_1m\nopenai,gpt-4o,1e3\n", 2, "input_per_1m"),
        ("provider,model,input_per_1m\nopenai,gpt-4o,$3\n", 2, "input_per_1m"),
        ("provider,model,input_per_1m\nopenai,gpt-4o,\n", 2, "-"),
        ("provider,model,input_per_1m\n,gpt-4o,1\n", 2, "provider"),
        ("provider,model,input_per_1m\nopenai, ,1\n", 2, "model"),
        ("provider,model,cached_per_1m\nopenai,gpt-4o,1\n", 2, "cached_per_1m"),
        ("provider,model,input_per_1m,reasoning_per_1m\nopenai,gpt-4o,1,1\n", 2, "reasoning_per_1m"),
        ("provider,model,input_per_1m\nopenai,a,1\nopenai,b A,1\n", 3, "model"),
        ("provider,model,valid_from,input_per_1m\nopenai,a,yesterday,1\n", 2, "valid_from"),
        ("provider,model,valid_from,input_per_1m\nopenai,a,2026-02-30,1\n", 2, "valid_from"),
        ("provider,model,valid_from,input_per_1m\nopenai,a,2026-02-03T00:00:00,1\n", 2, "valid_from"),
        ('provider,model,input_per_1m\nopenai,"a,1\n', 2, "-"),
    ],
)
def test_a_wrong_table_is_refused_with_file_line_and_column(tmp_path: Path, text: str, line: int, column: str) -> None:
    with pytest.raises(PriceTableError) as refused:
        PriceBook.load([table(tmp_path, text)])
    assert (refused.value.table, refused.value.line, refused.value.column) == ("ours.csv", line, column)
    assert str(refused.value).startswith(f"ours.csv, line {line}, column {column}: ")


def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PriceTableError, match=r"absent\.csv"):
        PriceBook.load([tmp_path / "absent.csv"])
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PriceTableError, match=r"binary\.csv"):
        PriceBook.load([binary])


def test_what_is_remembered_is_bounded_although_publishers_choose_the_names() -> None:
    book = PriceBook.load()
    for number in range(_MOST_LINES + 10):
        book.resolve("nobody", f"model-{number}", NOW)
    assert len(book._lines) <= _MOST_LINES


def test_no_price_is_ever_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the price book opened a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    book = PriceBook.load()
    assert cost(book, "groq", "llama-3.3-70b-versatile") is not None
    assert cost(book, "groq", "unheard-of") is None


# The estimate of the SDK.


def test_the_example_of_the_document() -> None:
    cost_usd = calculate_token_cost(provider="anthropic", model="claude-sonnet-4", tokens_in=1500, tokens_out=800)
    assert f"Cost: ${cost_usd}" == "Cost: $0.0165"


def test_an_estimate_equals_what_is_billed() -> None:
    call = Usage(event_type="call", provider="deepseek", model="deepseek-v4-pro", tokens_in=12_345, tokens_out=678)
    call.tokens_cached = 999
    estimate = calculate_token_cost("deepseek", "deepseek-v4-pro", 12_345, 678, tokens_cached=999, at=NOW)
    assert estimate == PriceBook.load().rate(call, NOW).cost_usd


def test_an_estimate_of_an_unknown_model_says_what_to_do() -> None:
    with pytest.raises(UnknownPriceError, match="no price is known for model 'gpt-99' of provider 'openai'; add it"):
        calculate_token_cost("openai", "gpt-99", 1, 1)


@pytest.mark.parametrize("count", [-1, 2**53 + 1, 1.5, True, "7", None])
def test_an_estimate_of_something_that_is_no_count_is_refused(count: object) -> None:
    with pytest.raises(ValueError, match="tokens_in must be a whole number"):
        calculate_token_cost("openai", "gpt-4o", count, 1)  # type: ignore[arg-type]


def test_an_estimate_at_a_time_without_an_offset_is_refused() -> None:
    with pytest.raises(ValueError, match="offset"):
        calculate_token_cost("openai", "gpt-4o", 1, 1, at=datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point
