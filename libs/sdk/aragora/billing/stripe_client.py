"""Stripe, under the documented names: checkout, subscriptions and the verification of webhooks.

    session = create_checkout_session(
        customer_email="user@example.com",
        tier=SubscriptionTier.PROFESSIONAL,
        success_url="https://app.example.com/success",
        cancel_url="https://app.example.com/cancel",
        metadata={"org_id": "org_123"},
    )

The environment says which account it is, and is read at each call. Stripe's own SDK is loaded at the first call that
asks Stripe something: that takes over half a second, and verifying a webhook does without.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aragora.billing.stripe_objects import CheckoutSession, Subscription, read_subscription
from aragora.billing.stripe_webhooks import WebhookEvent, WebhookEventData, WebhookSignatureError, verify
from aragora.billing.tiers import SubscriptionTier

if TYPE_CHECKING:
    import stripe

__all__ = [
    "CheckoutSession",
    "StripeConfigError",
    "StripeRequestError",
    "StripeUnavailable",
    "Subscription",
    "WebhookEvent",
    "WebhookEventData",
    "WebhookSignatureError",
    "cancel_subscription",
    "create_checkout_session",
    "get_subscription",
    "update_subscription",
    "verify",
    "verify_webhook_signature",
]

_MEANINGS = {
    "STRIPE_SECRET_KEY": "the secret key of your Stripe account (sk_…)",
    "STRIPE_WEBHOOK_SECRET": "the signing secret of the webhook endpoint (whsec_…)",
    "STRIPE_PRICE_STARTER": "the id of the Stripe price of the starter tier (price_…)",
    "STRIPE_PRICE_PROFESSIONAL": "the id of the Stripe price of the professional tier (price_…)",
    "STRIPE_PRICE_ENTERPRISE": "the id of the Stripe price of the enterprise tier (price_…)",
}
_PRICES = {
    SubscriptionTier.STARTER: "STRIPE_PRICE_STARTER",
    SubscriptionTier.PROFESSIONAL: "STRIPE_PRICE_PROFESSIONAL",
    SubscriptionTier.ENTERPRISE: "STRIPE_PRICE_ENTERPRISE",
}
_TIMEOUT_SECONDS = 30
_RETRIES = 2
"""After no answer, 409 or 5xx, by Stripe's SDK, under the same idempotency key."""
_NOT_FOR_EYES = re.compile(r"\S*@\S*|\b(?:[srp]k|whsec)_\S+")


class StripeConfigError(RuntimeError):
    """Stripe is not set up: the message names the environment variable to set. Everything free works without."""


class StripeUnavailable(Exception):
    """Stripe does not answer, is overloaded or in trouble, and may have acted all the same. Try again, under the same
    idempotency key where there is one.
    """


class StripeRequestError(Exception):
    """Stripe understood the request and refuses it; to repeat it unchanged is of no use.

    `status` is the HTTP status. `code` is Stripe's name for the reason (docs.stripe.com/error-codes) and `param` the
    parameter at fault, where it named them.
    """

    def __init__(self, status: int, detail: str, code: str | None = None, param: str | None = None) -> None:
        about = ", ".join(text for text in (str(status), code, param) if text)
        super().__init__(f"Stripe refuses the request ({about}): {detail}")
        self.status = status
        self.detail = detail
        self.code = code
        self.param = param


