"""What the Stripe functions say when they cannot do what they are asked, before and after they ask Stripe."""

import subprocess
import sys

import pytest
import stripe

from aragora.billing import stripe_client
from aragora.billing.models import SubscriptionTier
from aragora.billing.stripe_client import (
    StripeConfigError,
    StripeRequestError,
    StripeUnavailable,
    cancel_subscription,
    create_checkout_session,
    get_subscription,
    update_subscription,
)
from aragora.billing.stripe_objects import read_subscription

VARIABLES = {
    "STRIPE_SECRET_KEY": "sk_test_of_nobody",
    "STRIPE_PRICE_STARTER": "price_starter",
    "STRIPE_PRICE_PROFESSIONAL": "price_professional",
    "STRIPE_PRICE_ENTERPRISE": "price_enterprise",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch):
    for variable, text in VARIABLES.items():
        monkeypatch.setenv(variable, text)
    monkeypatch.setenv("STRIPE_API_BASE", "ftp://nowhere")  # so that no test of this file reaches a network


def check_out(tier: SubscriptionTier = SubscriptionTier.STARTER):
    return create_checkout_session(
        customer_email="user@example.com", tier=tier, success_url="https://a.example", cancel_url="https://a.example"
    )


def test_verifying_loads_nothing_of_stripe():
    program = "import sys, aragora.billing.stripe_client; sys.exit('stripe' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_free_needs_no_checkout():
    with pytest.raises(ValueError, match="the free tier costs nothing and has no checkout; choose one of starter"):
        check_out(SubscriptionTier.FREE)


@pytest.mark.parametrize("tier", [tier for tier in SubscriptionTier if tier != SubscriptionTier.FREE])
@pytest.mark.parametrize("text", [None, " "])
def test_a_missing_price_is_named(monkeypatch: pytest.MonkeyPatch, tier, text):
    variable = f"STRIPE_PRICE_{tier.name}"
    monkeypatch.delenv(variable) if text is None else monkeypatch.setenv(variable, text)
    with pytest.raises(StripeConfigError, match=f"^{variable} is not set; set it to the id of the Stripe price of"):
        check_out(tier)


@pytest.mark.parametrize(
    "ask",
    [
        check_out,
        lambda: get_subscription("sub_1"),
        lambda: cancel_subscription("sub_1"),
        lambda: update_subscription("sub_1", new_price_id="price_1"),
    ],
)
def test_a_missing_key_and_a_wrong_address_are_named(monkeypatch: pytest.MonkeyPatch, ask):
    with pytest.raises(StripeConfigError, match="STRIPE_API_BASE must begin with http"):
        ask()
    monkeypatch.delenv("STRIPE_SECRET_KEY")
    with pytest.raises(StripeConfigError, match=r"^STRIPE_SECRET_KEY is not set; set it to the secret key of your"):
        ask()


@pytest.mark.parametrize("blank", ["", " "])
def test_a_blank_id_is_none(monkeypatch: pytest.MonkeyPatch, blank):
    monkeypatch.delenv("STRIPE_API_BASE")
    for ask in (get_subscription, cancel_subscription, lambda found: update_subscription(found, new_price_id="p")):
        with pytest.raises(ValueError, match="subscription_id is blank"):
            ask(blank)
    with pytest.raises(ValueError, match="new_price_id is blank"):
        update_subscription("sub_1", new_price_id=blank)


def answered(kind: type[stripe.StripeError], status: int, **said: str) -> stripe.StripeError:
    """The error that Stripe's SDK raises for an answer."""
    requestor = stripe.StripeClient("sk_test_of_nobody")._requestor
    with pytest.raises(kind) as raised:
        requestor.handle_error_response("", status, {"error": said}, {}, "V1")
    return raised.value


@pytest.mark.parametrize(
    ("kind", "status"), [(stripe.RateLimitError, 429), (stripe.APIError, 409), (stripe.APIError, 500)]
)
def test_trouble_that_passes(kind, status):
    error = stripe_client._translated(answered(kind, status, message="for user@example.com"))
    assert isinstance(error, StripeUnavailable)
    assert str(error) == f"Stripe cannot take the request now (status {status}); try again later"


def test_an_answer_that_is_not_stripes_is_no_refusal():
    error = stripe_client._translated(stripe.APIError("Invalid response body", http_status=404))
    assert isinstance(error, StripeUnavailable)


def test_a_refused_key_is_a_matter_of_the_environment():
    error = stripe_client._translated(
        answered(stripe.AuthenticationError, 401, message="Invalid API Key provided: sk_test_*****body")
    )
    assert isinstance(error, StripeConfigError)
    assert str(error).startswith("Stripe refuses the key; set STRIPE_SECRET_KEY")


def test_a_refusal_is_told_in_stripes_words_without_secrets():
    error = stripe_client._translated(
        answered(
            stripe.InvalidRequestError,
            400,
            message="Invalid email address: user@example.com, key sk_test_4eC39H, and (whsec_abc)",
            code="email_invalid",
            param="customer_email",
        )
    )
    assert isinstance(error, StripeRequestError)
    assert (error.status, error.code, error.param) == (400, "email_invalid", "customer_email")
    assert error.detail == "Invalid email address: … key … and (…"
    assert str(error) == f"Stripe refuses the request (400, email_invalid, customer_email): {error.detail}"


def subscription(*prices: str):
    items = [
        {"id": f"si_{price}", "price": {"id": price}, "current_period_start": 0, "current_period_end": 86_400}
        for price in prices
    ]
    return {
        "id": "sub_1",
        "status": "active",
        "cancel_at_period_end": False,
        "customer": "cus_1",
        "metadata": {"org_id": "org_123"},
        "items": {"data": items},
    }


@pytest.mark.parametrize(
    ("prices", "item_id", "tier"),
    [
        (["price_own"], "si_price_own", None),
        (["price_starter"], "si_price_starter", SubscriptionTier.STARTER),
        (["price_meter", "price_starter"], "si_price_starter", SubscriptionTier.STARTER),
        (["price_meter", "price_other"], None, None),
    ],
)
def test_the_plan_of_a_subscription(prices, item_id, tier):
    found = read_subscription(subscription(*prices), {"price_starter": SubscriptionTier.STARTER})
    assert (found.item_id, found.tier) == (item_id, tier)
    assert (found.current_period_end - found.current_period_start).days == 1


def test_a_subscription_without_items_is_none():
    with pytest.raises(LookupError):
        read_subscription(subscription(), {})
