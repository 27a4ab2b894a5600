"""Stripe's API, as billing uses it: the only place that speaks to it.

What changes something takes the id of an intent as its idempotency key, so that asking again is harmless. What comes
back is plain JSON. Nothing is called inside a transaction.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from aragora.chassis import tracing
from billing import metrics
from billing.settings import Settings, price_variable

if TYPE_CHECKING:
    import stripe

TIMEOUT_SECONDS = 20
PAGE = 100

Json = dict[str, Any]


class StripeNotConfigured(Exception):
    """Stripe is not set up for this. The message names the variable that is missing."""


class StripeAway(Exception):
    """Stripe did not answer, or not now. What was asked may have been done: ask again with the same key."""


class StripeRefused(Exception):
    """Stripe will not do this, however often it is asked. `code` and `status` are Stripe's."""

    def __init__(self, message: str, code: str | None, status: int | None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status

    @property
    def is_missing(self) -> bool:
        """There is no such object."""
        return self.code == "resource_missing" or self.status == HTTPStatus.NOT_FOUND

    @property
    def is_card(self) -> bool:
        """The payer's card was declined, or needs the payer."""
        return self.status == HTTPStatus.PAYMENT_REQUIRED


class Prices:
    """Which plan a price of Stripe's is, and the other way round."""

    def __init__(self, by_variable: Mapping[str, str], plan_ids: Sequence[str]) -> None:
        self._sold: dict[str, str] = {}
        self._plans: dict[str, str] = {}
        for plan in plan_ids:
            prices = [one.strip() for one in by_variable.get(price_variable(plan), "").split(",") if one.strip()]
            self._plans |= dict.fromkeys(prices, plan)
            if prices:
                self._sold[plan] = prices[0]

    def of(self, plan: str) -> str:
        """The price at which a plan is sold.

        Raises:
            StripeNotConfigured: its variable is not set.
        """
        try:
            return self._sold[plan]
        except KeyError:
            raise StripeNotConfigured(
                f"{price_variable(plan)} is not set: the plan {plan} cannot be bought. Set it to Stripe's price id."
            ) from None

    def plan_of(self, price_id: str | None) -> str | None:
        """The plan that a price is for; None if it is none that is known here."""
        return self._plans.get(price_id or "")


class StripeGateway:
    """A connection to one Stripe account. Every method raises `StripeAway` or `StripeRefused`."""

    def __init__(self, settings: Settings) -> None:
        # At INFO the SDK logs Stripe's words about what was wrong, which may be somebody's address.
        logging.getLogger("stripe").setLevel(logging.WARNING)
        key = settings.stripe_secret_key.strip()
        self.is_configured = bool(key)
        self.is_live = key.startswith(("sk_live_", "rk_live_"))
        self._key = key
        self._api_base = settings.stripe_api_base.rstrip("/")
        self._http: Any = None

    @cached_property
    def _client(self) -> "stripe.StripeClient":
        import stripe  # noqa: PLC0415 - half a second, which those without Stripe need not wait

        self._http = stripe.HTTPXClient(timeout=TIMEOUT_SECONDS)
        return stripe.StripeClient(
            self._key,
            base_addresses={"api": self._api_base} if self._api_base else None,
            http_client=self._http,
            max_network_retries=0,
        )

    def demand(self) -> None:
        """Raises `StripeNotConfigured` without a key."""
        if not self.is_configured:
            raise StripeNotConfigured("STRIPE_SECRET_KEY is not set: nothing can be paid through Stripe here.")

    async def close(self) -> None:
        """Close its connections."""
        if self._http is not None:
            await self._http.close_async()

    # What is asked of it -----------------------------------------------------------------------------------------

    async def create_customer(self, key: str, org_id: str) -> Json:
        """A customer who stands for an organization."""
        params: Any = {"metadata": {"org_id": org_id}}
        return await self._ask("create_customer", lambda: self._client.v1.customers.create_async(params, _under(key)))

    async def name_customer(self, customer: str, email: str | None) -> Json:
        """Say to which address Stripe's receipts go. None changes nothing, and shows that the customer is there."""
        params: Any = {} if email is None else {"email": email}
        return await self._ask("name_customer", lambda: self._client.v1.customers.update_async(customer, params))

    async def open_checkout(self, key: str, **params: Any) -> Json:
        """A Checkout session; parameters are Stripe's."""
        given: Any = params
        return await self._ask(
            "open_checkout", lambda: self._client.v1.checkout.sessions.create_async(given, _under(key))
        )

    async def expire_checkout(self, key: str, session: str) -> Json:
        """End a session that is open."""
        return await self._ask(
            "expire_checkout", lambda: self._client.v1.checkout.sessions.expire_async(session, {}, _under(key))
        )

    async def open_portal(self, customer: str, return_url: str) -> Json:
        """A session of the customer portal."""
        params: Any = {"customer": customer, "return_url": return_url}
        return await self._ask("open_portal", lambda: self._client.v1.billing_portal.sessions.create_async(params))

    async def update_subscription(self, key: str, subscription: str, **params: Any) -> Json:
        """Change a subscription; parameters are Stripe's."""
        given: Any = params
        return await self._ask(
            "update_subscription", lambda: self._client.v1.subscriptions.update_async(subscription, given, _under(key))
        )

    async def cancel_subscription(self, key: str, subscription: str, **params: Any) -> Json:
        """End a subscription now; parameters are Stripe's."""
        given: Any = params
        return await self._ask(
            "cancel_subscription", lambda: self._client.v1.subscriptions.cancel_async(subscription, given, _under(key))
        )

    async def add_invoice_item(self, key: str, **params: Any) -> Json:
        """A line of the customer's next invoice; parameters are Stripe's."""
        given: Any = params
        return await self._ask(
            "add_invoice_item", lambda: self._client.v1.invoice_items.create_async(given, _under(key))
        )

    async def create_invoice(self, key: str, **params: Any) -> Json:
        """An invoice of the lines that wait for one; parameters are Stripe's."""
        given: Any = params
        return await self._ask("create_invoice", lambda: self._client.v1.invoices.create_async(given, _under(key)))

    async def finalize_invoice(self, key: str, invoice: str) -> Json:
        """Make an invoice final; Stripe charges it then."""
        params: Any = {"auto_advance": True}
        return await self._ask(
            "finalize_invoice", lambda: self._client.v1.invoices.finalize_invoice_async(invoice, params, _under(key))
        )

    async def change_balance(self, key: str, customer: str, **params: Any) -> Json:
        """Add to the customer's balance; a negative amount is in their favour."""
        given: Any = params
        transactions = self._client.v1.customers.balance_transactions
        return await self._ask("change_balance", lambda: transactions.create_async(customer, given, _under(key)))

    async def refund(self, key: str, **params: Any) -> Json:
        """Give money back; parameters are Stripe's."""
        given: Any = params
        return await self._ask("refund", lambda: self._client.v1.refunds.create_async(given, _under(key)))

    # What it says ------------------------------------------------------------------------------------------------

    async def customer(self, customer: str) -> Json:
        """A customer, with how they pay."""
        params: Any = {"expand": ["invoice_settings.default_payment_method"]}
        return await self._ask("customer", lambda: self._client.v1.customers.retrieve_async(customer, params))

    async def payment_method(self, payment_method: str) -> Json:
        """How somebody pays."""
        return await self._ask("payment_method", lambda: self._client.v1.payment_methods.retrieve_async(payment_method))

    async def checkout(self, session: str) -> Json:
        """A Checkout session."""
        return await self._ask("checkout", lambda: self._client.v1.checkout.sessions.retrieve_async(session))

    async def subscription(self, subscription: str) -> Json:
        """A subscription."""
        return await self._ask("subscription", lambda: self._client.v1.subscriptions.retrieve_async(subscription))

    async def subscriptions_of(self, customer: str) -> list[Json]:
        """All of a customer's subscriptions, those that have ended too."""
        params: Any = {"customer": customer, "status": "all", "limit": PAGE}
        return await self._all("subscriptions_of", params, self._client.v1.subscriptions.list_async)

    async def invoice(self, invoice: str) -> Json:
        """An invoice, with its payments and all its lines."""
        params: Any = {"expand": ["payments.data.payment.payment_intent"]}
        found = await self._ask("invoice", lambda: self._client.v1.invoices.retrieve_async(invoice, params))
        if found["lines"]["has_more"]:
            page: Any = {"limit": PAGE}
            lines = self._client.v1.invoices.line_items
            found["lines"]["data"] = await self._all("invoice", page, lambda given: lines.list_async(invoice, given))
        return found

    async def invoices_of(self, customer: str, **params: Any) -> list[Json]:
        """A customer's invoices, without their payments; parameters are Stripe's."""
        given: Any = {"customer": customer, "limit": PAGE, **params}
        return await self._all("invoices_of", given, self._client.v1.invoices.list_async)

    async def invoice_items_of(self, customer: str) -> list[Json]:
        """A customer's lines, those that wait for an invoice and those on one."""
        params: Any = {"customer": customer, "limit": PAGE}
        return await self._all("invoice_items_of", params, self._client.v1.invoice_items.list_async)

    async def balance_changes_of(self, customer: str) -> list[Json]:
        """What was added to a customer's balance, and taken from it."""
        params: Any = {"limit": PAGE}
        transactions = self._client.v1.customers.balance_transactions
        return await self._all("balance_changes_of", params, lambda given: transactions.list_async(customer, given))

    async def preview(self, **params: Any) -> Json:
        """What an invoice would say; parameters are Stripe's."""
        given: Any = params
        return await self._ask("preview", lambda: self._client.v1.invoices.create_preview_async(given))

    async def payment_intent(self, payment_intent: str) -> Json:
        """An attempt to be paid."""
        return await self._ask("payment_intent", lambda: self._client.v1.payment_intents.retrieve_async(payment_intent))

    async def charge(self, charge: str) -> Json:
        """A charge."""
        return await self._ask("charge", lambda: self._client.v1.charges.retrieve_async(charge))

    async def dispute(self, dispute: str) -> Json:
        """A dispute."""
        return await self._ask("dispute", lambda: self._client.v1.disputes.retrieve_async(dispute))

    async def events_since(self, moment: datetime) -> list[Json]:
        """What Stripe has told of since then, at most of the last 30 days; the newest first."""
        params: Any = {"created": {"gte": int(moment.timestamp())}, "limit": PAGE}
        return await self._all("events_since", params, self._client.v1.events.list_async)

    async def live_subscriptions(self) -> list[Json]:
        """Every subscription that has not ended."""
        params: Any = {"limit": PAGE}
        return await self._all("live_subscriptions", params, self._client.v1.subscriptions.list_async)

    async def _all(self, operation: str, params: Any, list_page: Callable[[Any], Awaitable[Any]]) -> list[Json]:
        found: list[Json] = []
        while True:
            after = {"starting_after": found[-1]["id"]} if found else {}
            page = await self._ask(operation, partial(list_page, {**params, **after}))
            found += page["data"]
            if not page["has_more"]:
                return found

    async def _ask(self, operation: str, call: Callable[[], Awaitable[Any]]) -> Json:
        self.demand()
        with tracing.span(f"stripe {operation}", "CLIENT"), metrics.asking(operation, refusal=StripeRefused):
            return await self._answer_of(call)

    async def _answer_of(self, call: Callable[[], Awaitable[Any]]) -> Json:
        import stripe  # noqa: PLC0415 - see `_client`

        try:
            answer = await call()
        except stripe.AuthenticationError as error:
            raise StripeAway("Stripe refuses the key: see STRIPE_SECRET_KEY") from error
        except (stripe.InvalidRequestError, stripe.CardError, stripe.PermissionError, stripe.IdempotencyError) as error:
            message = error.user_message or str(error)
            raise StripeRefused(message, error.code, error.http_status) from error
        except stripe.StripeError as error:  # no connection, too many requests, its own failures
            raise StripeAway(f"Stripe does not answer now ({type(error).__name__}, {error.http_status})") from error
        return cast("Json", answer.to_dict(for_json=True))


def _under(key: str) -> Any:
    return {"idempotency_key": key}
