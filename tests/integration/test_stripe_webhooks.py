"""Webhooks as they come in: verified, kept once, without anything personal, and answered at once."""

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from one_service import PROBLEM, token
from payments_over_http import PaymentsSite, new_site, payments_site
from servers import PostgresServer

from aragora.contracts.events import PLATFORM, BillingAttentionNeeded
from aragora.contracts.ids import new_id
from billing.webhooks_api import MAX_WEBHOOK_BYTES

EVENTS = "/api/billing/stripe/events"


@pytest.fixture(scope="module")
async def site(postgres_server: PostgresServer, billing_template: str, nats_server: str) -> AsyncIterator[PaymentsSite]:
    async with new_site(postgres_server, billing_template, nats_server) as running:
        yield running


def event_of(kind: str = "invoice.paid", **fields: Any) -> dict[str, Any]:
    about = {"id": f"in_{new_id().hex}", "object": "invoice", "customer": "cus_1", "total": 100}
    said = {"id": f"evt_{new_id().hex}", "object": "event", "type": kind, "created": 1_790_000_000, "livemode": False}
    return {**said, "data": {"object": about}, **fields}


def headers_of(site: PaymentsSite, body: bytes, *, seconds_ago: int = 0, secret: str | None = None) -> dict[str, str]:
    """A signature, good or not."""
    at = site.world.simulator.world.time_of() - seconds_ago
    key = (secret or site.world.simulator.webhook_secret).encode()
    return {"Stripe-Signature": f"t={at},v1={hmac.new(key, f'{at}.'.encode() + body, hashlib.sha256).hexdigest()}"}


async def kept(site: PaymentsSite, event_id: str) -> Any:
    return await site.world.pool.fetchrow(
        "SELECT type, object_id, customer_id, state, reason, payload::text FROM stripe_events WHERE event_id = $1",
        event_id,
    )


async def test_an_event_is_kept_once(site: PaymentsSite):
    event = event_of()
    for _ in range(3):
        answer = await site.tell(event)
        assert (answer.status_code, answer.json()) == (200, {"received": True})
    row = await kept(site, event["id"])
    assert (row["type"], row["state"], row["customer_id"]) == ("invoice.paid", "pending", "cus_1")
    assert row["object_id"] == event["data"]["object"]["id"]


@pytest.mark.parametrize("changes", [{"type": "payout.paid"}, {"type": "invoice.upcoming"}])
async def test_what_nothing_follows_from_is_kept_and_ignored(site: PaymentsSite, changes: dict[str, Any]):
    event = event_of(**changes)
    assert (await site.tell(event)).status_code == 200
    row = await kept(site, event["id"])
    assert (row["state"], row["reason"]) == ("ignored", "unknown_type")


@pytest.mark.parametrize(
    ("changes", "reason", "reference"),
    [({"livemode": True}, "other_mode", "live"), ({"account": "acct_else"}, "other_account", "acct_else")],
)
async def test_what_is_not_ours_is_kept_ignored_and_told_of_once(
    site: PaymentsSite, changes: dict[str, Any], reason: str, reference: str
):
    for _ in range(2):
        event = event_of(**changes)
        assert (await site.tell(event)).status_code == 200
        row = await kept(site, event["id"])
        assert (row["state"], row["reason"]) == ("ignored", reason)
    needed = BillingAttentionNeeded.model_validate({"kind": reason, "reference": reference})
    assert (await site.world.said(PLATFORM, BillingAttentionNeeded)).count(needed) == 1


async def test_what_is_not_signed_is_not_kept(site: PaymentsSite):
    event = event_of()
    body = json.dumps(event).encode()
    good = headers_of(site, body)
    wrong = [
        {},
        {"Stripe-Signature": ""},
        {"Stripe-Signature": "v1=abc"},
        {"Stripe-Signature": good["Stripe-Signature"].replace("v1=", "v0=")},
        headers_of(site, body, secret="whsec_of_somebody_else"),
        headers_of(site, body, seconds_ago=301),
        headers_of(site, body, seconds_ago=-301),
        headers_of(site, body + b" "),
    ]
    for headers in wrong:
        answer = await site.post_webhook(body, headers)
        assert (answer.status_code, answer.headers["Content-Type"]) == (400, PROBLEM)
    assert await kept(site, event["id"]) is None
    assert (await site.post_webhook(body, good)).status_code == 200


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


NO_EVENTS: list[dict[str, Any]] = [
    {"data": {}}, {"data": None}, {"data": {"object": []}}, {"id": 7}, {"id": "evt\u0000"}, {"id": "e" * 999},
    {"type": "invoice.paid\u0000"}, {"type": None}, {"created": "now"}, {"created": -1}, {"created": 10**30},
    {"created": True}, {"livemode": "no"}, {"account": 5},
]  # fmt: skip
ODD = [
    *(b"", b"null", b"[]", b"{}", b"\xff\xfe", b'{"id": 1}', b"NaN"),
    *(json.dumps(event_of(**changes)).encode() for changes in NO_EVENTS),
]
STRANGE: list[dict[str, Any]] = [
    {"id": "in_\u0000"},
    {"id": ["in_1"]},
    {"id": "in_1", "customer": 10**400},
    {"id": "in_1", "customer": {"id": {"id": "cus_1"}}},
    {"id": "in_1", "total": 10**400, "amount_due": -(2**63), "status": "\ud800", "metadata": {"org_id": "\u0000"}},
    {"id": "x" * 10_000, "object": {"object": "customer"}},
    {"id": "in_1", "items": json.loads(nested(500))},
    {"id": "in_1", "created": 1e308, "metadata": {"org_id": "' OR 1=1 --", "\u0000": 1}},
]