def create_checkout_session(
    *,
    customer_email: str,
    tier: SubscriptionTier,
    success_url: str,
    cancel_url: str,
    metadata: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
) -> CheckoutSession:
    """A new page of Stripe's on which somebody subscribes to a tier. Nothing is charged until they pay there.

    Args:
        customer_email: is filled in on the page.
        tier: a paid one, at the price that its `STRIPE_PRICE_…` names.
        success_url: where Stripe sends the person once they have paid. To get there proves nothing: the webhook does.
        cancel_url: where it sends them if they do not.
        metadata: comes back with the events of the session and of the subscription; `org_id` says whose it is.
        idempotency_key: the same key and arguments make one session, however often they are sent (for 24 hours).

    Raises:
        ValueError: the tier is free.
        StripeConfigError: a variable is missing.
        StripeUnavailable: Stripe does not answer; try again.
        StripeRequestError: Stripe refuses the request.
    """
    tier = SubscriptionTier(tier)
    if tier not in _PRICES:
        raise ValueError(f"the {tier} tier costs nothing and has no checkout; choose one of {', '.join(_PRICES)}")
    price_id = _required(_PRICES[tier])
    attached = dict(metadata or {})
    with _asking_stripe() as client:
        session = client.v1.checkout.sessions.create(
            {
                "mode": "subscription",
                "line_items": [{"price": price_id, "quantity": 1}],
                "customer_email": customer_email,
                "success_url": success_url,
                "cancel_url": cancel_url,
                "metadata": attached,
                # The subscription's own events carry its own metadata, not the session's.
                "subscription_data": {"metadata": attached},
            },
            {"idempotency_key": idempotency_key} if idempotency_key else None,
        )
    session_id, url = getattr(session, "id", None), getattr(session, "url", None)
    if not session_id or not url:
        raise _not_stripe("checkout session")
    return CheckoutSession(session_id, url)


def verify_webhook_signature(
    payload: bytes | str, signature: str | None, *, now: datetime | None = None
) -> WebhookEvent:
    """The event that Stripe sent to your webhook. Whatever raises ValueError is to be answered with 400.

    An event can arrive twice: remember the ids of those that you acted on.

    Args:
        payload: the request's body as it came.
        signature: the request's header `Stripe-Signature`.
        now: the time, with an offset; by default this moment. A signature may be 300 seconds from it.

    Raises:
        WebhookSignatureError: it is not signed with `STRIPE_WEBHOOK_SECRET` (or one of several, separated by commas),
            or was not just now.
        ValueError: the body is no event.
        StripeConfigError: `STRIPE_WEBHOOK_SECRET` is missing.
    """
    secrets = [secret.strip() for secret in _required("STRIPE_WEBHOOK_SECRET").split(",")]
    if not any(secrets):
        raise _missing("STRIPE_WEBHOOK_SECRET")
    body = payload.encode(errors="surrogatepass") if isinstance(payload, str) else payload
    return verify(body, signature, secrets, now or datetime.now(UTC))


def get_subscription(subscription_id: str) -> Subscription:
    """The subscription as Stripe has it now.

    Raises:
        ValueError: the id is blank.
        StripeConfigError: `STRIPE_SECRET_KEY` is missing or wrong.
        StripeUnavailable: Stripe does not answer; try again.
        StripeRequestError: there is no such subscription (`status` 404).
    """
    with _asking_stripe() as client:
        found = client.v1.subscriptions.retrieve(_given("subscription_id", subscription_id))
    return _shown(found)


def cancel_subscription(subscription_id: str, *, at_period_end: bool = True) -> Subscription:
    """End the subscription with the period that is paid for, or at once and without a refund. Answers its new state.

    Until the period's end the person can take it back in Stripe's portal.

    Raises:
        ValueError: the id is blank.
        StripeConfigError: `STRIPE_SECRET_KEY` is missing or wrong.
        StripeUnavailable: Stripe does not answer; try again.
        StripeRequestError: there is no such subscription, or it has ended and cannot end with its period.
    """
    subscription_id = _given("subscription_id", subscription_id)
    try:
        with _asking_stripe() as client:
            if at_period_end:
                return _shown(client.v1.subscriptions.update(subscription_id, {"cancel_at_period_end": True}))
            return _shown(client.v1.subscriptions.cancel(subscription_id))
    except StripeRequestError as refused:
        # Stripe calls a subscription that has ended missing here: it may be a try before this one that ended it.
        if at_period_end or refused.status != 404:
            raise
        ended = get_subscription(subscription_id)
        if ended.status != "canceled":
            raise
        return ended


