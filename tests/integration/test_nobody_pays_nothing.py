"""Nobody gets a paid plan without a payment, whatever they post: checkouts, forged webhooks, wishes, other people's."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from one_service import token
from payments_over_http import PAGES, PaymentsSite, new_site
from servers import PostgresServer

from aragora.contracts.envelope import envelope
from aragora.contracts.events import EntitlementsChanged, OrganizationDeleted
from billing import handlers
from standalone.stripe_simulator import cards, catalogue, checkout, customers
from standalone.stripe_simulator.problems import StripeProblem
from standalone.stripe_simulator.webhooks import signed


@pytest.fixture(scope="module")
async def site(postgres_server: PostgresServer, billing_template: str, nats_server: str) -> AsyncIterator[PaymentsSite]:
    async with new_site(postgres_server, billing_template, nats_server) as running:
        yield running


@pytest.fixture
async def owner(site: PaymentsSite, org: str) -> str:
    await site.world.enroll(org)
    return token(f"owner-of-{org}", org, "owner")


def forged(org: str, site: PaymentsSite) -> list[dict[str, Any]]:
    """What somebody might think is all it takes."""
    about = {
        "id": "sub_forged", "object": "subscription", "customer": "cus_forged", "status": "active",
        "metadata": {"org_id": org, "plan": "enterprise"},
        "items": {"data": [{"id": "si_1", "price": {"id": "price_enterprise"}}]},
    }  # fmt: skip
    session = {
        "id": "cs_forged", "object": "checkout.session", "customer": "cus_forged", "status": "complete",
        "payment_status": "paid", "subscription": "sub_forged", "client_reference_id": org,
        "metadata": {"org_id": org, "plan": "enterprise"},
    }  # fmt: skip
    at = site.world.simulator.world.time_of()
    return [
        {"id": f"evt_{number}_{org}", "object": "event", "type": kind, "created": at, "livemode": False,
         "data": {"object": what}}
        for number, (kind, what) in enumerate(
            [("checkout.session.completed", session), ("customer.subscription.created", about)]
        )
    ]  # fmt: skip


@dataclass(frozen=True)
class Visitor:
    """The owner of an organization that has the default plan."""

    site: PaymentsSite
    org: str
    key: str


async def opens_a_checkout(who: Visitor) -> None:
    opened = await who.site.check_out(who.key, "enterprise")
    await who.site.client.get(
        PAGES["success_url"].replace("https://app.example.com", "") + f"?id={opened['session_id']}"
    )


async def is_declined(who: Visitor) -> None:
    opened = await who.site.check_out(who.key, "enterprise")
    world = who.site.world.simulator.world
    with pytest.raises(StripeProblem):
        checkout.complete(world, opened["session_id"], cards.card_named("pm_card_chargeDeclined"))


async def lets_the_checkout_expire(who: Visitor) -> None:
    await who.site.check_out(who.key, "enterprise")
    await who.site.world.advance(timedelta(hours=25))


async def forges_webhooks(who: Visitor) -> None:
    for event in forged(who.org, who.site):
        for secret in ("whsec_", "", who.key):
            refused = await who.site.post_webhook(*signed(event, secret, who.site.world.simulator.world.time_of()))
            assert refused.status_code == 400
        assert (await who.site.post_webhook(json.dumps(event).encode(), {})).status_code == 400


async def has_signed_webhooks_about_what_stripe_does_not_know(who: Visitor) -> None:
    for event in forged(who.org, who.site):
        assert (await who.site.tell(event)).status_code == 200


async def asks_for_it(who: Visitor) -> None:
    path = f"/api/subscription/organizations/{who.org}/subscription"
    for later in (True, False):
        asked = await who.site.ask(
            "POST", f"{path}/change", {"plan": "enterprise", "at_period_end": later}, key=who.key
        )
        assert (asked.status_code, "POST /api/billing/checkout" in asked.json()["detail"]) == (402, True)
    for verb, wish in (("trial", {"plan": "enterprise"}), ("comp", {"plan": "enterprise"}), ("move", None)):
        assert (await who.site.ask("POST", f"{path}/{verb}", wish, key=who.key)).status_code == 403
    assert (await who.site.ask("PUT", path, {"plan": "enterprise"}, key=who.key)).status_code == 403
    assert (await who.site.ask("POST", f"{path}/resume", key=who.key)).status_code == 409
    assert (await who.site.ask("POST", "/api/billing/preview", {"plan": "enterprise"}, key=who.key)).status_code == 409


async def names_another_organizations_subscription(who: Visitor) -> None:
    """Somebody pays, and somebody else's organization is written on it, at Stripe."""
    payer = f"{who.org}-payer"
    await who.site.world.enroll(payer)
    await who.site.world.subscribe(payer, "enterprise")
    await who.site.world.deliver_all()
    customer = await who.site.world.customer_of(payer)
    (paid,) = who.site.world.simulator.world.where("subscription", customer=customer)
    with who.site.world.simulator.world.changing(paid, "customer.subscription.updated"):
        paid["metadata"] = {"org_id": who.org, "kept_plan": "enterprise"}
    customers.update(who.site.world.simulator.world, {"metadata": {"org_id": who.org}}, customer)