@pytest.mark.parametrize("body", ODD)
async def test_what_is_signed_but_no_event_is_refused(site: PaymentsSite, body: bytes):
    before = await site.world.pool.fetchval("SELECT count(*) FROM stripe_events")
    answer = await site.post_webhook(body, headers_of(site, body))
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, PROBLEM)
    assert answer.json()["detail"]
    assert await site.world.pool.fetchval("SELECT count(*) FROM stripe_events") == before


@pytest.mark.parametrize("about", STRANGE, ids=range(len(STRANGE)))
async def test_what_is_signed_and_strange_is_kept_as_far_as_it_is_plain(site: PaymentsSite, about: dict[str, Any]):
    event = event_of(data={"object": about})
    assert (await site.tell(event)).status_code == 200
    row = await kept(site, event["id"])
    usable = about["id"] == "in_1"
    assert (row["state"], row["reason"]) == (("pending", None) if usable else ("ignored", "no_object"))


async def test_too_much_is_refused(site: PaymentsSite):
    body = b" " * (MAX_WEBHOOK_BYTES + 1)
    assert (await site.post_webhook(body, headers_of(site, body))).status_code == 413
    event = event_of()
    event["data"]["object"]["description"] = "x" * (MAX_WEBHOOK_BYTES - 2_000)
    assert (await site.tell(event)).status_code == 200
    assert len((await kept(site, event["id"]))["payload"]) < 1_000


async def test_operators_see_and_retry(site: PaymentsSite):
    event, other = event_of(), event_of("payout.paid")
    for one in (event, other):
        await site.tell(one)
    await site.world.pool.execute(
        "UPDATE stripe_events SET state = 'unresolved', reason = 'unknown_organization', attempts = 3 "
        "WHERE event_id = $1",
        event["id"],
    )
    listed = await site.read("GET", EVENTS, state="unresolved")
    (seen,) = [one for one in listed if one["event_id"] == event["id"]]
    assert (seen["reason"], seen["customer_id"], seen["attempts"]) == ("unknown_organization", "cus_1", 3)
    again = await site.read("POST", f"{EVENTS}/{event['id']}/retry")
    assert (again["state"], again["reason"], again["attempts"]) == ("pending", None, 0)
    assert (await site.ask("POST", f"{EVENTS}/{other['id']}/retry")).status_code == 409
    assert (await site.ask("POST", f"{EVENTS}/evt_nobody/retry")).status_code == 404
    assert len(await site.read("GET", EVENTS, limit=1)) == 1
    assert (await site.ask("GET", EVENTS, state="lost")).status_code == 422
    assert (await site.ask("GET", EVENTS, key=token("zoe", "org_1", "owner"))).status_code == 403
    assert (await site.ask("GET", "/api/billing/stripe/intents", state="nothing")).status_code == 422
    assert await site.read("GET", "/api/billing/stripe/intents", state="refused") == []


@pytest.mark.parametrize("missing", ["stripe_webhook_secret", "stripe_secret_key"])
async def test_without_configuration_stripe_is_told_to_come_again(
    site: PaymentsSite, nats_server: str, missing: str, org: str
):
    async with payments_site(site.world, nats_server, **{missing: ""}) as unset:
        answer = await unset.tell(event_of())
        assert (answer.status_code, missing.upper() in answer.json()["detail"]) == (503, True)
        await site.world.enroll(org)
        owner = token("zoe", org, "owner")
        assert (await unset.ask("GET", "/api/billing/subscription", key=owner)).status_code == 200
        assert (await unset.read("GET", "/api/billing/payment-method", key=owner))["status"] == "none"
        body = {"plan": "starter", "success_url": "https://a.example", "cancel_url": "https://a.example"}
        begun = await unset.ask("POST", "/api/billing/checkout", body, key=owner)
        expected = 503 if missing == "stripe_secret_key" else 200
        assert begun.status_code == expected
        if expected == 503:
            assert "STRIPE_SECRET_KEY" in begun.json()["detail"]


async def test_a_plan_without_a_price_names_the_variable(site: PaymentsSite, nats_server: str, org: str):
    await site.world.enroll(org)
    async with payments_site(site.world, nats_server, stripe_prices={}) as unset:
        body = {"plan": "enterprise", "success_url": "https://a.example", "cancel_url": "https://a.example"}
        answer = await unset.ask("POST", "/api/billing/checkout", body, key=token("zoe", org, "owner"))
        assert (answer.status_code, "STRIPE_PRICE_ENTERPRISE" in answer.json()["detail"]) == (503, True)


async def test_any_of_the_secrets_will_do_while_one_is_rolled(site: PaymentsSite, nats_server: str):
    both = f"whsec_new, {site.world.simulator.webhook_secret}"
    async with payments_site(site.world, nats_server, stripe_webhook_secret=both) as rolling:
        body = json.dumps(event_of()).encode()
        for secret in ("whsec_new", site.world.simulator.webhook_secret):
            assert (await rolling.post_webhook(body, headers_of(site, body, secret=secret))).status_code == 200


async def test_any_signed_bytes_are_never_our_mistake(site: PaymentsSite):
    for number in range(50):
        body = hashlib.shake_256(bytes([number])).digest(200)
        assert (await site.post_webhook(body, headers_of(site, body))).status_code == 400
