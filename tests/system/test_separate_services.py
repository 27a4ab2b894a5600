"""Services need each other's events, never each other's presence: start them in any order, let any of them be away."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx
import pytest
from separate_services import STEPS, SeparateServices, separate_services
from servers import eventually

from aragora.contracts.ids import new_id
from standalone import supervisor

FREE_DEBATES = 10
DEBATE = {"event_type": "debate", "provider": "anthropic", "model": "claude-sonnet-4"}


async def give_plan(billing: httpx.AsyncClient, org_id: str, plan: str) -> None:
    answer = await billing.put(f"/api/subscription/organizations/{org_id}/subscription", json={"plan": plan})
    assert answer.is_success, answer.text


async def reserve(metering: httpx.AsyncClient, org_id: str) -> httpx.Response:
    body = {"org_id": org_id, "user_id": "amara", "operations": [DEBATE], "ttl_seconds": 600}
    return await metering.post("/api/usage/reservations", json=body)


async def is_known(metering: httpx.AsyncClient, org_id: str) -> bool:
    """Whether metering has heard what the organization may do."""
    answer = await metering.post("/api/usage/limits/check", json={"org_id": org_id, "operations": [DEBATE]})
    assert answer.status_code in (200, 404, 503), answer.text
    return answer.status_code == 200


async def admitted_of(metering: httpx.AsyncClient, org_id: str, attempts: int) -> int:
    """How many of so many concurrent reservations are granted; the others are refused for the limit."""
    answers = await asyncio.gather(*(reserve(metering, org_id) for _ in range(attempts)))
    assert {answer.status_code for answer in answers} <= {201, 429}, [answer.text for answer in answers]
    return sum(answer.status_code == 201 for answer in answers)


def shuffled() -> list[str]:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    order = list(STEPS)
    random.Random(seed).shuffle(order)
    return order


@pytest.fixture
async def parts() -> AsyncIterator[SeparateServices]:
    async with separate_services() as nothing_started:
        yield nothing_started


def backwards() -> list[str]:
    return list(reversed(STEPS))


@pytest.mark.parametrize("in_order", [backwards, shuffled])
async def test_started_in_any_order_they_converge(
    parts: SeparateServices, in_order: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
):
    order = in_order()
    print("order", order)
    monkeypatch.setattr(supervisor, "LONGEST_DELAY_SECONDS", 2.0)
    await parts.take(order)
    await parts.ready()
    async with parts.client("billing") as billing, parts.client("metering") as metering:
        await give_plan(billing, "acme", "free")
        await eventually(lambda: is_known(metering, "acme"), 30)
        assert await admitted_of(metering, "acme", FREE_DEBATES + 5) == FREE_DEBATES
        await usage_is_told_of(parts, metering)


async def usage_is_told_of(parts: SeparateServices, metering: httpx.AsyncClient) -> None:
    """What metering notices is heard by the notifier, which has put it up for whoever asks."""
    usage = [
        DEBATE
        | {"id": str(new_id()), "org_id": "acme", "user_id": "amara", "occurred_at": datetime.now(UTC).isoformat()}
        for _ in range(FREE_DEBATES)
    ]
    assert (await metering.post("/api/usage/events", json=usage)).status_code == 202
    connection = await asyncpg.connect(parts.database_url("notifier"))
    try:

        async def thresholds() -> set[int]:
            query = "SELECT threshold_percentage FROM usage_alerts WHERE org_id = 'acme' AND kind = 'limit.reached'"
            return {row["threshold_percentage"] for row in await connection.fetch(query)}

        async def is_told() -> bool:
            return await thresholds() == {80, 90, 100}

        await eventually(is_told, 30)
    finally:
        await connection.close()


async def test_while_billing_is_dead_entitlements_are_enforced(parts: SeparateServices):
    await parts.take(STEPS)
    await parts.ready()
    async with parts.client("billing") as billing, parts.client("metering") as metering:
        await give_plan(billing, "acme", "free")
        await eventually(lambda: is_known(metering, "acme"), 30)
        assert await admitted_of(metering, "acme", 1) == 1

        await parts.kill("billing-api")
        await parts.kill("billing-worker")
        # Metering keeps its own copy: also a new process of it knows, without asking.
        again = ("metering-api", "metering-worker")
        for name in again:
            await parts.kill(name)
            await parts.step(name)
        await parts.ready(again)
        assert await admitted_of(metering, "acme", 2 * FREE_DEBATES) == FREE_DEBATES - 1
        assert (await reserve(metering, "nobody-yet")).status_code == 404
        usage = {"id": str(new_id()), "org_id": "acme", "event_type": "debate", "occurred_at": "2026-01-15T12:00:00Z"}
        assert (await metering.post("/api/usage/events", json=usage)).status_code == 202

        await parts.step("billing-api")
        await parts.step("billing-worker")
        await parts.ready()
        await give_plan(billing, "nobody-yet", "free")
        await eventually(lambda: is_known(metering, "nobody-yet"), 30)
        assert await admitted_of(metering, "nobody-yet", 1) == 1
        # A larger plan applies at once, to what is used and held already.
        await give_plan(billing, "acme", "starter")
        await eventually(lambda: admitted_of(metering, "acme", 1), 30)
        assert await admitted_of(metering, "acme", 50) == 50 - FREE_DEBATES - 1
        await a_grace_period_runs_out(parts, billing, metering)


async def a_grace_period_runs_out(
    parts: SeparateServices, billing: httpx.AsyncClient, metering: httpx.AsyncClient
) -> None:
    """Nobody has paid for ten days but two seconds. When they are over, the free limits hold within a second."""
    await give_plan(billing, "late", "professional")
    await eventually(lambda: is_known(metering, "late"), 30)
    assert await admitted_of(metering, "late", FREE_DEBATES + 1) == FREE_DEBATES + 1
    connection = await asyncpg.connect(parts.database_url("billing"))
    try:
        await connection.execute(
            "INSERT INTO invoices (org_id, invoice_id, collected_by, status, currency, subtotal, total, amount_due, "
            "created_at, finalized_at, due_at) VALUES ('late', 'inv_late', 'operator', 'open', 'usd', 299, 299, 299, "
            "now() - interval '20 days', now() - interval '20 days', now() - interval '10 days' + interval '2 seconds')"
        )

        async def is_refused() -> bool:
            body = {"org_id": "late", "operations": [DEBATE]}
            return (await metering.post("/api/usage/limits/check", json=body)).json()["allowed"] is False

        await eventually(is_refused, 20)
        refused_at = datetime.now(UTC)
        (expired_at,) = await connection.fetch(
            "SELECT recorded_at FROM events WHERE org_id = 'late' AND type LIKE '%.GracePeriodExpired.%'"
        )
    finally:
        await connection.close()
    assert refused_at - expired_at["recorded_at"] < timedelta(seconds=1)
    plan = (await billing.get("/api/subscription/organizations/late/subscription")).json()["data"]["plan"]
    assert plan == "free"
