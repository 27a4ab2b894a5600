"""Checkout: one customer, one page, one subscription, whatever is asked and however often; and the pages beside it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from one_service import token
from payments_over_http import PAGES, PaymentsSite, new_site
from servers import PostgresServer

from billing import collecting
from standalone.stripe_simulator import cards, control
from standalone.stripe_simulator import checkout as stripe_checkout
from standalone.stripe_simulator.faults import Fault

CHECKOUT = "/api/billing/checkout"


@pytest.fixture(scope="module")
async def site(postgres_server: PostgresServer, billing_template: str, nats_server: str) -> AsyncIterator[PaymentsSite]:
    async with new_site(postgres_server, billing_template, nats_server) as running:
        yield running


@pytest.fixture
async def owner(site: PaymentsSite, org: str) -> str:
    """The token of the owner of an organization that has the default plan."""
    await site.world.enroll(org)
    return token(f"owner-of-{org}", org, "owner")


def customers_of(site: PaymentsSite, org: str) -> list[dict[str, Any]]:
    every = site.world.simulator.world.table("customer").values()
    return [one for one in every if one.get("metadata", {}).get("org_id") == org]


def sessions_of(site: PaymentsSite, org: str, status: str = "open") -> list[dict[str, Any]]:
    return site.world.simulator.world.where("checkout.session", client_reference_id=org, status=status)


def pay(site: PaymentsSite, session_id: str, card: str = "pm_card_visa") -> None:
    stripe_checkout.complete(site.world.simulator.world, session_id, cards.card_named(card))


async def test_an_owner_begins_to_pay_and_has_the_plan_when_it_is_paid(site: PaymentsSite, org: str, owner: str):
    opened = await site.check_out(owner, "starter")
    (session,) = sessions_of(site, org)
    assert opened["session_id"] == session["id"]
    assert opened["url"] == session["url"]
    assert session["metadata"] == {"org_id": org, "plan": "starter", "price_id": "price_starter"}
    (customer,) = customers_of(site, org)
    assert customer["email"] == f"owner-of-{org}@example.com"
    assert (await site.world.subscription(org))["plan"] == "free"
    pay(site, session["id"])
    assert (await site.world.subscription(org))["plan"] == "free"
    for event in site.world.simulator.world.events:
        assert (await site.tell(event)).json() == {"received": True}
    await site.world.settle()
    assert (await site.world.subscription(org))["plan"] == "starter"
    stored = await site.world.pool.fetch("SELECT payload::text FROM stripe_events")
    assert not [row for row in stored if "@example.com" in row["payload"]]


async def test_the_page_that_is_open_is_given_again(site: PaymentsSite, org: str, owner: str):
    opened = await asyncio.gather(*(site.check_out(owner) for _ in range(5)))
    assert all(one == opened[0] for one in opened)
    assert len(sessions_of(site, org)) == len(customers_of(site, org)) == 1
    assert (await site.check_out(token("ada", org, "admin")))["url"] == opened[0]["url"]


async def test_another_plan_ends_the_page_that_is_open(site: PaymentsSite, org: str, owner: str):
    first = await site.check_out(owner, "starter")
    second = await site.read("POST", CHECKOUT, {"tier": "enterprise", **PAGES}, key=owner)
    third = await site.check_out(owner, "enterprise", success_url="https://elsewhere.example.com/thanks")
    assert len({first["session_id"], second["session_id"], third["session_id"]}) == 3
    assert [one["id"] for one in sessions_of(site, org)] == [third["session_id"]]
    assert len(sessions_of(site, org, "expired")) == 2


async def test_who_has_just_paid_is_not_asked_again(site: PaymentsSite, org: str, owner: str):
    pay(site, (await site.check_out(owner))["session_id"])
    refused = await site.ask("POST", CHECKOUT, {"plan": "enterprise", **PAGES}, key=owner)
    assert refused.status_code == 409
    assert "/api/billing/subscription" in refused.json()["detail"]
    assert (await site.world.subscription(org))["plan"] == "professional"
    assert control.live_subscriptions(site.world.simulator.world)[customers_of(site, org)[0]["id"]] == 1


async def test_a_page_that_was_paid_while_another_was_asked_for(site: PaymentsSite, org: str, owner: str):
    """The payer presses the button between our look at the page and its end."""
    paid = (await site.check_out(owner, "starter"))["session_id"]
    ended = site.world.payments.gateway.expire_checkout

    async def too_late(key: str, session: str) -> dict[str, Any]:
        pay(site, session)
        return await ended(key, session)

    gateway = site.world.payments.gateway
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(gateway), "expire_checkout", lambda _, key, session: too_late(key, session))
        refused = await site.ask("POST", CHECKOUT, {"plan": "enterprise", **PAGES}, key=owner)
    assert refused.status_code == 409
    assert [one["id"] for one in sessions_of(site, org, "complete")] == [paid]
    assert sessions_of(site, org) == []
    assert (await site.world.subscription(org))["plan"] == "starter"


async def test_a_customer_who_was_deleted_at_stripe_is_made_anew(site: PaymentsSite, org: str, owner: str):
    await site.check_out(owner)
    (first,) = customers_of(site, org)
    await site.world.payments.gateway._client.v1.customers.delete_async(first["id"])
    await site.check_out(owner)
    assert await site.world.customer_of(org) != first["id"]
    # An operator's key has no e-mail, and finds out all the same.
    await site.world.payments.gateway._client.v1.customers.delete_async(await site.world.customer_of(org))
    await site.read("POST", CHECKOUT, {"plan": "starter", **PAGES}, org_id=org)
    assert await site.world.pool.fetchval("SELECT count(*) FROM stripe_customers WHERE org_id = $1", org) == 3


TROUBLE = [
    Fault(path="/v1/customers", status=500, acts=True),
    Fault(path="/v1/customers", status=503),
    Fault(path="/v1/checkout/sessions", drop=True, acts=True, method="POST"),
    Fault(path="/v1/checkout/sessions", status=429, method="POST"),
]


@pytest.mark.parametrize("fault", TROUBLE, ids=lambda fault: f"{fault.path}-{fault.status}-{fault.acts}")
@pytest.mark.parametrize("who", ["the worker", "the owner"])
async def test_what_stripe_did_not_answer_is_done_once(
    site: PaymentsSite, org: str, owner: str, fault: Fault, who: str
):
    site.world.simulator.faults.ordered = [
        Fault(1, fault.method or "POST", fault.path, fault.status, 0, fault.drop, fault.acts)
    ]
    failed = await site.ask("POST", CHECKOUT, {"plan": "starter", **PAGES}, key=owner)
    assert failed.status_code == 503
    assert failed.headers["Retry-After"]
    if who == "the worker":
        await site.world.advance(timedelta(minutes=2))
        await collecting.carry_out_intents(site.world.payments, site.world.now)
    opened = await site.check_out(owner, "starter")
    assert [one["id"] for one in sessions_of(site, org)] == [opened["session_id"]]
    assert len(customers_of(site, org)) == 1
    assert (
        await site.world.pool.fetchval("SELECT count(*) FROM stripe_intents WHERE org_id = $1 AND state <> 'done'", org)
        == 0
    )


REFUSED = [
    ({"plan": "free", **PAGES}, "plan"),
    ({"plan": "gold", **PAGES}, "plan"),
    ({**PAGES}, "body"),
    ({"plan": "starter", "tier": "starter", **PAGES}, "body"),
    ({"plan": "starter", **PAGES, "success_url": "javascript:alert(1)"}, "success_url"),
    ({"plan": "starter", **PAGES, "success_url": "https://"}, "success_url"),
    ({"plan": "starter", **PAGES, "cancel_url": "https://[::1"}, "cancel_url"),
    ({"plan": "starter", **PAGES, "cancel_url": "https://example.com/a b"}, "cancel_url"),
    ({"plan": "starter", **PAGES, "cancel_url": "https://example.com/\u0000"}, "cancel_url"),
    ({"plan": "starter", "success_url": PAGES["success_url"]}, "cancel_url"),
    ({"plan": "starter", **PAGES, "org_id": "another"}, "org_id"),
]


@pytest.mark.parametrize(("body", "field"), REFUSED)
async def test_what_cannot_be_bought(site: PaymentsSite, org: str, owner: str, body: Any, field: str):
    refused = await site.ask("POST", CHECKOUT, body, key=owner)
    assert refused.status_code == 422
    assert [one["field"] for one in refused.json()["errors"]] == [field]
    assert customers_of(site, org) == []


@pytest.mark.usefixtures("owner")
async def test_members_and_strangers_do_not_buy(site: PaymentsSite, org: str):
    body = {"plan": "starter", **PAGES}
    for key in (token("bob", org), token("eve", f"{org}-other", "owner")):
        assert (await site.ask("POST", CHECKOUT, body, key=key, org_id=org)).status_code == 403
    assert (await site.ask("POST", CHECKOUT, body, key=None)).status_code == 401
    assert (await site.ask("POST", CHECKOUT, body, key=token("new", f"{org}-unknown", "owner"))).status_code == 404
    assert (await site.ask("POST", CHECKOUT, body)).status_code == 422
    assert customers_of(site, org) == []


async def test_the_portal_and_the_card(site: PaymentsSite, org: str, owner: str):
    page = {"return_url": "https://app.example.com/billing"}
    assert (await site.ask("POST", "/api/billing/portal", page, key=owner)).status_code == 409
    none = await site.read("GET", "/api/billing/payment-method", key=owner)
    assert none == {"status": "none", "brand": None, "last4": None, "exp_month": None, "exp_year": None}
    await site.world.subscribe(org)
    await site.world.deliver_all()
    assert (await site.read("POST", "/api/billing/portal", page, key=owner))["url"].startswith("http")
    method = await site.read("GET", "/api/billing/payment-method", key=owner)
    assert (method["status"], method["brand"], method["last4"]) == ("ok", "visa", "4242")
    assert (await site.ask("GET", "/api/billing/payment-method", key=token("bob", org))).status_code == 403
    assert await site.read("GET", "/api/billing/payment-method", org_id=org) == method