def update_subscription(subscription_id: str, *, new_price_id: str) -> Subscription:
    """Change the plan to another price, up or down, from now on. The answer is the subscription's new state.

    What is left of the paid time is credited, and the new price is charged for the same time, by the second, on the
    next invoice (Stripe's `create_prorations`). If the price is the present one, nothing changes.

    Raises:
        ValueError: an id is blank, or it is not clear which of the subscription's items is the plan.
        StripeConfigError: `STRIPE_SECRET_KEY` is missing or wrong.
        StripeUnavailable: Stripe does not answer; try again.
        StripeRequestError: Stripe refuses: no such subscription or price, or it has ended.
    """
    subscription_id, price_id = _given("subscription_id", subscription_id), _given("new_price_id", new_price_id)
    with _asking_stripe() as client:
        found = _shown(client.v1.subscriptions.retrieve(subscription_id))
        if found.item_id is None:
            raise ValueError(
                f"none alone of the items of {subscription_id} is at a tier's price: which one is the plan?"
            )
        return _shown(
            client.v1.subscriptions.update(
                subscription_id,
                {"items": [{"id": found.item_id, "price": price_id}], "proration_behavior": "create_prorations"},
            )
        )


@contextmanager
def _asking_stripe() -> Iterator["stripe.StripeClient"]:
    """Stripe's client for one call. What its SDK raises leaves as one of the three errors of this module."""
    import stripe  # noqa: PLC0415 -- it takes over half a second, which only those who ask Stripe should pay

    key = _required("STRIPE_SECRET_KEY")
    address = os.environ.get("STRIPE_API_BASE", "").strip().rstrip("/") or stripe.DEFAULT_API_BASE
    if not address.startswith(("http://", "https://")):
        raise StripeConfigError("STRIPE_API_BASE must begin with http:// or https://; leave it out to reach Stripe")
    connections = stripe.RequestsClient(timeout=_TIMEOUT_SECONDS)
    try:
        yield stripe.StripeClient(
            key, base_addresses={"api": address}, http_client=connections, max_network_retries=_RETRIES
        )
    except stripe.StripeError as error:
        # Without its cause: that holds the request, with the e-mail address, and Stripe's words as they came.
        raise _translated(error) from None
    finally:
        connections.close()  # type: ignore[no-untyped-call]  # has no types there


def _translated(error: "stripe.StripeError") -> Exception:
    status, said = error.http_status, error.error
    if status is None:
        why = type(error.__cause__).__name__ if error.__cause__ else type(error).__name__
        return StripeUnavailable(f"no answer from Stripe ({why}); try again, and see that STRIPE_API_BASE is right")
    if status in {409, 429} or status >= 500:
        return StripeUnavailable(f"Stripe cannot take the request now (status {status}); try again later")
    if said is None:
        return _not_stripe("object or error")
    if status == 401:
        return StripeConfigError(f"Stripe refuses the key; set STRIPE_SECRET_KEY to {_MEANINGS['STRIPE_SECRET_KEY']}")
    detail = _NOT_FOR_EYES.sub("…", str(error.user_message or "no reason given"))
    return StripeRequestError(status, detail, getattr(said, "code", None), getattr(said, "param", None))


def _not_stripe(wanted: str) -> StripeUnavailable:
    return StripeUnavailable(f"the answer is no {wanted} of Stripe's; see that STRIPE_API_BASE is right")


def _shown(found: "stripe.Subscription") -> Subscription:
    try:
        return read_subscription(found.to_dict(), _tiers())
    except (AttributeError, LookupError, TypeError):
        raise _not_stripe("subscription") from None


def _tiers() -> dict[str, SubscriptionTier]:
    return {os.environ[variable].strip(): tier for tier, variable in _PRICES.items() if os.environ.get(variable)}


def _required(variable: str) -> str:
    text = os.environ.get(variable, "").strip()
    if not text:
        raise _missing(variable)
    return text


def _missing(variable: str) -> StripeConfigError:
    return StripeConfigError(f"{variable} is not set; set it to {_MEANINGS[variable]}")


def _given(name: str, text: str) -> str:
    if not text.strip():  # Stripe would take the request for one about all subscriptions
        raise ValueError(f"{name} is blank")
    return text.strip()
