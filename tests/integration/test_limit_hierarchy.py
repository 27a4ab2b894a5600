"""One request, many limits: of the organization, of the person, of the provider and of cost. All are held, or none."""

import random
from collections import defaultdict
from decimal import Decimal, localcontext
from typing import Any

import pytest
from limits import Amount, check, entitle, entitlements, happened, limit, limit_desk, reserve, standing
from usage import NOON, cloudevent, message, recorder

from aragora.contracts.events import LimitReached
from aragora.contracts.limits import Release
from metering.limit_answers import Checked, Exceeded, Reserved
from metering.limit_desk import LimitDesk

CALL: dict[str, Any] = {"provider": "openai", "tokens_in": 600, "tokens_out": 400, "cost_usd": "0.25"}
LIMITS: tuple[tuple[str, str], ...] = (
    ("api_calls", "organization"),
    ("api_calls", "user"),
    ("calls:openai", "organization"),
    ("tokens:openai", "user"),
    ("cost_usd", "organization"),
    ("cost_usd", "user"),
)
ENOUGH: dict[tuple[str, str], Amount] = {
    ("api_calls", "organization"): 2,
    ("api_calls", "user"): 2,
    ("calls:openai", "organization"): 2,
    ("tokens:openai", "user"): 2000,
    ("cost_usd", "organization"): "0.5",
    ("cost_usd", "user"): "0.5",
}
TOO_LITTLE: dict[tuple[str, str], Amount] = {
    ("api_calls", "organization"): 1,
    ("api_calls", "user"): 1,
    ("calls:openai", "organization"): 1,
    ("tokens:openai", "user"): 1999,
    ("cost_usd", "organization"): "0.499999999999",
    ("cost_usd", "user"): "0.499999999999",
}


def plan(amounts: dict[tuple[str, str], Amount]) -> Any:
    return entitlements(*(limit(meter, amounts[meter, per], per) for meter, per in LIMITS))


@pytest.mark.parametrize("short", LIMITS, ids="-".join)
async def test_whichever_is_short_refuses_all_and_nothing_stays_held(
    metering_database_url: str, org: str, short: tuple[str, str]
):
    await entitle(metering_database_url, {org: plan(ENOUGH | {short: TOO_LITTLE[short]})})
    async with limit_desk(metering_database_url) as desk:
        answer = await desk.ask(org, reserve(CALL, CALL, user_id="ann"))
        assert isinstance(answer, Exceeded)
        assert (answer.meter, answer.per) == short
        assert answer.limit == Decimal(TOO_LITTLE[short] or 0)
        assert [(one.meter, one.per) for one in answer.limits if not one.allowed] == [short]
        assert len(answer.limits) == len(LIMITS)
        assert await standing(metering_database_url, org) == {}
        admitted = await desk.ask(org, reserve(CALL, user_id="ann"))
        assert isinstance(admitted, Reserved)
        held = {(one.meter, one.per): str(one.held) for one in admitted.limits}
        assert held == dict(zip(LIMITS, ("1", "1", "1", "1000", "0.25", "0.25"), strict=True))


async def test_exactly_enough_is_enough(metering_database_url: str, org: str):
    await entitle(metering_database_url, {org: plan(ENOUGH)})
    async with limit_desk(metering_database_url) as desk:
        assert isinstance(await desk.ask(org, reserve(CALL, CALL, user_id="ann")), Reserved)
        again = await desk.ask(org, check(CALL, user_id="ann"))
        assert isinstance(again, Checked)
        assert not again.allowed
        assert {one.remaining for one in again.limits} == {0}


async def test_what_is_not_known_in_advance_needs_something_left(metering_database_url: str, org: str):
    await entitle(metering_database_url, {org: entitlements(limit("tokens", 10), limit("cost_usd", "0.01"))})
    bare = {"provider": "openai"}
    async with limit_desk(metering_database_url) as desk, recorder(metering_database_url) as rec:
        for _ in range(3):
            assert isinstance(await desk.ask(org, reserve(bare)), Reserved)
        used = cloudevent(org_id=org, tokens_in=4, tokens_out=6, cost_usd="0.005")
        await rec.record([("s", 1, message(used))], NOON)
        refused = await desk.ask(org, reserve(bare))
        assert isinstance(refused, Exceeded)
        assert refused.meter == "tokens"
        assert refused.used == 10
        assert refused.requested == 0


@pytest.mark.parametrize("operation", [CALL, {"provider": "openai"}, {"meter": "tokens", "amount": 1}], ids=str)
@pytest.mark.parametrize("aggregation", ["sum", "max"])
async def test_zero_is_none_and_null_is_unlimited(
    metering_database_url: str, org: str, operation: dict[str, Any], aggregation: Any
):
    meter = limit("tokens", 0).meter.model_copy(update={"aggregation": aggregation})
    await entitle(metering_database_url, {org: entitlements(limit(meter, 0))})
    async with limit_desk(metering_database_url) as desk:
        assert isinstance(await desk.ask(org, reserve(operation)), Exceeded)
        await entitle(metering_database_url, {org: entitlements(limit(meter, None), revision=2)})
        answer = await desk.ask(org, reserve(operation))
        assert isinstance(answer, Reserved)
        assert answer.limits == []


async def test_a_provider_is_limited_under_all_of_its_names(metering_database_url: str, org: str):
    await entitle(metering_database_url, {org: entitlements(limit("calls:gemini", 3))})
    async with limit_desk(metering_database_url) as desk:
        for operation in ({"provider": "google"}, {"provider": "Gemini"}, {"meter": "calls:google", "amount": 1}):
            assert isinstance(await desk.ask(org, reserve(operation)), Reserved)
        for operation in ({"provider": "google-gemini"}, {"meter": "calls:google-gemini", "amount": 1}):
            assert isinstance(await desk.ask(org, reserve(operation)), Exceeded)
        assert isinstance(await desk.ask(org, reserve({"provider": "openai"})), Reserved)


