"""Invoices, documents, credits, coupons and terms over HTTP: for whom, and what is refused."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from httpx import Response
from one_service import KEYS, bearer, checked, token
from payments_over_http import PaymentsSite, new_site
from servers import PostgresServer
from usage_closings import do

from billing.commands import Assign
from billing.manual_invoices import draw_up_due

INVOICES, BALANCE = "/api/billing/invoices", "/api/billing/balance"


@pytest.fixture(scope="module")
async def site(postgres_server: PostgresServer, billing_template: str, nats_server: str) -> AsyncIterator[PaymentsSite]:
    issuer = {"invoice_from": "Seller Inc.; 1 Market Street"}
    async with new_site(postgres_server, billing_template, nats_server, **issuer) as running:
        yield running


async def ask(site: PaymentsSite, method: str, path: str, body: Any = None, **more: Any) -> Response:
    return checked(await site.ask(method, path, body, **more))


def of(org: str, what: str) -> str:
    return f"/api/billing/organizations/{org}/{what}"


def new_terms(site: PaymentsSite, **changes: Any) -> dict[str, Any]:
    last_month = (site.world.now.replace(day=1) - timedelta(days=1)).replace(day=1)
    to = {"name": "Łódź & <b>Co</b>", "address": ["1 Road"], "country": "PL", "tax_id": "PL 1"}
    return {"billed_to": to, "net_days": 14, "starts_on": f"{last_month:%Y-%m-%d}"} | changes


async def billed(site: PaymentsSite, org: str) -> dict[str, Any]:
    """An organization that was on a plan for months, and its invoice for the last one; it has another for this one."""
    now = site.world.now
    await do(site.world.pool, org, now - timedelta(days=90), Assign("professional"))
    await site.read("PUT", of(org, "terms"), new_terms(site))
    # The sixth to the ninth of the month that follows, however long this one is: its invoice is drawn up on the fifth.
    await draw_up_due(site.world.pool, now.replace(day=1) + timedelta(days=36))
    return (await site.read("GET", INVOICES, org_id=org))["invoices"][-1]


async def test_an_invoice_from_terms_to_payment(site: PaymentsSite, org: str):
    invoice = await billed(site, org)
    member = token("ann", org)
    assert (invoice["total"], invoice["status"], invoice["collected_by"]) == (299, "open", "operator")
    whole = await site.read("GET", f"{INVOICES}/{invoice['invoice_id']}", key=member)
    assert sum(line["amount"] for line in whole["lines"]) == whole["total"]
    assert whole["lines"][0]["explanation"]["text"].startswith("The price of Professional, version 1, for a whole")
    part = {"invoice_id": invoice["invoice_id"], "amount": "100.00", "reference": "wire/1",
            "paid_on": f"{site.world.now:%Y-%m-%d}"}  # fmt: skip
    for _ in range(2):
        done = await site.read("POST", of(org, "payments"), part)
        assert (done["invoice"]["status"], done["message"]) == (
            "open",
            "The invoice is open. USD 199.00 is still owed.",
        )
    rest = await site.read("POST", of(org, "payments"), part | {"amount": 200, "reference": "wire/2"})
    assert (rest["invoice"]["status"], rest["credited"]) == ("paid", 1)
    assert "USD 1.00 was paid too much" in rest["message"]
    assert (await ask(site, "POST", of(org, f"invoices/{invoice['invoice_id']}/void"))).status_code == 409
    assert (await site.read("GET", BALANCE, key=member))["balance"] == 1
    kinds: list[str] = []
    cursor = None
    while True:
        page = await site.read(
            "GET", "/api/billing/history", key=member, limit=2, **({"cursor": cursor} if cursor else {})
        )
        kinds += [entry["kind"] for entry in page["entries"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(kinds) == ["credit", "invoice", "invoice", "payment", "payment"]


async def test_documents(site: PaymentsSite, org: str):
    invoice = await billed(site, org)
    path, member = f"{INVOICES}/{invoice['invoice_id']}", token("ann", org)
    page = await ask(site, "GET", f"{path}/html", key=member)
    assert "Łódź &amp; &lt;b&gt;Co&lt;/b&gt;" in page.text
    assert "Seller Inc." in page.text
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    pdf = await ask(site, "GET", f"{path}/pdf", key=member)
    assert pdf.content.startswith(b"%PDF-")
    assert pdf.headers["Content-Disposition"] == f'attachment; filename="{invoice["number"]}.pdf"'
    for form in ("", "/html", "/pdf"):
        stranger = await ask(site, "GET", path + form, key=token("eve", "org_other"))
        assert stranger.status_code == 404
        assert (await ask(site, "GET", path + form, key=token("eve", "org_other"), org_id=org)).status_code == 403


async def test_stripes_documents_are_at_stripe(site: PaymentsSite, org: str):
    await site.world.enroll(org)
    await site.world.subscribe(org)
    await site.world.deliver_all()
    (invoice,) = (await site.read("GET", INVOICES, org_id=org))["invoices"]
    assert invoice["collected_by"] == "stripe"
    for form in ("html", "pdf"):
        answer = await ask(site, "GET", f"{INVOICES}/{invoice['invoice_id']}/{form}", org_id=org)
        assert answer.status_code == 307
        assert answer.headers["Location"].startswith("http")
    payment = {"invoice_id": invoice["invoice_id"], "amount": 1, "reference": "x", "paid_on": "2026-01-01"}
    refused = await ask(site, "POST", of(org, "payments"), payment)
    assert (refused.status_code, refused.json()["detail"]) == (409, "Stripe collects this invoice: settle it there.")


async def test_terms(site: PaymentsSite, org: str):
    path = of(org, "terms")
    assert (await ask(site, "GET", path)).status_code == 404
    assert (await ask(site, "DELETE", path)).status_code == 404
    given = await site.read("PUT", path, new_terms(site))
    assert given == await site.read("GET", path)
    assert given["billed_to"]["name"] == "Łódź & <b>Co</b>"
    assert given["next_invoice_at"].endswith("-05T00:00:00Z")
    ended = await site.read("DELETE", path)
    assert ended["ends_on"] == f"{site.world.now:%Y-%m-%d}"
    assert (await site.read("PUT", path, new_terms(site)))["ends_on"] is None


async def test_credits_and_coupons(site: PaymentsSite, org: str):
    credit = {"amount_usd": 12.5, "reason": "an outage", "reference": "ticket-7"}
    for _ in range(2):
        answer = await ask(site, "POST", of(org, "credits"), credit)
        assert answer.status_code == 201
    assert (await ask(site, "POST", of(org, "credits"), credit | {"amount_usd": 13})).status_code == 409
    code = f"HI-{org[-12:].upper()}"
    coupon = {"code": code.lower(), "amount_usd": "5.00", "max_redemptions": 1}
    assert (await ask(site, "POST", "/api/billing/coupons", coupon)).json()["data"]["code"] == code
    redeem = "/api/billing/coupons/redeem"
    assert (await ask(site, "POST", redeem, {"code": code}, key=token("ann", org))).status_code == 403
    owner = token("zoe", org, "owner")
    assert (await site.read("POST", redeem, {"code": code.lower()}, key=owner))["amount"] == 5
    assert (await ask(site, "POST", redeem, {"code": code}, key=owner)).status_code == 409
    used_up = await ask(site, "POST", redeem, {"code": code}, key=token("zoe", "org_elsewhere", "owner"))
    assert (used_up.status_code, used_up.json()["detail"]) == (409, "The coupon is used up.")
    balance = await site.read("GET", BALANCE, key=token("ann", org))
    assert (balance["balance"], balance["being_moved"]) == (17.5, 0)
    assert [entry["kind"] for entry in balance["entries"]] == ["credit", "coupon"] or len(balance["entries"]) == 2
    listed = await site.read("GET", "/api/billing/coupons")
    assert next(one for one in listed if one["code"] == code)["redemptions"] == 1


BAD: list[tuple[str, str, Any, str]] = [
    ("POST", "credits", {"amount_usd": "1.005", "reason": "x"}, "amount_usd"),
    ("POST", "credits", {"amount_usd": 0, "reason": "x"}, "amount_usd"),
    ("POST", "credits", {"amount_usd": -1, "reason": "x"}, "amount_usd"),
    ("POST", "credits", {"amount_usd": "NaN", "reason": "x"}, "amount_usd"),
    ("POST", "credits", {"amount_usd": "1e400", "reason": "x"}, "amount_usd"),
    ("POST", "credits", {"amount_usd": True, "reason": "x"}, "amount_usd"),
    ("POST", "credits", {"amount_usd": None, "reason": "x"}, "amount_usd"),
    ("POST", "credits", {"amount_usd": 1, "reason": "a\x00b"}, "reason"),
    ("POST", "credits", {"amount_usd": 1, "reason": "a\nb"}, "reason"),
    ("POST", "credits", {"amount_usd": 1, "reason": " "}, "reason"),
    ("POST", "credits", {"amount_usd": 1, "reason": "x", "who": "me"}, "who"),
    ("POST", "credits", {"amount_usd": 1, "reason": "x", "reference": "a b"}, "reference"),
    ("PUT", "terms", {"starts_on": "1900-01-01"}, "starts_on"),
    ("PUT", "terms", {"starts_on": "9999-12-31"}, "starts_on"),
    ("PUT", "terms", {"starts_on": 5.5}, "starts_on"),
    ("PUT", "terms", {"net_days": -1}, "net_days"),
    ("PUT", "terms", {"billed_to": {"name": "A", "country": "Poland"}}, "billed_to.country"),
    ("PUT", "terms", {"billed_to": {"name": "A", "address": ["x"] * 9}}, "billed_to.address"),
    ("PUT", "terms", {"billed_to": {}}, "billed_to.name"),
    ("POST", "payments", {"paid_on": "2999-01-01"}, "paid_on"),
    ("POST", "payments", {"paid_on": "0001-01-01"}, "paid_on"),
    ("POST", "payments", {"reference": ""}, "reference"),
    ("POST", "payments", {"invoice_id": "../x"}, "invoice_id"),
]


@pytest.mark.parametrize(("method", "what", "change", "field"), BAD)
async def test_what_cannot_be(site: PaymentsSite, org: str, method: str, what: str, change: Any, field: str):
    good = {
        "credits": {},
        "terms": new_terms(site),
        "payments": {"invoice_id": "inv_1", "amount": 1, "reference": "x", "paid_on": "2026-01-01"},
    }
    answer = await ask(site, method, of(org, what), good[what] | change)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == field


async def test_half_a_letter_is_no_name(site: PaymentsSite, org: str):
    body = json.dumps(new_terms(site, billed_to={"name": "\ud800"}))
    headers = bearer(KEYS["operator"]) | {"Content-Type": "application/json"}
    answer = checked(await site.client.put(of(org, "terms"), content=body, headers=headers))
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "billed_to.name")


async def test_what_is_not_asked_well(site: PaymentsSite, org: str):
    owner = token("zoe", org, "owner")
    for path in (INVOICES, "/api/billing/history", BALANCE):
        assert (await ask(site, "GET", path, key=owner, cursor="nonsense")).status_code == 422
        assert (await ask(site, "GET", path, key=owner, limit=0)).status_code == 422
        assert (await ask(site, "GET", path, key=KEYS["usage.read"])).status_code == 422
    assert await site.read("GET", "/api/billing/usage-charges", key=owner, month="2026-10") == []
    assert (await ask(site, "GET", "/api/billing/usage-charges", key=owner, month="2026-13")).status_code == 422
    assert (await ask(site, "GET", f"{INVOICES}/inv_none", key=owner)).status_code == 404
    for moment in ("tomorrow", "2020-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"):
        coupon = {"code": "GOOD-ONE", "amount_usd": 1, "redeem_by": moment}
        assert (await ask(site, "POST", "/api/billing/coupons", coupon)).status_code == 422
    assert (await ask(site, "PUT", of("platform", "terms"), new_terms(site))).status_code == 404
