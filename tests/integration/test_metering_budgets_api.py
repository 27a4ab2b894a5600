"""Budgets over HTTP, on a running platform: made, changed, looked at, deleted; and told of within a second."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from metering_platform import MeteringPlatform
from one_service import ALL_SCOPES, bearer, checked, token
from trust import bus_client
from usage import native

from aragora.contracts.envelope import decode
from aragora.contracts.events import BudgetExceeded

PATH = "/api/usage/budgets"


async def put(platform: MeteringPlatform, org: str | None, name: str, body: Any, **more: Any) -> httpx.Response:
    key, params = more.get("key", ALL_SCOPES), {"org_id": org} if org else {}
    return checked(await platform.client.put(f"{PATH}/{name}", params=params, json=body, headers=bearer(key)))


async def delete(platform: MeteringPlatform, org: str, name: str) -> httpx.Response:
    params = {"org_id": org}
    return checked(await platform.client.delete(f"{PATH}/{name}", params=params, headers=bearer(ALL_SCOPES)))


async def spend(platform: MeteringPlatform, org: str, usd: str, user: str = "ann") -> None:
    now = datetime.now(UTC).isoformat()
    await platform.record(native(org_id=org, user_id=user, cost_usd=usd, occurred_at=now))


async def test_an_owner_sees_where_the_budgets_stand(platform: MeteringPlatform, org: str):
    owner, month = token("zoe", org, "owner"), f"{datetime.now(UTC):%Y-%m}"
    assert (await platform.get(PATH, key=owner)).json() == {"budgets": []}
    assert (await put(platform, None, "marketing", {"amount_usd": "10.50", "user_id": "ann"}, key=owner)).json() == {
        "budget_id": "marketing", "user_id": "ann", "amount_usd": "10.5", "month": month, "spent_usd": "0",
        "percent": "0", "exceeded": False,
    }  # fmt: skip
    await put(platform, org, "all", {"amount_usd": "100"})
    await put(platform, org, "nothing", {"amount_usd": "0", "user_id": "bob"})
    await spend(platform, org, "7")
    await spend(platform, org, "26.123", "bob")
    found = (await platform.get(PATH, key=owner)).json()["budgets"]
    assert [(one["budget_id"], one["spent_usd"], one["percent"], one["exceeded"]) for one in found] == [
        ("all", "33.123", "33.12", False), ("marketing", "7", "66.66", False), ("nothing", "26.123", "100", True)
    ]  # fmt: skip
    changed = (await put(platform, org, "all", {"amount_usd": "33"})).json()
    assert (changed["percent"], changed["exceeded"]) == ("100.37", True)
    assert [(await delete(platform, org, "all")).status_code for _ in range(2)] == [204, 404]
    assert [one["budget_id"] for one in (await platform.get(PATH, org_id=org)).json()["budgets"]] == [
        "marketing", "nothing"
    ]  # fmt: skip


async def test_it_is_told_within_a_second(platform: MeteringPlatform, org: str):
    async with bus_client(platform.bus_url) as listener:
        heard = await listener.subscribe(f"events.metering.BudgetExceeded.{org}")
        await listener.flush()

        async def said() -> BudgetExceeded:
            envelope, event = decode((await heard.next_msg(1)).data)
            assert envelope.subject == org
            assert isinstance(event, BudgetExceeded)
            return event

        await put(platform, org, "all", {"amount_usd": "5"})
        await platform.post([native(org_id=org, cost_usd="6", occurred_at=datetime.now(UTC).isoformat())])
        assert str((await said()).spent_usd) == "6"
        await put(platform, org, "all", {"amount_usd": "4"})
        assert str((await said()).budget_usd) == "4"
        await delete(platform, org, "all")
        await asyncio.gather(*(put(platform, org, "all", {"amount_usd": "4"}) for _ in range(5)))
        assert str((await said()).budget_usd) == "4", "a new one under the same name"
        await platform.settled()
        assert heard.pending_msgs == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "amount_usd"),
        ({"amount_usd": None}, "amount_usd"),
        ({"amount_usd": 5}, "amount_usd"),
        ({"amount_usd": "-1"}, "amount_usd"),
        ({"amount_usd": "1e3"}, "amount_usd"),
        ({"amount_usd": "NaN"}, "amount_usd"),
        ({"amount_usd": "10\n"}, "amount_usd"),
        ({"amount_usd": "1" * 13}, "amount_usd"),
        ({"amount_usd": "1", "user_id": ""}, "user_id"),
        ({"amount_usd": "1", "user_id": "a\nb"}, "user_id"),
        ({"amount_usd": "1", "limit": 1}, "limit"),
        ([], "body"),
    ],
)
async def test_a_bad_budget_is_refused(platform: MeteringPlatform, org: str, body: Any, field: str):
    answer = await put(platform, org, "all", body)
    assert answer.status_code == 422
    assert [each["field"] for each in answer.json()["errors"]] == [field]


async def test_a_bad_name_or_no_organization_is_refused(platform: MeteringPlatform, org: str):
    for name in ("Big", "-a", "a.b", "a" * 64, "ä"):
        assert (await put(platform, org, name, {"amount_usd": "1"})).status_code == 422
    assert (await put(platform, None, "all", {"amount_usd": "1"})).status_code == 422
    assert (await platform.get(PATH)).status_code == 422


async def test_fifty_are_enough(platform: MeteringPlatform, org: str):
    made = [await put(platform, org, f"b{number}", {"amount_usd": "1"}) for number in range(51)]
    assert [one.status_code for one in made] == [200] * 50 + [409]
    assert len((await platform.get(PATH, org_id=org)).json()["budgets"]) == 50
