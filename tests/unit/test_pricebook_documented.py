"""Every price of the two documents, and of the second one's default table, written out here a second time by hand."""

import csv
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices.data import providers

from aragora.billing.pricebook import PriceBook
from aragora.billing.prices.library import canonical_provider
from aragora.contracts.usage import Usage

BOOK = PriceBook.load()
NOW = datetime(2026, 11, 21, tzinfo=UTC)
MOMENTS = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC), NOW, datetime(2099, 1, 1, tzinfo=UTC))

TOKEN_PRICES = [
    # The Aragora document: Provider, Model, Input, Output, as printed; then as events name them.
    ("Anthropic", "Claude Opus 4", "15.00", "75.00"),
    ("anthropic", "claude-opus-4", "15.00", "75.00"),
    ("anthropic", "claude-opus-4-20250514", "15.00", "75.00"),
    ("Anthropic", "Claude Sonnet 4", "3.00", "15.00"),
    ("anthropic", "claude-sonnet-4", "3.00", "15.00"),
    ("anthropic", "claude-sonnet-4-20250514", "3.00", "15.00"),
    ("OpenAI", "GPT-4o", "2.50", "10.00"),
    ("openai", "gpt-4o", "2.50", "10.00"),
    ("openai", "gpt-4o-2024-08-06", "2.50", "10.00"),
    ("OpenAI", "GPT-4o Mini", "0.15", "0.60"),
    ("openai", "gpt-4o-mini-2024-07-18", "0.15", "0.60"),
    ("Gemini", "Gemini Pro", "1.25", "5.00"),
    ("google", "gemini-pro", "1.25", "5.00"),
    ("google", "gemini-1.5-pro", "1.25", "5.00"),
    ("DeepSeek", "DeepSeek V3", "0.14", "0.28"),
    ("deepseek", "deepseek-chat", "0.14", "0.28"),
    ("OpenRouter", "Default", "2.00", "8.00"),
    ("openrouter", "somebody/new-model", "2.00", "8.00"),
    # The ALwrity document.
    ("gemini", "Gemini 2.0 Flash Lite", "0.075", "0.30"),
    ("gemini", "gemini-2.0-flash-lite", "0.075", "0.30"),
    ("gemini", "Gemini 2.5 Flash", "0.125", "0.375"),
    ("google", "gemini-2.5-flash", "0.125", "0.375"),
    ("vertex", "gemini-2.5-flash", "0.125", "0.375"),
    ("gemini", "Gemini 2.5 Pro", "1.25", "10.00"),
    ("gemini", "gemini-2.5-pro", "1.25", "10.00"),
]
SEARCH_PRICES = [("tavily", "0.001"), ("serper", "0.001"), ("metaphor", "0.003")]

