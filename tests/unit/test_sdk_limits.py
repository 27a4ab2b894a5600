"""What the SDK says about limits without asking anybody."""

import json
from decimal import Decimal

import pytest

from aragora.billing.limits import APIProvider, LimitsClient, handle_usage_limit_error


def test_the_documented_answer_to_somebody_at_a_limit():
    response = handle_usage_limit_error(
        user_id="user123", provider=APIProvider.GEMINI, limit_type="api_calls", current_usage=1000, limit_value=1000
    )
    assert response.status_code == 429
    content = json.loads(json.dumps(response.content))
    assert content == {
        "error": "Usage limit exceeded",
        "message": "1000 of 1000 api_calls for gemini are used this month. Wait for the next, or upgrade.",
        "user_id": "user123",
        "provider": "gemini",
        "limit_type": "api_calls",
        "current_usage": 1000,
        "limit_value": 1000,
    }


@pytest.mark.parametrize(
    ("amount", "written"), [(Decimal("150.00"), 150), (Decimal("15.75"), "15.75"), (Decimal("1E-7"), "0.0000001")]
)
def test_money_in_it_is_exact(amount: Decimal, written: int | str):
    content = handle_usage_limit_error("ann", "acme", "cost_usd", amount, Decimal(150)).content
    assert (content["current_usage"], content["limit_value"], content["provider"]) == (written, 150, "acme")
    json.dumps(content)


def test_every_documented_provider_is_named():
    assert {provider.value for provider in APIProvider} == {
        "gemini", "openai", "anthropic", "mistral", "tavily", "serper", "metaphor", "firecrawl", "stability",
    }  # fmt: skip


def test_an_address_that_is_none_is_refused():
    with pytest.raises(ValueError, match="http"):
        LimitsClient(base_url="localhost:8000")
