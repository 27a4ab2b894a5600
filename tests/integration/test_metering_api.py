"""What people read: the documented answers, with exact money, on a running platform."""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
from metering_platform import MeteringPlatform
from one_service import token
from usage import native

EVENTS = "/api/usage/events"


async def read(platform: MeteringPlatform, path: str, **params: Any) -> Any:
    """The `data` of a good answer, its numbers as exact decimals."""
    answer = await platform.get(path, **params)
    assert answer.status_code == 200, answer.text
    content = answer.json(parse_float=Decimal)
    assert content.keys() == {"success", "data"}
    assert content["success"] is True
    return content["data"]


async def test_a_months_usage_with_the_persons_share(platform: MeteringPlatform, org: str, user: str):
    await platform.record(
        native(org_id=org, user_id=user, status=200, response_time_ms=100),
        native(org_id=org, user_id=user, provider="gemini", model="gemini-2.5-pro", tokens_in=1, tokens_out=1),
        native(org_id=org, user_id="somebody", status=500, response_time_ms=301),
        native(org_id=org, user_id="somebody", event_type="debate", provider=..., model=..., tokens_in=0, tokens_out=0),
        native(org_id=org, user_id="somebody", provider="acme", model="none", tokens_in=7),
        native(org_id=org, user_id=user, occurred_at="2026-05-31T23:59:59.999999Z"),
        native(org_id=org, user_id=user, occurred_at="2026-07-01T00:00:00Z"),
    )
    month = await read(platform, f"/api/subscription/usage/{user}", billing_period="2026-06")
    openai = {"calls": 2, "tokens": 3000, "cost": Decimal("0.015")}
    gemini = {"calls": 1, "tokens": 2, "cost": Decimal("0.00001125")}
    own = {
        "total_calls": 2, "total_tokens": 1502, "total_cost": Decimal("0.00751125"), "total_debates": 0,
        "total_events": 2, "unpriced_events": 0,
        "provider_breakdown": {"openai": {"calls": 1, "tokens": 1500, "cost": Decimal("0.0075")}, "gemini": gemini},
    }  # fmt: skip
    assert month == {
        "org_id": org, "user_id": user, "billing_period": "2026-06", "plan": None,
        "usage_status": "active", "usage_percentages": {}, "limits": [],
        "total_calls": 4, "total_tokens": 3509, "total_cost": Decimal("0.01501125"), "total_debates": 1,
        "total_events": 5, "unpriced_events": 1, "error_rate_percent": 20, "avg_response_time_ms": Decimal("200.5"),
        "provider_breakdown": {
            "openai": openai, "gemini": gemini, "acme": {"calls": 1, "tokens": 507, "cost": 0},
            "none": {"calls": 0, "tokens": 0, "cost": 0},
        },
        "user": own,
    }  # fmt: skip


async def test_a_month_without_usage_is_all_zeros(platform: MeteringPlatform, org: str):
    for period in (None, "2031-02"):
        month = await read(platform, "/api/subscription/usage/nobody", org_id=org, billing_period=period)
        assert (month["total_calls"], month["total_cost"], month["provider_breakdown"]) == (0, 0, {})
        assert month["billing_period"] == (period or f"{datetime.now(UTC):%Y-%m}")