async def buys_an_unknown_price(who: Visitor) -> None:
    world = who.site.world.simulator.world
    opened = await who.site.check_out(who.key, "enterprise")
    for item in world.orders[opened["session_id"]]["line_items"]:
        item["price"] = world.get("price", "price_of_something_else")
    checkout.complete(world, opened["session_id"], cards.card_named("pm_card_visa"))


ATTEMPTS: list[Callable[[Visitor], Awaitable[None]]] = [
    opens_a_checkout,
    is_declined,
    lets_the_checkout_expire,
    forges_webhooks,
    has_signed_webhooks_about_what_stripe_does_not_know,
    asks_for_it,
    names_another_organizations_subscription,
    buys_an_unknown_price,
]


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.__name__)
async def test_nothing_is_granted(
    site: PaymentsSite, org: str, owner: str, attempt: Callable[[Visitor], Awaitable[None]]
):
    catalogue.put_price(site.world.simulator.world, "price_of_something_else", "Something", 100)
    await attempt(Visitor(site, org, owner))
    for event in list(site.world.simulator.world.events):
        await site.tell(event)
    await site.world.settle()
    assert (await site.world.subscription(org))["plan"] == "free"
    entitled = await site.world.said(org, EntitlementsChanged)
    assert [one.model_dump()["plan"] for one in entitled] == ["free"]


async def test_a_closed_organization_pays_no_more(site: PaymentsSite, org: str, owner: str):
    await site.world.subscribe(org, "starter")
    await site.world.deliver_all()
    closed = envelope(OrganizationDeleted(), org_id=org, occurred_at=site.world.now, correlation_id="closed").to_json()
    for _ in range(2):
        await handlers.follow(site.world.pool, [closed], site.world.now)
    await site.world.settle()
    assert (await site.world.subscription(org))["plan"] == "free"
    (ended,) = site.world.simulator.world.where("subscription", customer=await site.world.customer_of(org))
    assert ended["status"] == "canceled"
    again = await site.ask("POST", "/api/billing/checkout", {"plan": "starter", **PAGES}, key=owner)
    assert again.status_code == 404


async def test_the_page_of_a_closed_organization_is_closed(site: PaymentsSite, org: str, owner: str):
    opened = await site.check_out(owner, "starter")
    closed = envelope(OrganizationDeleted(), org_id=org, occurred_at=site.world.now, correlation_id="closed").to_json()
    await handlers.follow(site.world.pool, [closed], site.world.now)
    await site.world.settle()
    assert site.world.simulator.world.get("checkout.session", opened["session_id"])["status"] == "expired"