async def test_people_do_not_use_up_each_others_limits(metering_database_url: str, org: str):
    await entitle(metering_database_url, {org: entitlements(limit("debates", 1, "user"), limit("debates", 2))})
    debate = {"event_type": "debate"}
    async with limit_desk(metering_database_url) as desk:
        for user, allowed in (("ann", True), ("ann", False), ("bob", True), ("cy", False)):
            answer = await desk.ask(org, reserve(debate, user_id=user))
            assert isinstance(answer, Reserved) == allowed
        assert isinstance(answer, Exceeded)
        assert answer.per == "organization"
        assert answer.held == 2


async def test_random_requests_against_plain_arithmetic(metering_database_url: str, org: str):
    """Each organization has other limits: that the same one is short in all twelve happens once in ten million runs."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rnd, seen = random.Random(seed), set()
    async with limit_desk(metering_database_url) as desk:
        for turn in range(12):
            seen |= await found_short(metering_database_url, desk, f"{org}_{turn}", rnd)
    assert len(seen) > 1


async def found_short(url: str, desk: LimitDesk, org: str, rnd: random.Random) -> set[tuple[str, str]]:
    """Ask fifty times at random, next to plain arithmetic. Returns the limits that were short first."""
    amounts: dict[tuple[str, str], Amount] = {
        ("api_calls", "organization"): rnd.randrange(20, 40), ("api_calls", "user"): rnd.randrange(5, 25),
        ("calls:openai", "organization"): rnd.randrange(10, 30), ("tokens:openai", "user"): rnd.randrange(3000, 9000),
        ("cost_usd", "organization"): f"{rnd.randrange(300, 900)}e-2", ("cost_usd", "user"): "4.5",
    }  # fmt: skip
    await entitle(url, {org: plan(amounts)})
    held: defaultdict[tuple[str, str], Decimal] = defaultdict(Decimal)
    open_ones: list[tuple[str, dict[tuple[str, str], Decimal]]] = []
    seen = set()
    for _ in range(50):
        if open_ones and rnd.random() < 0.2:
            reservation_id, wanted = open_ones.pop(rnd.randrange(len(open_ones)))
            await desk.ask(org, Release(reservation_id=reservation_id))
            for key, amount in wanted.items():
                held[key] -= amount
            continue
        user, operations, wanted = rnd.choice(["ann", "bob"]), [], defaultdict(Decimal)
        for _ in range(rnd.randrange(1, 4)):
            provider, tokens, cost = rnd.choice(["openai", "tavily"]), rnd.randrange(2, 900), rnd.randrange(1, 60)
            operations.append({
                "provider": provider, "tokens_in": 1, "tokens_out": tokens - 1, "cost_usd": f"0.{cost:02d}",
            })  # fmt: skip
            wanted["api_calls", ""] += 1
            wanted["api_calls", user] += 1
            wanted["cost_usd", ""] += Decimal(cost) / 100
            wanted["cost_usd", user] += Decimal(cost) / 100
            if provider == "openai":
                wanted["calls:openai", ""] += 1
                wanted["tokens:openai", user] += tokens
        short = [
            (meter, per) for meter, per in LIMITS for who in [user if per == "user" else ""]
            if (meter, who) in wanted and held[meter, who] + wanted[meter, who] > Decimal(amounts[meter, per] or 0)
        ]  # fmt: skip
        answer = await desk.ask(org, reserve(*operations, user_id=user))
        if short:
            assert isinstance(answer, Exceeded)
            assert [(one.meter, one.per) for one in answer.limits if not one.allowed] == short
            seen.add(short[0])
        else:
            assert isinstance(answer, Reserved)
            open_ones.append((answer.reservation_id or "", wanted))
            for key, amount in wanted.items():
                held[key] += amount
    found = await standing(url, org)
    assert {(meter, user): on_hold for (_, meter, user), (_, on_hold) in found.items() if on_hold} == {
        key: amount for key, amount in held.items() if amount
    }
    return seen


async def test_no_digit_is_lost_however_large_the_amounts(metering_database_url: str, org: str):
    """Python's decimals round to 28 digits unless told otherwise; the sums here have 29 and 33."""
    url, least = metering_database_url, "0.000000000000000001"
    largest_use, largest_ask, asks = "999999999999.999999999999999999", "999999999.999999999999999999", 12
    with localcontext(prec=50):
        held = Decimal(largest_ask) * asks
        allowed = Decimal(largest_use) * 900 + held
    await entitle(url, {org: entitlements(limit("cost_usd", str(allowed)))})
    async with limit_desk(url) as desk, recorder(url) as rec:
        used = (cloudevent(org_id=org, cost_usd=largest_use) for _ in range(900))
        await rec.record([("s", 1, message(*used))], NOON)
        asked = [{"meter": "cost_usd", "amount": largest_ask}] * asks
        too_much = await desk.ask(org, reserve(*asked, {"meter": "cost_usd", "amount": least}))
        assert isinstance(too_much, Exceeded)
        assert isinstance(await desk.ask(org, reserve(*asked)), Reserved)
        (found,) = (await standing(url, org)).values()
        assert found[1] == held
        assert isinstance(await desk.ask(org, reserve({"meter": "cost_usd", "amount": least})), Exceeded)
    assert [event.threshold_percent for event in await happened(url, org, LimitReached)] == [80, 90]