async def test_the_organization_of_a_user_is_found_if_there_is_one(platform: MeteringPlatform, org: str, user: str):
    assert (await platform.get(f"/api/subscription/usage/{user}")).status_code == 404
    assert (await platform.get(f"/api/subscription/usage/{user}/trends")).status_code == 404
    await platform.record(native(org_id=org, user_id=user))
    assert (await read(platform, f"/api/subscription/usage/{user}"))["org_id"] == org
    await platform.record(native(org_id=f"{org}_2", user_id=user))
    answer = await platform.get(f"/api/subscription/usage/{user}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "org_id"
    assert (await read(platform, f"/api/subscription/usage/{user}", org_id=org))["org_id"] == org


async def test_a_user_id_may_hold_anything_that_a_path_can_say(platform: MeteringPlatform, org: str):
    user = f"ann+{org}@exämple.com 100%"
    await platform.record(native(org_id=org, user_id=user))
    encoded = user.replace("%", "%25").replace(" ", "%20").replace("+", "%2B")
    assert (await read(platform, f"/api/subscription/usage/{encoded}"))["user_id"] == user


async def test_trends_have_an_entry_for_every_month(platform: MeteringPlatform, org: str, user: str):
    first = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0)
    two_ago = (first - timedelta(days=32)).replace(day=1)
    await platform.record(
        native(org_id=org, user_id=user, occurred_at=first.isoformat()),
        native(org_id=org, user_id=user, occurred_at=two_ago.isoformat()),
        native(org_id=org, user_id=user, occurred_at=two_ago.isoformat(), provider="tavily", model="tavily-search",
               tokens_in=0, tokens_out=0, searches=3),
        native(org_id=org, user_id=user, occurred_at="2020-01-01T00:00:00Z"),
    )  # fmt: skip
    trends = await read(platform, f"/api/subscription/usage/{user}/trends", months=3)
    between = (first - timedelta(days=1)).replace(day=1)
    assert trends["periods"] == [f"{month:%Y-%m}" for month in (two_ago, between, first)]
    assert trends["total_calls"] == [2, 0, 1]
    assert trends["total_tokens"] == [1500, 0, 1500]
    assert trends["total_cost"] == [Decimal("0.0105"), 0, Decimal("0.0075")]
    assert trends["provider_trends"]["tavily"] == {
        "calls": [1, 0, 0],
        "tokens": [0] * 3,
        "cost": [Decimal("0.003"), 0, 0],
    }
    assert len((await read(platform, f"/api/subscription/usage/{user}/trends"))["periods"]) == 6
    for months in (0, 37, "x"):
        assert (await platform.get(f"/api/subscription/usage/{user}/trends", months=months)).status_code == 422


async def test_pricing_has_the_documented_prices(platform: MeteringPlatform):
    prices = await read(platform, "/api/subscription/pricing")
    stated = {(each["provider"], each["model_name"]): each for each in prices}
    for provider, model, per_input, per_output in (
        ("gemini", "gemini-2.0-flash-lite", "0.000000075", "0.0000003"),
        ("gemini", "gemini-2.5-flash", "0.000000125", "0.000000375"),
        ("gemini", "gemini-2.5-pro", "0.00000125", "0.00001"),
        ("anthropic", "claude-opus-4", "0.000015", "0.000075"),
        ("openai", "gpt-4o", "0.0000025", "0.00001"),
    ):
        price = stated[provider, model]
        assert Decimal(price["cost_per_input_token"]) == Decimal(per_input)
        assert Decimal(price["cost_per_output_token"]) == Decimal(per_output)
        assert price["cost_per_search"] is None
    for model, per_search in (("tavily", "0.001"), ("serper", "0.001"), ("metaphor", "0.003")):
        assert stated[model, f"{model}-search"]["cost_per_search"] == Decimal(per_search)
    only = await read(platform, "/api/subscription/pricing", provider="OpenAI")
    assert {each["provider"] for each in only} == {"openai"}
    assert await read(platform, "/api/subscription/pricing", provider="nobody") == []


