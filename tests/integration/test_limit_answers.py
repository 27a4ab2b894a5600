"""What people and programs are told: the documented 429, where a limit stands, and only what is theirs to know."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from limits import LimitAsker, entitle, entitlements, limit, plan, publish_plans
from metering_platform import MeteringPlatform
from one_service import KEYS, token
from usage import native

from aragora_nats.connecting import connect_once
from metering.limits import resets_at

DEBATE = {"event_type": "debate"}
FREE = (limit("debates", 10), limit("debates", 9, "user"))


@pytest.fixture(scope="module")
async def asker(platform: MeteringPlatform) -> AsyncIterator[LimitAsker]:
    bus = await connect_once(platform.bus_url)
    plans = [
        plan("free", limit("debates", 10), limit("debates", 9, "user")),
        plan(
            "payg",
            *(limit("debates", 1, per) for per in ("user", "organization")),
            limit("images", 5, overage="0.5"),
            rank=1,
            price="19",
        ),
        plan("starter", limit("debates", 10), limit("debates", 20, "user"), rank=1, price="99"),
        plan("pro", limit("debates", 200), rank=2, price="299"),
        plan("enterprise", limit("debates", None), rank=3, price="999"),
    ]
    await publish_plans(platform.database_url, *plans)
    yield LimitAsker(platform, bus)
    await bus.close()


async def give(asker: LimitAsker, org: str, *limits: Any, plan_name: str = "free") -> None:
    allowance = {org: entitlements(*limits, plan=plan_name)}
    await entitle(asker.platform.database_url, allowance, datetime.now(UTC))


async def test_a_refused_reservation_is_the_documented_429(asker: LimitAsker, org: str):
    await give(asker, org, *FREE)
    now = datetime.now(UTC)
    used = [native(org_id=org, event_type="debate", user_id=f"u{n % 2}", occurred_at=now.isoformat()) for n in range(6)]
    await asker.platform.record(*used)
    question = {"org_id": org, "operations": [DEBATE], "user_id": "u1", "ttl_seconds": 300}
    for _ in range(4):
        held = await asker.ask("reserve", question)
        assert held.status_code == 201
    assert [(each["per"], each["used"], each["held"], each["remaining"]) for each in held.json()["limits"]] == [
        ("organization", 6, 4, 0), ("user", 3, 4, 2),
    ]  # fmt: skip
    refused = await asker.ask("reserve", question)
    assert refused.status_code == 429
    assert refused.headers["Content-Type"] == "application/problem+json"
    answer = refused.json()
    assert answer["error"] == "Usage limit exceeded"
    assert answer["message"].startswith("Your organization has used 6 of 10 debates this month, and 4 more are held")
    expected = {
        "org_id": org, "meter": "debates", "per": "organization", "user_id": None, "used": 6, "held": 4, "limit": 10,
        "requested": 1,
    }  # fmt: skip
    assert {name: answer[name] for name in expected} == expected
    assert datetime.fromisoformat(answer["resets_at"]) == resets_at(now)
    assert answer["upgrade"] == {
        "plan": "pro", "name": "Pro", "limit": 200, "overage": None, "price_usd_per_month": 299,
    }  # fmt: skip
    assert (answer["type"], answer["title"], answer["status"]) == ("about:blank", "Too Many Requests", 429)
    least = min(290, (resets_at(now) - datetime.now(UTC)).total_seconds())  # the month may end before what is held
    assert least <= int(refused.headers["Retry-After"]) == answer["retry_after_seconds"] <= 300
    status, on_the_bus = await asker.ask_on_the_bus("reserve", question)
    assert (status, on_the_bus["message"]) == (429, answer["message"])
    checked = await asker.ask("check", {"org_id": org, "operations": [DEBATE], "user_id": "u1"})
    assert checked.status_code == 200
    assert (checked.json()["allowed"], checked.json()["plan"], checked.json()["upgrade"]["plan"]) == (
        False,
        "free",
        "pro",
    )
    assert checked.json()["message"] == answer["message"]


async def test_where_nothing_may_be_given_back_the_month_must_end(asker: LimitAsker, org: str):
    await give(asker, org, limit("debates", 0), plan_name="pro")
    refused = await asker.ask("reserve", {"org_id": org, "operations": [DEBATE]})
    seconds = (resets_at(datetime.now(UTC)) - datetime.now(UTC)).total_seconds()
    assert abs(int(refused.headers["Retry-After"]) - seconds) < 5
    assert refused.json()["upgrade"] == {
        "plan": "enterprise", "name": "Enterprise", "limit": None, "overage": None, "price_usd_per_month": 999,
    }  # fmt: skip


async def test_beyond_a_limit_with_an_overage_price_nobody_is_refused(asker: LimitAsker, org: str):
    await give(asker, org, limit("debates", 1, overage="0.25"), limit("debates", 1, "user", overage="0.25"))
    question = {"org_id": org, "operations": [DEBATE], "user_id": "ann"}
    reserved = [await asker.ask("reserve", question) for _ in range(3)]
    assert [answer.status_code for answer in reserved] == [201, 201, 201]
    price = {"price_usd": 0.25, "per": 1}
    names = ("limit", "used", "held", "remaining", "overage", "allowed")
    for state in reserved[-1].json()["limits"]:
        assert [state[name] for name in names] == [1, 0, 3, 0, price, True]
    _, checked = await asker.ask_on_the_bus("check", question)
    assert (checked["allowed"], checked["message"], checked["upgrade"]) == (True, None, None)
    # One that does refuse does so all the same, and a plan that charges for more is one that has more.
    await give(asker, f"{org}_both", limit("debates", 0, overage="0.25"), limit("images", 5))
    refused = await asker.ask("reserve", {"org_id": f"{org}_both", "operations": [DEBATE, DEBATE | {"images": 6}]})
    assert (refused.status_code, refused.json()["meter"]) == (429, "images")
    assert refused.json()["upgrade"] == {
        "plan": "payg", "name": "Payg", "limit": 5, "overage": {"price_usd": 0.5, "per": 1}, "price_usd_per_month": 19,
    }  # fmt: skip


async def test_the_person_who_is_short_is_told_so(asker: LimitAsker, org: str):
    await give(asker, org, limit("debates", 10), limit("debates", 1, "user"))
    question = {"org_id": org, "operations": [DEBATE], "user_id": "ann"}
    assert (await asker.ask("reserve", question)).status_code == 201
    answer = (await asker.ask("reserve", question)).json()
    assert (answer["per"], answer["user_id"]) == ("user", "ann")
    assert answer["message"].startswith("You have used 0 of 1 debates this month, and 1 more are held")
    assert answer["upgrade"]["plan"] == "starter"
    assert (await asker.ask("reserve", question | {"user_id": "bob"})).status_code == 201


async def test_release_extend_and_look(asker: LimitAsker, org: str):
    await give(asker, org, limit("debates", 1))
    question = {"org_id": org, "operations": [DEBATE], "user_id": "ann"}
    content = json.dumps(question)
    headers = {"Authorization": f"Bearer {KEYS['usage.write']}", "Idempotency-Key": "from the header"}
    reserved = await asker.platform.client.post("/api/usage/reservations", content=content, headers=headers)
    again = await asker.platform.client.post("/api/usage/reservations", content=content, headers=headers)
    assert (reserved.status_code, again.status_code) == (201, 200)
    named = reserved.json()["reservation_id"]
    assert again.json()["reservation_id"] == named
    extended = await asker.ask("extend", {"org_id": org, "reservation_id": named, "ttl_seconds": 3600})
    assert extended.status_code == 200
    assert extended.json()["expires_at"] > reserved.json()["expires_at"]
    path = f"/api/usage/reservations/{named}"
    look = await asker.platform.get(path, org_id=org)
    assert (look.json()["state"], look.json()["operations"]) == ("open", [DEBATE])
    assert (await asker.platform.get(path, org_id="org_other")).status_code == 404
    for verb in ("release", "extend"):
        foreign = {"org_id": "org_other", "reservation_id": named, "ttl_seconds": 60}
        assert (await asker.ask(verb, foreign)).status_code == 404
    for state in ("released", "released"):
        released = await asker.ask("release", {"org_id": org, "reservation_id": named})
        assert (released.status_code, released.json()["state"]) == (200, state)
    status, answer = await asker.ask_on_the_bus("extend", {"org_id": org, "reservation_id": named, "ttl_seconds": 60})
    assert (status, answer["detail"]) == (409, f"Reservation {named} is released; reserve anew.")
    conflict = await asker.platform.client.post("/api/usage/reservations", content=content, headers=headers)
    assert conflict.status_code == 409
    assert "use a new idempotency key" in conflict.json()["detail"]


async def test_people_may_only_check_for_themselves_in_their_own_organization(asker: LimitAsker, org: str):
    await give(asker, org, limit("debates", 5), limit("debates", 2, "user"))
    await give(asker, f"{org}_other", limit("debates", 7))
    ann, owner, lonely = token("ann", org), token("zoe", org, "owner"), token("ann", None)
    own = await asker.ask("check", {"operations": [DEBATE]}, key=ann)
    assert own.status_code == 200
    assert own.json()["org_id"] == org
    assert [(each["user_id"], each["limit"]) for each in own.json()["limits"]] == [(None, 5), ("ann", 2)]
    for question in ({"user_id": "ann"}, {"org_id": org}):
        assert (await asker.ask("check", question | {"operations": [DEBATE]}, key=ann)).status_code == 200
    for key in (ann, owner):
        for question in ({"user_id": "bob"}, {"org_id": f"{org}_other"}):
            refused = await asker.ask("check", question | {"operations": [DEBATE]}, key=key)
            assert refused.status_code == 403, question
    assert (await asker.ask("check", {"operations": [DEBATE]}, key=lonely)).status_code == 403
    assert (await asker.ask("check", {"operations": [DEBATE], "org_id": org}, key=lonely)).status_code == 403
    credentials: list[tuple[str | None, int]] = [(None, 401), *((key, 403) for key in (ann, owner))]
    credentials += [(KEYS[scope], 403) for scope in ("usage.read", "operator")]
    for presented, status in credentials:
        reserve = await asker.ask("reserve", {"operations": [DEBATE], "org_id": org}, key=presented)
        assert reserve.status_code == status
        for verb in ("release", "extend"):
            asked = {"org_id": org, "reservation_id": "r", "ttl_seconds": 60}
            assert (await asker.ask(verb, asked, key=presented)).status_code == status
        assert (await asker.platform.get("/api/usage/reservations/r", key=presented, org_id=org)).status_code == status
    assert (
        await asker.ask("check", {"operations": [DEBATE], "org_id": org}, key=KEYS["usage.read"])
    ).status_code == 403
