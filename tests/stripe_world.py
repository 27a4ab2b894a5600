"""A world of the Stripe simulator without its server, and the few steps that most of its tests begin with."""

from datetime import UTC, datetime
from typing import Any

from standalone.stripe_simulator import catalogue
from standalone.stripe_simulator.calls import call
from standalone.stripe_simulator.clock import Clock
from standalone.stripe_simulator.world import Rules, World

Thing = dict[str, Any]


def at(text: str) -> int:
    """The Unix second of `2026-01-31` or `2026-01-31T12:00`, in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def day(moment: int) -> str:
    """`2026-01-31`, in UTC."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"


class Stripe:
    """A world whose clock stands still, with two plans: Starter ($29.00) and Pro ($99.00) a month."""

    def __init__(self, now: str = "2026-04-01", **rules: Any) -> None:
        moment = at(now)
        self.world = World(Clock(lambda: moment, stopped_at=moment), rules=Rules(**rules))
        catalogue.put_price(self.world, "price_starter", "Starter", 2900)
        catalogue.put_price(self.world, "price_pro", "Pro", 9900)

    def post(self, path: str, **params: Any) -> Thing:
        return call(self.world, "POST", path, params)

    def get(self, path: str, **params: Any) -> Thing:
        return call(self.world, "GET", path, params)

    def delete(self, path: str, **params: Any) -> Thing:
        return call(self.world, "DELETE", path, params)

    def until(self, text: str) -> None:
        self.world.advance(at(text))

    def customer(self, card: str = "pm_card_visa", **params: Any) -> str:
        """A customer who pays by that card. Returns the id."""
        settings = {"default_payment_method": card}
        made = self.post("/v1/customers", payment_method=card, invoice_settings=settings, **params)
        customer: str = made["id"]
        return customer

    def subscribe(self, customer: str, price: str = "price_starter", **params: Any) -> Thing:
        return self.post("/v1/subscriptions", customer=customer, items=[{"price": price}], **params)

    def change(self, subscription: Thing, price: str, **params: Any) -> Thing:
        items = [{"id": subscription["items"]["data"][0]["id"], "price": price}]
        return self.post(f"/v1/subscriptions/{subscription['id']}", items=items, **params)

    def now(self, subscription: Thing) -> Thing:
        """The subscription as it is now."""
        return self.get(f"/v1/subscriptions/{subscription['id']}")

    def invoices(self, subscription: Thing) -> list[Thing]:
        """Oldest first."""
        found: list[Thing] = self.get("/v1/invoices", subscription=subscription["id"], limit=100)["data"]
        return found[::-1]

    def types(self, since: int = 0) -> list[str]:
        """The types of the events, oldest first."""
        return [event["type"] for event in self.world.events[since:]]