async def test_a_summary_and_its_cuts(platform: MeteringPlatform, org: str):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rnd = random.Random(seed)
    prices = {"gpt-4o": ("2.50", "10.00"), "gpt-4o-mini": ("0.15", "0.60")}
    events = [
        native(
            org_id=org, user_id=rnd.choice(["ann", "bob", ...]), model=rnd.choice(list(prices)),
            event_type=rnd.choice(["debate", "api_call"]), tokens_in=rnd.randrange(10**6),
            occurred_at=f"2026-0{rnd.choice([2, 3])}-{rnd.randrange(1, 29):02d}T23:59:59Z",
        )
        for _ in range(500)
    ]  # fmt: skip
    await platform.record(*events)

    def cost(chosen: list[dict[str, Any]]) -> Decimal:
        return sum(
            (each["tokens_in"] * Decimal(prices[each["model"]][0]) + 500 * Decimal(prices[each["model"]][1])) / 10**6
            for each in chosen
        ) or Decimal(0)  # fmt: skip

    path = f"/api/usage/organizations/{org}/summary"
    for start, end in (
        (None, None),
        ("2026-02-10", "2026-03-09"),
        ("2026-03-09", "2026-03-09"),
        ("2027-01-01", "2027-02-01"),
    ):
        chosen = [
            each for each in events if (start or "0") <= each["occurred_at"][:10] <= (end or "9")
        ]  # fmt: skip
        summary = await read(platform, path, start=start, end=end)
        assert summary["total_events"] == len(chosen)
        assert summary["total_debates"] == sum(each["event_type"] == "debate" for each in chosen)
        assert summary["total_tokens"] == sum(each["tokens_in"] + 500 for each in chosen)
        assert Decimal(summary["total_cost"]) == cost(chosen)
        assert isinstance(summary["total_cost"], str)
        for cut, name in (
            ("by_user", lambda each: each.get("user_id", "none")), ("by_event_type", lambda each: each["event_type"]),
            ("by_day", lambda each: each["occurred_at"][:10]), ("by_provider", lambda each: each["provider"]),
        ):  # fmt: skip
            groups: dict[str, list[dict[str, Any]]] = {}
            for each in chosen:
                groups.setdefault(name(each), []).append(each)
            assert {key: (sums["events"], Decimal(sums["cost_usd"])) for key, sums in summary[cut].items()} == {
                key: (len(group), cost(group)) for key, group in groups.items()
            }
        models = summary["by_model"].get("openai", {})
        assert sum(sums["tokens_in"] for sums in models.values()) == sum(each["tokens_in"] for each in chosen)


async def test_ranges_that_make_no_sense(platform: MeteringPlatform, org: str):
    path = f"/api/usage/organizations/{org}/summary"
    assert (await platform.get(path, start="2026-02-02", end="2026-02-01")).status_code == 422
    for moment in ("yesterday", "2026-02-30", "2026-02-01T00:00:00", "10000-01-01", "", "2026-1-1"):
        answer = await platform.get(path, start=moment)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "start"), moment
        assert (await platform.get(EVENTS, org_id=org, end=moment)).status_code == 422
    for moment in ("0001-01-01", "9999-12-31", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        for parameter in ("start", "end"):
            assert (await platform.get(path, **{parameter: moment})).status_code in {200, 422}
            assert (await platform.get(EVENTS, org_id=org, **{parameter: moment})).status_code in {200, 422}
    for period in ("2026-13", "2026-00", "26-01", "2026-01\n", "x"):
        answer = await platform.get("/api/subscription/usage/x", org_id=org, billing_period=period)
        assert answer.status_code == 422


async def test_the_months_that_are_closed(platform: MeteringPlatform, org: str):
    closed = [
        ("2026-06", 1, '{"debates": "3"}', 3, 1),
        ("2026-07", 1, "{}", 1, 1),
        ("2026-07", 2, '{"cost_usd": "0.24"}', 2, 0),
    ]
    connection = await asyncpg.connect(platform.database_url)
    for whose in (org, f"{org}_other"):
        await connection.executemany(
            "INSERT INTO closed_periods (org_id, month, sequence, closed_at, totals, events, unpriced_events, digest)"
            " VALUES ($1, $2, $3, '2026-08-04T00:00:00Z', $4, $5, $6, 'd')",
            [(whose, *period) for period in closed],
        )
    await connection.close()
    answer = await platform.get("/api/usage/periods", org_id=org)
    assert answer.status_code == 200, answer.text
    both = {"closed_at": "2026-08-04T00:00:00Z", "digest": "d"}
    july = both | {
        "month": "2026-07", "sequence": 2, "totals": {"cost_usd": "0.24"}, "events": 2, "unpriced_events": 0,
    }  # fmt: skip
    june = both | {"month": "2026-06", "sequence": 1, "totals": {"debates": "3"}, "events": 3, "unpriced_events": 1}
    assert answer.json() == {"periods": [july, june]}
    assert (await platform.get("/api/usage/periods", org_id=org, limit=1)).json() == {"periods": [july]}
    assert (await platform.get("/api/usage/periods", org_id=f"{org}x")).json() == {"periods": []}
    assert (await platform.get("/api/usage/periods", org_id=org, limit=0)).status_code == 422
    assert (await platform.get("/api/usage/periods", key=token("ann", org))).json() == {"periods": [july, june]}
