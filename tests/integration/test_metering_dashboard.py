"""What people see of their limits: on the dashboard and in the month's usage, on a running platform."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import limits
import pytest
from metering_platform import MeteringPlatform
from one_service import ALL_SCOPES, bearer, token
from usage import native

from aragora.contracts.plans import Limit, Meter

OWN, SHARED = "user", "organization"


async def read(platform: MeteringPlatform, path: str, **params: Any) -> Any:
    """The `data` of a good answer, its numbers as exact decimals."""
    answer = await platform.get(f"/api/subscription/{path}", **params)
    assert answer.status_code == 200, answer.text
    assert answer.json()["success"] is True
    return answer.json(parse_float=Decimal)["data"]


async def entitle(platform: MeteringPlatform, org: str, *given: Limit, revision: int = 1) -> None:
    entitlements = limits.entitlements(*given, revision=revision, plan="pro")
    await limits.entitle(platform.database_url, {org: entitlements}, datetime.now(UTC))


async def record(platform: MeteringPlatform, org: str, user: str, times: int = 1, **fields: Any) -> None:
    """Calls of 1,500 tokens for $0.0075 each, unless `fields` say otherwise."""
    now = datetime.now(UTC).isoformat()
    await platform.record(
        *(native(**{"org_id": org, "user_id": user, "occurred_at": now} | fields) for _ in range(times))
    )


async def reserve(platform: MeteringPlatform, org: str, user: str, *operations: dict[str, Any]) -> None:
    body = {"org_id": org, "user_id": user, "operations": operations}
    answer = await platform.client.post("/api/usage/reservations", json=body, headers=bearer(ALL_SCOPES))
    assert answer.status_code == 201, answer.text


def shown(usage: dict[str, Any]) -> list[tuple[Any, ...]]:
    names = ("meter", "per", "limit", "used", "held", "remaining", "percent")
    return [tuple(each[name] for name in names) for each in usage["limits"]]


def next_month() -> datetime:
    first = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)


async def test_the_month_shows_every_limit_and_how_near_it_is(platform: MeteringPlatform, org: str, user: str):
    await entitle(
        platform,
        org,
        limits.limit("calls:gemini", 5000),
        limits.limit("calls:openai", 3),
        limits.limit("tokens:openai", 10_000),
        limits.limit("cost_usd", "0.09"),
        limits.limit("debates", None),
        limits.limit("searches", 0),
        limits.limit("calls:openai", 10, OWN),
    )
    await record(platform, org, user)
    await record(platform, org, "somebody")
    await reserve(platform, org, user, {"provider": "openai", "model": "gpt-4o", "tokens_in": 1000, "tokens_out": 500})
    usage = await read(platform, f"usage/{user}")
    assert shown(usage) == [
        ("calls:gemini", SHARED, 5000, 0, 0, 5000, 0),
        ("calls:openai", SHARED, 3, 2, 1, 0, Decimal("66.66")),
        ("tokens:openai", SHARED, 10_000, 3000, 1500, 5500, 30),
        ("cost_usd", SHARED, Decimal("0.09"), Decimal("0.015"), Decimal("0.0075"), Decimal("0.0675"), Decimal("16.66")),
        ("debates", SHARED, None, None, None, None, None),
        ("searches", SHARED, 0, 0, 0, 0, 0),
        ("calls:openai", OWN, 10, 1, 1, 8, 10),
    ]
    assert {datetime.fromisoformat(each["resets_at"]) for each in usage["limits"]} == {next_month()}
    assert usage["usage_percentages"] == {
        "gemini_calls": 0, "openai_calls": Decimal("66.66"), "openai_tokens": 30, "cost": Decimal("16.66"),
        "searches": 0,
    }  # fmt: skip
    assert (usage["plan"], usage["usage_status"]) == ("pro", "active")
    others = await read(platform, "usage/nobody", org_id=org)
    assert shown(others)[-1] == ("calls:openai", OWN, 10, 0, 0, 10, 0)
    assert shown(others)[:-1] == shown(usage)[:-1]


async def test_the_dashboard_has_the_documented_shape(platform: MeteringPlatform, org: str, user: str):
    await entitle(
        platform,
        org,
        limits.limit("calls:gemini", 5000),
        limits.limit("calls:openai", None),
        limits.limit("cost_usd", "150.00"),
        limits.limit("debates", 10),
        limits.limit("cost_usd", "9.5", OWN),
    )
    await record(platform, org, user, times=2, provider="gemini", model="gemini-2.5-pro", cost_usd="5.25")
    await record(platform, org, user, cost_usd="5.25", provider="openai")
    page = await read(platform, f"dashboard/{user}")
    assert page.keys() == {"current_usage", "limits", "projections", "summary"}
    usage = await read(platform, f"usage/{user}")
    assert page["current_usage"] == usage
    assert usage["billing_period"] == f"{datetime.now(UTC):%Y-%m}"
    assert usage["provider_breakdown"] == {
        "gemini": {"calls": 2, "tokens": 3000, "cost": Decimal("10.5")},
        "openai": {"calls": 1, "tokens": 1500, "cost": Decimal("5.25")},
    }
    assert usage["usage_percentages"] == {"gemini_calls": Decimal("0.04"), "cost": Decimal("165.78"), "debates": 0}
    assert page["limits"] == {
        "plan": "pro",
        "plan_name": "Pro",
        "limits": {"gemini_calls": 5000, "openai_calls": None, "monthly_cost": 150, "debates": 10},
        "limits_per_user": {"monthly_cost": Decimal("9.5")},
    }
    assert page["summary"] == {
        "total_api_calls_this_month": 3,
        "total_cost_this_month": Decimal("15.75"),
        "usage_status": "limit_reached",
        "unread_alerts": None,
    }
    projected = page["projections"]["projected_monthly_cost"]
    assert Decimal("15.75") <= projected <= 31 * Decimal("15.75")
    assert page["projections"]["projected_usage_percentage"] == limits_percent(projected, 150)


def limits_percent(amount: Decimal | int, of: int) -> Decimal:
    # In JSON, an amount that is whole is an integer.
    return (Decimal(amount) * 100 / of).quantize(Decimal("0.01"), "ROUND_DOWN")


async def test_without_a_plan_there_are_no_limits(platform: MeteringPlatform, org: str, user: str):
    await record(platform, org, user)
    page = await read(platform, f"dashboard/{user}")
    usage = page["current_usage"]
    assert (usage["plan"], usage["limits"], usage["usage_percentages"]) == (None, [], {})
    assert page["limits"] == {"plan": None, "plan_name": None, "limits": {}, "limits_per_user": {}}
    assert page["projections"]["projected_usage_percentage"] is None
    assert page["projections"]["projected_monthly_cost"] >= Decimal("0.0075")
    assert page["summary"]["usage_status"] == usage["usage_status"] == "active"
    assert (await platform.get("/api/subscription/dashboard/nobody_knows")).status_code == 404


async def test_a_plan_without_limits_is_a_plan(platform: MeteringPlatform, org: str, user: str):
    await entitle(platform, org)
    page = await read(platform, f"dashboard/{user}", org_id=org)
    assert page["limits"] == {"plan": "pro", "plan_name": "Pro", "limits": {}, "limits_per_user": {}}
    assert (page["current_usage"]["plan"], page["current_usage"]["limits"]) == ("pro", [])
    assert page["summary"]["total_cost_this_month"] == page["projections"]["projected_monthly_cost"] == 0


async def test_another_month_has_no_limits(platform: MeteringPlatform, org: str, user: str):
    await entitle(platform, org, limits.limit("api_calls", 1))
    await record(platform, org, user)
    for period in ("2020-01", f"{next_month():%Y-%m}"):
        usage = await read(platform, f"usage/{user}", billing_period=period)
        found = (usage["plan"], usage["limits"], usage["usage_percentages"], usage["usage_status"])
        assert found == (None, [], {}, "active")
    now = await read(platform, f"usage/{user}", billing_period=f"{datetime.now(UTC):%Y-%m}")
    assert (now["plan"], now["usage_status"]) == ("pro", "limit_reached")


@pytest.mark.parametrize(
    ("amount", "per", "status"),
    [
        (11, SHARED, "active"), (10, SHARED, "warning"), (9, SHARED, "warning"), (8, SHARED, "limit_reached"),
        (7, SHARED, "limit_reached"), (0, SHARED, "limit_reached"), (None, SHARED, "active"), (10, OWN, "warning"),
        (8, OWN, "limit_reached"),
    ],
)  # fmt: skip
async def test_the_status_follows_the_limit_that_is_nearest(
    platform: MeteringPlatform, org: str, user: str, amount: int | None, per: str, status: str
):
    given = [limits.limit("tokens", 10**9), limits.limit("debates", 5), limits.limit("api_calls", amount, per)]
    await entitle(platform, org, *given)
    await record(platform, org, user, times=8)
    page = await read(platform, f"dashboard/{user}")
    assert page["current_usage"]["usage_status"] == page["summary"]["usage_status"] == status
    assert (await read(platform, "usage/else", org_id=org))["usage_status"] == (status if per == SHARED else "active")


async def test_a_limit_with_an_overage_price_is_no_end(platform: MeteringPlatform, org: str, user: str):
    await entitle(platform, org, limits.limit("api_calls", 1, overage="0.25"), limits.limit("tokens", 10**9))
    await record(platform, org, user, times=3)
    usage = await read(platform, f"usage/{user}")
    assert (usage["usage_status"], usage["usage_percentages"]["api_calls"]) == ("warning", 300)
    shown_prices = [(each["meter"], each["remaining"], each["overage"]) for each in usage["limits"]]
    assert shown_prices[0] == ("api_calls", 0, {"price_usd": Decimal("0.25"), "per": 1})
    assert shown_prices[1][2] is None


async def test_a_new_plan_shows_at_once(platform: MeteringPlatform, org: str, user: str):
    await entitle(platform, org, limits.limit("api_calls", 4))
    await record(platform, org, user, times=4)
    assert (await read(platform, f"usage/{user}"))["usage_status"] == "limit_reached"
    await entitle(platform, org, limits.limit("calls:openai", 400), revision=2)
    usage = await read(platform, f"usage/{user}")
    assert shown(usage) == [("calls:openai", SHARED, 400, 4, 0, 396, 1)]
    assert (usage["usage_percentages"], usage["usage_status"]) == ({"openai_calls": 1}, "active")


async def test_meters_of_ones_own_keep_their_names(platform: MeteringPlatform, org: str, user: str):
    people = limits.limit(Meter(name="active_people", aggregation="unique_users"), 4)
    largest = limits.limit(Meter(name="largest:call", aggregation="max", quantity="tokens"), 2000)
    await entitle(platform, org, people, largest)
    await record(platform, org, user)
    for name in (user, "bob"):
        await reserve(platform, org, name, {"provider": "openai", "tokens_in": 10, "tokens_out": 10})
    usage = await read(platform, f"usage/{user}")
    assert shown(usage) == [
        ("active_people", SHARED, 4, 1, 1, 2, 25),
        ("largest:call", SHARED, 2000, 1500, 0, 500, 75),
    ]
    assert usage["usage_percentages"] == {"active_people": 25, "largest:call": 75}


async def test_people_see_their_own_and_those_in_charge_see_all(platform: MeteringPlatform, org: str, user: str):
    await entitle(platform, org, limits.limit("api_calls", 10), limits.limit("api_calls", 5, OWN))
    await record(platform, org, user, times=2)
    path = f"/api/subscription/dashboard/{user}"
    for key, status in (
        (token(user, org), 200),
        (token("colleague", org), 403),
        (token("boss", org, "owner"), 200),
        (token("boss", org, "admin"), 200),
        (None, 401),
    ):
        assert (await platform.get(path, key=key)).status_code == status
    assert (await platform.get(path, key=token(user, org), org_id="org_other")).status_code == 403
    stranger = (await platform.get(path, key=token("eve", f"{org}_2", "owner"))).json()["data"]
    assert (stranger["current_usage"]["org_id"], stranger["current_usage"]["total_calls"]) == (f"{org}_2", 0)
    assert stranger["limits"]["plan"] is None
