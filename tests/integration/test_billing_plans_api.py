"""What is sold: every tier of both catalogs with its documented numbers, and what operators publish."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from billing_platform import BillingPlatform, billing_platform
from one_service import KEYS, bearer, checked, token
from servers import PostgresServer

PLANS = "/api/subscription/plans"
NEW = {"name": "Gold", "price_usd_per_month": "49.90", "seats": 5, "features": {"api_access": True},
       "limits": {"debates": 70, "cost_usd": 12.5, "tokens": None}, "limits_per_user": {"debates": 9}}  # fmt: skip

ARAGORA: list[dict[str, Any]] = [
    {"tier": "free", "name": "Free", "price_monthly": 0, "seats": 1, "limits": {"debates": 10},
     "features": {"api_access": False, "all_agents": False}},
    {"tier": "starter", "name": "Starter", "price_monthly": 99, "seats": 2, "limits": {"debates": 50},
     "features": {"api_access": False, "all_agents": False}},
    {"tier": "professional", "name": "Professional", "price_monthly": 299, "seats": 10, "limits": {"debates": 200},
     "features": {"api_access": True, "all_agents": True}},
    {"tier": "enterprise", "name": "Enterprise", "price_monthly": 999, "seats": None, "limits": {"debates": None},
     "features": {"api_access": True, "all_agents": True}},
]  # fmt: skip
ALWRITY: list[dict[str, Any]] = [
    {"tier": "free", "name": "Free", "price_monthly": 0,
     "limits": {"gemini_calls": 100, "calls:gemini": 100, "tokens": 100_000}},
    {"tier": "basic", "name": "Basic", "price_monthly": 29,
     "limits": {"gemini_calls": 1000, "openai_calls": 500, "gemini_tokens": 1_000_000, "openai_tokens": 500_000,
                "monthly_cost": 50, "cost_usd": 50, "tokens:openai": 500_000}},
    {"tier": "pro", "name": "Pro", "price_monthly": 79,
     "limits": {"gemini_calls": 5000, "openai_calls": 2500, "gemini_tokens": 5_000_000, "openai_tokens": 2_500_000,
                "monthly_cost": 150}, "features": {"white_label": False, "dedicated_support": False}},
    {"tier": "enterprise", "name": "Enterprise", "price_monthly": 199,
     "limits": {"gemini_calls": None, "openai_calls": None, "monthly_cost": 500},
     "features": {"white_label": True, "dedicated_support": True}},
]  # fmt: skip


@pytest.fixture(scope="module")
async def alwrity(
    postgres_server: PostgresServer, billing_template: str, nats_server: str
) -> AsyncIterator[BillingPlatform]:
    async with billing_platform(
        postgres_server, billing_template, nats_server, catalog="alwrity", workers=0
    ) as running:
        yield running


def compare(served: list[dict[str, Any]], documented: list[dict[str, Any]]) -> None:
    assert [each["tier"] for each in served] == [each["tier"] for each in documented]
    for found, wanted in zip(served, documented, strict=True):
        assert found["id"] == found["tier"]
        assert (found["currency"], found["version"]) == ("USD", 1)
        for name, value in wanted.items():
            if isinstance(value, dict):
                assert {key: found[name][key] for key in value} == value
            else:
                assert found[name] == value, name


async def test_aragoras_tiers(running_billing: BillingPlatform):
    served = await running_billing.read("GET", PLANS, key=token("ann", None))
    compare(served, ARAGORA)
    assert served[0]["limits"] == {"debates": 10, "debates_per_month": 10}
    assert [each["is_default"] for each in served] == [True, False, False, False]


async def test_alwritys_tiers(alwrity: BillingPlatform):
    compare(await alwrity.read("GET", PLANS), ALWRITY)


async def test_an_operator_publishes_versions_and_retires_the_plan(running_billing: BillingPlatform):
    first = await running_billing.read("POST", f"{PLANS}/gold", NEW)
    assert (first["version"], first["source"], first["listed"], first["price_monthly"]) == (1, "operator", True, 49.9)
    assert first["limits"] == {
        "debates": 70, "debates_per_month": 70, "cost_usd": 12.5, "monthly_cost": 12.5, "tokens": None,
    }  # fmt: skip
    assert first["limits_per_user"] == {"debates": 9, "debates_per_month": 9}
    assert (await running_billing.read("POST", f"{PLANS}/gold", NEW))["version"] == 1
    assert [each["tier"] for each in await running_billing.read("GET", PLANS)][-1] == "gold"
    org = "/api/subscription/organizations/org_gold/subscription"
    assert (await running_billing.read("PUT", org, {"plan": "gold"}))["seats"] == 5
    second = await running_billing.read("POST", f"{PLANS}/gold", NEW | {"seats": "unlimited"})
    assert (second["version"], second["seats"]) == (2, None)
    kept = await running_billing.read("GET", org)
    assert (kept["version"], kept["current_version"], kept["seats"]) == (1, 2, 5)
    moved = await running_billing.read("POST", f"{org}/move")
    assert (moved["version"], moved["seats"]) == (2, None)
    retired = await running_billing.read("POST", f"{PLANS}/gold/retire")
    assert (retired["version"], retired["listed"]) == (3, False)
    assert "gold" not in [each["tier"] for each in await running_billing.read("GET", PLANS)]
    versions = await running_billing.read("GET", f"{PLANS}/gold/versions")
    assert [(each["version"], each["listed"]) for each in versions] == [(3, False), (2, True), (1, True)]
    assert (await running_billing.read("PUT", "/api/subscription/organizations/org_late/subscription",
                                       {"plan": "gold"}))["version"] == 3  # fmt: skip
    assert (await running_billing.ask("POST", f"{PLANS}/free/retire")).status_code == 409
    assert (await running_billing.ask("POST", f"{PLANS}/silver/retire")).status_code == 404
    assert (await running_billing.ask("GET", f"{PLANS}/silver/versions")).status_code == 404


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"limits": {"debates": -1}}, "limits.debates"),
        ({"limits": {"debates": 1.5}}, "limits.debates"),
        ({"limits": {"debates": 10**15 + 1}}, "limits.debates"),
        ({"limits": {"debate": 1}}, "limits.debate"),
        ({"limits": []}, "limits"),
        ({"limits_per_user": {"calls:": 1}}, "limits_per_user.calls:"),
        ({"seats": -1}, "seats"),
        ({"price_usd_per_month": "-1"}, "price_usd_per_month"),
        ({"price_usd_per_month": 1e-7}, "price_usd_per_month"),
        ({"price_usd_per_month": None}, "price_usd_per_month"),
        ({"features": {"api_access": 1}}, "features.api_access"),
        ({"name": ""}, "name"),
        ({"is_default": True}, "is_default"),
        ({"trial_days": 10**9}, "trial_days"),
    ],
)
async def test_a_plan_that_cannot_be(running_billing: BillingPlatform, change: dict[str, Any], field: str):
    answer = await running_billing.ask("POST", f"{PLANS}/bad", NEW | change)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == field
    assert (await running_billing.ask("GET", f"{PLANS}/bad/versions")).status_code == 404


async def test_the_default_plan_stays_free(running_billing: BillingPlatform):
    answer = await running_billing.ask("POST", f"{PLANS}/free", NEW)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "price_usd_per_month")
    answer = await running_billing.ask("POST", f"{PLANS}/free", NEW | {"price_usd_per_month": 0, "listed": False})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "listed")


NO_PLANS = {
    b"{": 400,
    b"\xff": 400,
    b"[" * 100_000: 400,
    b"9" * 5000: 400,
    b"[]": 422,
    b"null": 422,
    b'{"seats": NaN}': 422,
    b'{"name": "\\ud800", "price_usd_per_month": 1, "seats": 1}': 422,
}


@pytest.mark.parametrize("body", NO_PLANS, ids=lambda body: body[:20].decode("latin-1"))
async def test_bodies_that_are_no_plan(running_billing: BillingPlatform, body: bytes):
    answer = await running_billing.client.post(f"{PLANS}/bad", content=body, headers=bearer(KEYS["operator"]))
    assert checked(answer).status_code == NO_PLANS[body]


async def test_a_plans_id(running_billing: BillingPlatform):
    assert (await running_billing.ask("POST", f"{PLANS}/Bad", NEW)).status_code == 422