DEFAULT_TABLE = """\
provider,model,in_per_1M,out_per_1M,per_request,per_search,per_image,per_page
anthropic,claude-3.5-sonnet,3.0,15.0,0.0,0.0,0.0,0.0
audio,alwrity-ai/cosyvoice/voice-clone,10.0,0.0,0.15,0.0,0.0,0.0
audio,alwrity-ai/qwen3-tts/voice-clone,10.0,0.0,0.1,0.0,0.0,0.0
audio,default,50.0,0.0,0.0,0.0,0.0,0.0
audio,minimax/speech-02-hd,50.0,0.0,0.0,0.0,0.0,0.0
audio,minimax/voice-clone,0.0,0.0,0.5,0.0,0.0,0.0
audio,wavespeed-ai/cosyvoice-tts/voice-clone,50.0,0.0,0.005,0.0,0.0,0.0
audio,wavespeed-ai/qwen3-tts/voice-clone,50.0,0.0,0.005,0.0,0.0,0.0
exa,exa-search,0.0,0.0,0.005,0.0,0.0,0.0
firecrawl,firecrawl-extract,0.0,0.0,0.0,0.0,0.0,0.002
gemini,gemini-1.5-flash,0.075,0.3,0.0,0.0,0.0,0.0
gemini,gemini-1.5-flash-8b,0.0375,0.15,0.0,0.0,0.0,0.0
gemini,gemini-1.5-flash-8b-large,0.075,0.3,0.0,0.0,0.0,0.0
gemini,gemini-1.5-flash-large,0.15,0.6,0.0,0.0,0.0,0.0
gemini,gemini-1.5-pro,1.25,5.0,0.0,0.0,0.0,0.0
gemini,gemini-1.5-pro-large,2.5,10.0,0.0,0.0,0.0,0.0
gemini,gemini-2.5-flash,0.3,2.5,0.0,0.0,0.0,0.0
gemini,gemini-2.5-flash-audio,1.0,2.5,0.0,0.0,0.0,0.0
gemini,gemini-2.5-flash-lite,0.1,0.4,0.0,0.0,0.0,0.0
gemini,gemini-2.5-flash-lite-audio,0.3,0.4,0.0,0.0,0.0,0.0
gemini,gemini-2.5-pro,1.25,10.0,0.0,0.0,0.0,0.0
gemini,gemini-2.5-pro-large,2.5,15.0,0.0,0.0,0.0,0.0
gemini,gemini-embedding,0.15,0.0,0.0,0.0,0.0,0.0
gemini,gemini-grounding-search,0.0,0.0,0.035,0.0,0.0,0.0
image_edit,flux-kontext-pro,0.0,0.0,0.04,0.0,0.0,0.0
image_edit,qwen-edit,0.0,0.0,0.02,0.0,0.0,0.0
image_edit,qwen-edit-plus,0.0,0.0,0.02,0.0,0.0,0.0
metaphor,metaphor-search,0.0,0.0,0.003,0.0,0.0,0.0
mistral,default,1.0,3.0,0.0,0.0,0.0,0.0
mistral,gpt-oss-120b,1.0,3.0,0.0,0.0,0.0,0.0
mistral,openai/gpt-oss-120b:groq,1.0,3.0,0.0,0.0,0.0,0.0
openai,gpt-4o,2.5,10.0,0.0,0.0,0.0,0.0
openai,gpt-4o-mini,0.15,0.6,0.0,0.0,0.0,0.0
serper,serper-search,0.0,0.0,0.001,0.0,0.0,0.0
stability,ideogram-v3-turbo,0.0,0.0,0.05,0.0,0.05,0.0
stability,qwen-image,0.0,0.0,0.03,0.0,0.03,0.0
stability,stable-diffusion,0.0,0.0,0.0,0.0,0.04,0.0
tavily,tavily-search,0.0,0.0,0.001,0.0,0.0,0.0
video,alibaba/wan-2.5,0.0,0.0,0.25,0.0,0.0,0.0
video,default,0.0,0.0,0.25,0.0,0.0,0.0
video,kling-v2.5-turbo-std-10s,0.0,0.0,0.42,0.0,0.0,0.0
video,kling-v2.5-turbo-std-5s,0.0,0.0,0.21,0.0,0.0,0.0
video,seedance-1.5-pro,0.0,0.0,0.4,0.0,0.0,0.0
video,tencent/HunyuanVideo,0.0,0.0,0.1,0.0,0.0,0.0
video,wan-2.5,0.0,0.0,0.25,0.0,0.0,0.0
video,wavespeed-ai/infinitetalk,0.0,0.0,0.3,0.0,0.0,0.0
wavespeed,openai/gpt-oss-120b,0.6,0.6,0.0,0.0,0.0,0.0
wavespeed,openai/gpt-oss-120b:cerebras,0.6,0.6,0.0,0.0,0.0,0.0
wavespeed,openai/gpt-oss-20b,0.2,0.2,0.0,0.0,0.0,0.0
"""
PREVAILS = {("gemini", "gemini-2.5-flash")}
"""Where the ALwrity document states another price than its default table."""
COUNTED = {"per_search": "searches", "per_image": "images", "per_page": "pages"}


def cost(provider: str, model: str | None, at: datetime | None = None, **counts: int) -> Decimal | None:
    usage = Usage(event_type="call", provider=provider, model=model)
    for name, count in counts.items():
        setattr(usage, name, count)
    return BOOK.rate(usage, at or NOW).cost_usd


def default_rows() -> list[dict[str, str]]:
    rows = list(csv.DictReader(DEFAULT_TABLE.splitlines()))
    assert len(rows) == 49
    return [row for row in rows if (row["provider"], row["model"]) not in PREVAILS]


@pytest.mark.parametrize(("provider", "model", "in_per_1m", "out_per_1m"), TOKEN_PRICES)
@pytest.mark.parametrize("at", MOMENTS, ids=str)
def test_documented_token_prices(provider: str, model: str, in_per_1m: str, out_per_1m: str, at: datetime) -> None:
    assert cost(provider, model, at, tokens_in=1_000_000) == Decimal(in_per_1m)
    assert cost(provider, model, at, tokens_out=1_000_000) == Decimal(out_per_1m)
    assert cost(provider, model, at, tokens_in=1) == Decimal(in_per_1m).scaleb(-6)
    assert cost(provider, model, at, tokens_in=3, tokens_out=7) == (
        3 * Decimal(in_per_1m) + 7 * Decimal(out_per_1m)
    ).scaleb(-6)


