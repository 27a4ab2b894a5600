"""What owners and operators do with a subscription over HTTP."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from billing_platform import BillingPlatform
from one_service import token
from servers import eventually

from aragora.contracts.events import EntitlementsChanged


@pytest.fixture
def path(org: str) -> str:
    return f"/api/subscription/organizations/{org}/subscription"


async def test_a_subscription_as_people_see_it(running_billing: BillingPlatform, org: str, path: str):
    given = await running_billing.read("PUT", path, {"plan": "professional"})
    assert given == await running_billing.read("PUT", path, {"plan": "professional"})
    now = datetime.now(UTC)
    assert given == {
        "org_id": org, "plan": "professional", "tier": "professional", "plan_name": "Professional", "version": 1,
        "current_version": 1, "status": "active", "billing_cycle": "monthly",
        "current_period_start": f"{now:%Y-%m}-01T00:00:00Z",
        "current_period_end": f"{(now.replace(day=1) + timedelta(days=32)):%Y-%m}-01T00:00:00Z",
        "trial_ends_at": None, "comp_until": None, "cancel_at_period_end": False, "pending": None,
        "price_monthly": 299, "currency": "USD", "seats": 10, "features": {"api_access": True, "all_agents": True},
        "limits": {"debates": 200, "debates_per_month": 200}, "limits_per_user": {},
    }  # fmt: skip
    for key in (token("ann", org), token("zoe", org, "owner")):
        assert await running_billing.read("GET", "/api/subscription/user/ann/subscription", key=key) == given
    assert await running_billing.read("GET", "/api/subscription/user/whoever/subscription", org_id=org) == given


async def test_an_owner_cancels_resumes_and_chooses_what_is_free(running_billing: BillingPlatform, org: str, path: str):
    await running_billing.read("PUT", path, {"plan": "starter"})
    owner = token("zoe", org, "owner")
    cancelled = await running_billing.read("POST", f"{path}/cancel", key=owner)
    assert (cancelled["status"], cancelled["cancel_at_period_end"]) == ("canceling", True)
    assert cancelled["pending"] == {"at": cancelled["current_period_end"], "plan": None, "version": None}
    resumed = await running_billing.read("POST", f"{path}/resume", key=owner)
    assert (resumed["status"], resumed["pending"]) == ("active", None)
    later = await running_billing.read("POST", f"{path}/change", {"plan": "free", "at_period_end": True}, key=owner)
    assert (later["plan"], later["status"], later["pending"]["plan"]) == ("starter", "active", "free")
    refused = await running_billing.ask("POST", f"{path}/change", {"plan": "enterprise"}, key=owner)
    assert refused.status_code == 402
    assert "Enterprise costs USD 999 a month" in refused.json()["detail"]
    assert (await running_billing.read("POST", f"{path}/change", {"plan": "free"}, key=owner))["plan"] == "free"
    assert (await running_billing.ask("POST", f"{path}/cancel", key=owner)).status_code == 409
    assert (await running_billing.ask("POST", f"{path}/change", {"plan": "free"}, key=owner)).status_code == 409


async def test_an_operator_gives_trials_and_comps(running_billing: BillingPlatform, path: str):
    tried = await running_billing.read("POST", f"{path}/trial", {"plan": "professional", "days": 3})
    ends_at = datetime.fromisoformat(tried["trial_ends_at"])
    assert (tried["plan"], tried["status"]) == ("professional", "trialing")
    assert timedelta(days=2, hours=23) < ends_at - datetime.now(UTC) < timedelta(days=3)
    comped = await running_billing.read("POST", f"{path}/comp", {"plan": "enterprise"})
    assert (comped["plan"], comped["status"], comped["comp_until"]) == ("enterprise", "comped", None)
    changed = await running_billing.read("POST", f"{path}/change", {"plan": "starter"})
    assert (changed["plan"], changed["status"]) == ("starter", "active")


async def test_who_asks_at_once_is_answered_one_after_the_other(running_billing: BillingPlatform, org: str, path: str):
    plans = ["starter", "professional"] * 6
    answers = await asyncio.gather(*(running_billing.ask("PUT", path, {"plan": plan}) for plan in plans))
    assert {answer.status_code for answer in answers} <= {200, 409}
    last = await running_billing.read("PUT", path, {"plan": "enterprise"})
    assert last["plan"] == "enterprise"
    entitled = await running_billing.hears(org, EntitlementsChanged)
    await eventually(lambda: running_billing.heard_of(org, EntitlementsChanged)[-1].plan == "enterprise", 10)
    revisions = [event.revision for event in running_billing.heard_of(org, EntitlementsChanged)]
    assert revisions == list(range(entitled.revision, len(revisions) + 1))


WRONG: list[tuple[str, str, Any, str | None]] = [
    ("PUT", "", {"plan": "gold"}, "plan"),
    ("PUT", "", {"plan": "a\0"}, "plan"),
    ("PUT", "", {"plan": 1}, "plan"),
    ("PUT", "", {}, "plan"),
    ("PUT", "", {"plan": "free", "price": 0}, "price"),
    ("PUT", "", [], None),
    ("POST", "/change", {"plan": "gold"}, "plan"),
    ("POST", "/change", {"plan": "free", "at_period_end": "soon"}, "at_period_end"),
    ("POST", "/trial", {"plan": "starter"}, "days"),
    ("POST", "/trial", {"plan": "starter", "days": 0}, "days"),
    ("POST", "/trial", {"plan": "starter", "days": 1.5}, "days"),
    ("POST", "/trial", {"plan": "starter", "days": 10**30}, "days"),
    ("POST", "/comp", {"plan": "starter", "until": "2020-01-01T00:00:00Z"}, "until"),
    ("POST", "/comp", {"plan": "starter", "until": "2031-01-01T00:00:00"}, "until"),
    ("POST", "/comp", {"plan": "starter", "until": "9999-12-31T23:59:59-14:00"}, "until"),
    ("POST", "/comp", {"plan": "starter", "until": "0001-01-01T00:00:00+14:00"}, "until"),
    ("POST", "/cancel", {"at_period_end": None}, "at_period_end"),
]


@pytest.mark.parametrize(("method", "verb", "body", "field"), WRONG)
async def test_what_makes_no_sense_is_refused_and_named(
    running_billing: BillingPlatform, path: str, method: str, verb: str, body: Any, field: str | None
):
    await running_billing.read("PUT", path, {"plan": "enterprise"})
    answer = await running_billing.ask(method, path + verb, body)
    assert answer.status_code == 422, answer.text
    if field is not None:
        assert answer.json()["errors"][0]["field"] == field
    assert (await running_billing.read("GET", path))["plan"] == "enterprise"


async def test_an_unknown_plan_is_answered_with_those_that_there_are(running_billing: BillingPlatform, path: str):
    answer = await running_billing.ask("PUT", path, {"plan": "gold"})
    message = answer.json()["errors"][0]["message"]
    assert message == "no plan is called 'gold'; there are enterprise, free, professional, starter"


async def test_an_unknown_organization(running_billing: BillingPlatform, path: str):
    assert (await running_billing.ask("GET", path)).status_code == 404
    for verb in ("cancel", "resume", "move"):
        answer = await running_billing.ask("POST", f"{path}/{verb}")
        assert (answer.status_code, "an operator starts one" in answer.json()["detail"]) == (404, True)
    platform = "/api/subscription/organizations/platform/subscription"
    assert (await running_billing.ask("PUT", platform, {"plan": "free"})).status_code == 404
    assert (await running_billing.ask("PUT", path.replace("org_", "org."), {"plan": "free"})).status_code == 422
