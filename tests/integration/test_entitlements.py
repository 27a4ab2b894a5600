"""What billing says is enforced: at once, for the month as it stands, whatever comes late, twice or meanwhile."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from limits import (
    CUSTOM,
    check,
    entitle,
    entitlements,
    equal_to_log,
    happened,
    limit,
    limit_desk,
    reserve,
    standing,
)
from usage import NOON, cloudevent, message, recorder

from aragora.contracts.events import LimitReached
from metering.limit_answers import Checked, Exceeded, Reserved
from metering.log_months import open_due_month

CALL = {"provider": "openai"}
JULY = datetime(2026, 7, 1, 0, 0, 1, tzinfo=UTC)


def call(org: str, **fields: Any) -> dict[str, Any]:
    return cloudevent(org_id=org, **fields)


async def used(url: str, org: str, meter: str = "api_calls", user: str = "", month: str = "2026-06") -> Decimal | None:
    return (await standing(url, org)).get((month, meter, user), (None, None))[0]


async def held(url: str, org: str) -> dict[str, Decimal]:
    return {meter: on_hold for (_, meter, _), (_, on_hold) in (await standing(url, org)).items()}


async def thresholds(url: str, org: str) -> list[int]:
    return [event.threshold_percent for event in await happened(url, org, LimitReached)]


async def test_a_new_limit_counts_what_the_month_has_used_already(metering_database_url: str, org: str):
    url = metering_database_url
    async with recorder(url) as rec, limit_desk(url) as desk:
        await rec.record([("s", 1, message(*(call(org, user_id=f"u{n % 2}") for n in range(7))))], NOON)
        assert await standing(url, org) == {}
        await entitle(url, {org: entitlements(limit("api_calls", 8), limit("api_calls", 4, "user"))})
        assert [await used(url, org, user=who) for who in ("", "u0", "u1")] == [7, 4, 3]
        assert isinstance(await desk.ask(org, reserve(CALL, user_id="u0")), Exceeded)
        assert isinstance(await desk.ask(org, reserve(CALL, user_id="u1")), Reserved)
        assert isinstance(await desk.ask(org, reserve(CALL, user_id="u2")), Exceeded)
    await equal_to_log(url)


async def test_a_plan_change_applies_at_once_also_to_what_is_held(metering_database_url: str, org: str):
    url = metering_database_url
    await entitle(url, {org: entitlements(limit("api_calls", 10))})
    async with limit_desk(url) as desk:
        for _ in range(5):
            await desk.ask(org, reserve(CALL | {"tokens": 100}))
        lower = entitlements(limit("api_calls", 5), limit("tokens", 600), revision=2)
        await entitle(url, {org: lower})
        assert await held(url, org) == {"api_calls": 5, "tokens": 500}
        refused = await desk.ask(org, reserve(CALL | {"tokens": 100}))
        assert isinstance(refused, Exceeded)
        assert [(one.meter, one.allowed) for one in refused.limits] == [("api_calls", False), ("tokens", True)]
        await entitle(url, {org: entitlements(limit("api_calls", None), limit("tokens", 600), revision=3)})
        assert isinstance(await desk.ask(org, reserve(CALL | {"tokens": 100})), Reserved)
        assert isinstance(await desk.ask(org, reserve(CALL | {"tokens": 1})), Exceeded)
    await equal_to_log(url)


async def test_what_was_promised_stays_promised_under_a_lower_limit(metering_database_url: str, org: str):
    url = metering_database_url
    await entitle(url, {org: entitlements(limit("api_calls", 3))})
    async with limit_desk(url) as desk, recorder(url) as rec:
        answers = [await desk.ask(org, reserve(CALL)) for _ in range(3)]
        await entitle(url, {org: entitlements(limit("api_calls", 1), revision=2)})
        ids = [answer.reservation_id for answer in answers if isinstance(answer, Reserved)]
        await rec.record([("s", 1, message(*(call(org, reservation_id=one) for one in ids)))], NOON)
        assert await used(url, org) == 3
        assert await held(url, org) == {"api_calls": 0}
        assert isinstance(await desk.ask(org, reserve(CALL)), Exceeded)
    assert await thresholds(url, org) == [80, 90, 100]


async def test_an_older_revision_comes_late_and_is_ignored(metering_database_url: str, org: str):
    url = metering_database_url
    plans = [entitlements(limit("api_calls", amount), revision=amount) for amount in (1, 2, 3)]
    await entitle(url, {org: plans[1]})
    await entitle(url, {org: plans[0]})
    async with limit_desk(url) as desk:
        assert await allowance(desk, org) == 2
        await entitle(url, {org: plans[2]})
        await entitle(url, {org: plans[2]})  # delivered again
        await entitle(url, {org: plans[1]})
        assert await allowance(desk, org) == 3


async def allowance(desk: Any, org: str) -> Decimal | None:
    answer = await desk.ask(org, check(CALL))
    assert isinstance(answer, Checked)
    (only,) = answer.limits
    return only.limit


async def test_a_new_month_starts_at_zero(metering_database_url: str, org: str):
    url, clock = metering_database_url, {"now": JULY - timedelta(seconds=2)}
    await entitle(url, {org: entitlements(limit("api_calls", 1))}, clock["now"])
    async with limit_desk(url, lambda: clock["now"]) as desk, recorder(url) as rec:
        body = message(call(org, occurred_at="2026-06-30T23:59:59Z"))
        await rec.record([("s", 1, body)], clock["now"])
        refused = await desk.ask(org, reserve(CALL))
        assert isinstance(refused, Exceeded)
        assert refused.retry_after_seconds == 1
        assert refused.resets_at == datetime(2026, 7, 1, tzinfo=UTC)
        clock["now"] = JULY
        assert isinstance(await desk.ask(org, reserve(CALL)), Reserved)
        await open_due_month(rec._pool, JULY)
        late = message(call(org, occurred_at="2026-06-30T23:59:58Z"))
        await rec.record([("s", 2, late)], JULY)
    assert await used(url, org) == 2
    assert await used(url, org, month="2026-07") == 0
    await equal_to_log(url, JULY)


@pytest.mark.parametrize(
    ("meter", "expected"),
    [
        ("exports", 3),  # a count of its events
        ("people", 2),  # unique users
        ("largest", 900),  # a maximum
        ("seconds", Decimal("4.5")),  # a sum of a quantity
    ],
)
async def test_custom_meters_of_each_aggregation(metering_database_url: str, org: str, meter: str, expected: Any):
    url = metering_database_url
    seconds = limit("tokens", None).meter.model_copy(update={"name": "seconds", "quantity": "seconds"})
    found = (CUSTOM["first"] | {"seconds": seconds})[meter]
    events = [
        call(org, event_type="export", user_id="ann", seconds="1.5", tokens_in=400, tokens_out=500),
        call(org, event_type="export", user_id="bob", seconds="3", tokens_in=899, tokens_out=0),
        call(org, event_type="export", user_id=..., tokens_in=1, tokens_out=1),
        call(org, event_type="debate", user_id="ann", tokens_in=1, tokens_out=1),
    ]
    async with recorder(url) as rec, limit_desk(url) as desk:
        for amount, revision in ((expected + 1, 1), (expected, 3)):
            await rec.record([("s", 1, message(*events))], NOON)
            await entitle(url, {org: entitlements(limit(found, str(amount)), revision=revision)})
            assert await used(url, org, meter) == expected
            await entitle(url, {org: entitlements(revision=revision + 1)})
            assert await used(url, org, meter) is None
        await entitle(url, {org: entitlements(limit(found, str(expected)), revision=9)})
        asked = reserve({"meter": meter, "amount": 901}, user_id="dan")
        assert isinstance(await desk.ask(org, asked), Exceeded)
        await rec.record([("s", 1, message(call(org, event_type="export", user_id="eve", seconds="1")))], NOON)
    await equal_to_log(url)


async def test_a_meter_that_now_counts_other_usage_forgets_the_old(metering_database_url: str, org: str):
    url = metering_database_url
    async with recorder(url) as rec:
        await rec.record([("s", 1, message(call(org, event_type="export"), call(org, event_type="export")))], NOON)
        await entitle(url, {org: entitlements(limit(CUSTOM["first"]["exports"], 2))})
        assert await thresholds(url, org) == [80, 90, 100]
        await entitle(url, {org: entitlements(limit(CUSTOM["second"]["exports"], 2), revision=2)})
        assert await used(url, org, "exports") is None
        await equal_to_log(url)
        await rec.record([("s", 1, message(call(org, event_type="report"), call(org, event_type="report")))], NOON)
    assert await thresholds(url, org) == [80, 90, 100] * 2
    await equal_to_log(url)


async def test_a_lower_limit_says_what_is_reached_and_only_of_this_month(metering_database_url: str, org: str):
    url = metering_database_url
    async with recorder(url) as rec:
        may = [call(org, occurred_at="2026-05-20T00:00:00Z") for _ in range(50)]
        await rec.record([("s", 1, message(*may, *(call(org) for _ in range(17))))], NOON)
        await entitle(url, {org: entitlements(limit("api_calls", 100))})
        assert await thresholds(url, org) == []
        await entitle(url, {org: entitlements(limit("api_calls", 20), revision=2)})
        (reached,) = await happened(url, org, LimitReached)
        assert (reached.month, reached.threshold_percent, reached.used, reached.limit) == ("2026-06", 80, 17, 20)
        assert reached.resets_at == datetime(2026, 7, 1, tzinfo=UTC)
        await rec.record([("s", 1, message(call(org, occurred_at="2026-05-21T00:00:00Z")))], NOON)
        assert await thresholds(url, org) == [80]
    await equal_to_log(url)


async def test_late_usage_reaches_the_limit_of_the_month_before(metering_database_url: str, org: str):
    url = metering_database_url
    await entitle(url, {org: entitlements(limit("api_calls", 1))})
    async with recorder(url) as rec:
        await rec.record([("s", 1, message(call(org, occurred_at="2026-05-31T23:59:59Z")))], NOON)
        await rec.record([("s", 2, message(call(org, occurred_at="2026-04-30T23:59:59Z")))], NOON)
    assert [event.month for event in await happened(url, org, LimitReached)] == ["2026-05"] * 3
    assert await used(url, org, month="2026-04") is None
    await equal_to_log(url)


async def test_a_threshold_is_said_again_after_it_was_lifted_and_crossed_once_more(
    metering_database_url: str, org: str
):
    url = metering_database_url
    await entitle(url, {org: entitlements(limit("api_calls", 10))})
    async with recorder(url) as rec:
        body = message(*(call(org) for _ in range(9)))
        await rec.record([("s", 1, body)], NOON)
        assert await thresholds(url, org) == [80, 90]
        await rec.record([("s", 1, body)], NOON)  # delivered again
        await entitle(url, {org: entitlements(limit("api_calls", 10), revision=2)})
        assert await thresholds(url, org) == [80, 90]
        await entitle(url, {org: entitlements(limit("api_calls", 11), revision=3)})  # 81 %: only 90 is lifted
        await rec.record([("s", 1, message(call(org)))], NOON)
        assert await thresholds(url, org) == [80, 90, 90]
        for revision, amount in ((4, 100), (5, 12), (6, None), (7, 10)):
            await entitle(url, {org: entitlements(limit("api_calls", amount), revision=revision)})
    assert await thresholds(url, org) == [80, 90, 90, 80, 80, 90, 100]
    await equal_to_log(url)


async def test_each_threshold_is_said_once_while_four_record(metering_database_url: str, org: str):
    """With everything delivered twice, to different workers."""
    url = metering_database_url
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rnd = random.Random(seed)
    await entitle(url, {org: entitlements(limit("api_calls", 400), limit("cost_usd", "7.5"), limit("tokens", 10**6))})
    bodies = [message(*(call(org, cost_usd="0.0125") for _ in range(4))) for _ in range(150)] * 2
    rnd.shuffle(bodies)
    async with recorder(url) as rec:

        async def work() -> None:
            while bodies:
                await rec.record([("s", 1, bodies.pop())], NOON)

        await asyncio.gather(*(work() for _ in range(4)))
    said = await happened(url, org, LimitReached)
    found = [(event.meter, event.threshold_percent) for event in said]
    reached_all = [(meter, percent) for meter in ("api_calls", "cost_usd") for percent in (80, 90, 100)]
    assert sorted(found) == [*reached_all, ("tokens", 80), ("tokens", 90)]
    assert [event.used for event in said if event.meter == "api_calls"] == [320, 360, 400]
    await equal_to_log(url)


async def test_plans_change_while_usage_is_recorded(metering_database_url: str):
    """No usage falls between the old limits and the new, however they meet."""
    url = metering_database_url
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rnd = random.Random(seed)
    orgs = [f"org_{number}" for number in range(5)]
    names = ("api_calls", "tokens", "cost_usd")
    meters = [
        *(limit(name, 0).meter for name in names),
        *(meter for kind in CUSTOM.values() for meter in kind.values()),
    ]
    recorded = {"all": False}

    async def record(rec: Any) -> None:
        for _ in range(40):
            events = [
                call(rnd.choice(orgs), user_id=f"u{rnd.randrange(4)}", event_type=rnd.choice(["export", "debate"]),
                     occurred_at=(NOON - timedelta(days=rnd.choice([0, 1, 20, 40]))).isoformat())
                for _ in range(12)
            ]  # fmt: skip
            await rec.record([("s", 1, message(*events))], NOON)

    async def change(number: int) -> None:
        revision = number
        while not recorded["all"]:
            revision += 4
            chosen = {meter.name: meter for meter in rnd.sample(meters, 4)}
            limits = [limit(meter, rnd.choice([None, 0, 5, 50])) for meter in chosen.values()]
            await entitle(url, {rnd.choice(orgs): entitlements(*limits, revision=revision)})

    async with recorder(url) as rec:
        changing = [asyncio.create_task(change(number)) for number in range(2)]
        await asyncio.gather(*(record(rec) for _ in range(3)))
        recorded["all"] = True
        await asyncio.gather(*changing)
    await equal_to_log(url)
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT count(*) FROM limit_usage WHERE used > 0") > 0
    await connection.close()