@pytest.mark.parametrize(("provider", "per_search"), SEARCH_PRICES)
@pytest.mark.parametrize("model", [None, "{}-search", "advanced"])
def test_documented_search_prices(provider: str, per_search: str, model: str | None) -> None:
    named = None if model is None else model.format(provider)
    assert cost(provider, named, searches=3) == 3 * Decimal(per_search)
    assert cost(provider, named) == Decimal(per_search)
    assert cost(provider, named, requests=5) == 5 * Decimal(per_search)
    assert cost(provider, named, requests=1, searches=1) == Decimal(per_search)


@pytest.mark.parametrize("row", default_rows(), ids=lambda row: f"{row['provider']}/{row['model']}")
def test_every_row_of_the_default_table(row: dict[str, str]) -> None:
    provider, model = row["provider"], row["model"]
    price = {column: Decimal(row[column]) for column in row if column not in {"provider", "model"}}
    if price["in_per_1M"] or price["out_per_1M"]:
        tokens = (1_500 * price["in_per_1M"] + 800 * price["out_per_1M"]).scaleb(-6)
        assert cost(provider, model, tokens_in=1_500, tokens_out=800) == tokens + price["per_request"]
    else:
        assert cost(provider, model, tokens_in=1_500) is None
        assert cost(provider, model, tokens_in=1_500, requests=1, images=1, searches=1, pages=1) is None
    if price["per_request"] and not price["in_per_1M"]:
        assert cost(provider, model) == price["per_request"]
        assert cost(provider, model, requests=4) == 4 * price["per_request"]
    for column, name in COUNTED.items():
        if price[column]:
            assert cost(provider, model, None, **{name: 4}) == 4 * price[column]


def test_an_image_or_search_priced_both_per_call_and_apiece_is_charged_once() -> None:
    assert cost("stability", "qwen-image", requests=1, images=1) == Decimal("0.03")
    assert cost("stability", "qwen-image", requests=1, images=4) == Decimal("0.12")
    assert cost("image_edit", "qwen-edit", requests=1, images=1) == Decimal("0.02")


def test_a_row_prices_its_own_model_and_no_other_that_is_named_alike() -> None:
    """The models of the library that a document prices; every other keeps the library's own price."""
    documented = {
        (provider.id, model.id)
        for provider in providers
        for model in provider.models
        if BOOK.resolve(provider.id, model.id, NOW).source not in {"genai-prices", ""}
        and provider.find_model(model.id) is model
    }
    assert documented == {
        ("anthropic", "claude-3-5-sonnet"),
        ("anthropic", "claude-opus-4-0"),
        ("anthropic", "claude-sonnet-4-0"),
        ("deepseek", "deepseek-chat"),
        ("google", "gemini-1.5-flash"),
        ("google", "gemini-1.5-pro"),
        ("google", "gemini-2.0-flash-lite"),
        ("google", "gemini-2.5-flash"),
        ("google", "gemini-2.5-flash-lite"),
        ("google", "gemini-2.5-pro"),
        ("google", "gemini-embedding-001"),
        ("google", "gemini-pro"),
        ("openai", "gpt-4o"),
        ("openai", "gpt-4o-mini"),
    }


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4o-audio-preview"),
        ("openai", "gpt-4o-2024-05-13"),
        ("openai", "gpt-4o-mini-audio-preview"),
        ("anthropic", "claude-opus-4-5"),
        ("anthropic", "claude-opus-4-1"),
        ("anthropic", "claude-sonnet-4-5"),
        ("gemini", "gemini-2.5-flash-preview-04-17"),
        ("gemini", "gemini-2.5-flash-image"),
        ("bedrock", "anthropic.claude-sonnet-4-20250514-v1:0"),
        ("azure", "gpt-4o"),
        ("openrouter", "anthropic/claude-sonnet-4"),
    ],
)
def test_neighbours_are_priced_by_the_library(provider: str, model: str) -> None:
    assert BOOK.resolve(provider, model, NOW).source == "genai-prices"


def test_the_rows_for_the_pricing_page_are_those_that_apply() -> None:
    shown = {(canonical_provider(row.provider) or row.provider, row.model) for row in BOOK.rows(NOW)}
    assert len(shown) == len(BOOK.rows(NOW))
    assert {(canonical_provider(r["provider"]) or r["provider"], r["model"]) for r in default_rows()} <= shown
    assert {("anthropic", "claude-opus-4"), ("openrouter", "default"), ("deepseek", "deepseek-chat")} <= shown
    assert {row.source for row in BOOK.rows(NOW)} == {"aragora", "alwrity"}
