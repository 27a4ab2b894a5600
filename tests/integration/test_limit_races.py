"""Everything that touches limits at once: nobody waits in a circle, and what is left is what the log says."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from limits import (
    CUSTOM,
    check,
    entitle,
    entitlements,
    equal_to_log,
    limit,
    limit_desk,
    plan,
    publish_plans,
    reserve,
)
from usage import NOON, cloudevent, message, recorder

from aragora.contracts.limits import Extend, Release, Reserve
from metering import limit_store, refold
from metering.housekeeping import end_reservations, sweep
from metering.limit_answers import Checked, Exceeded, Reserved
from metering.reservations import Refusal

ORGS = [f"org_{number}" for number in range(6)]
USERS = ("ann", "bob", "cy")
METERS = [*(limit(name, 0).meter for name in ("api_calls", "tokens", "cost_usd")), *CUSTOM["first"].values()]


class Commotion:
    """Who does what, over and over, until enough was done."""

    def __init__(self, url: str, rnd: random.Random) -> None:
        self.url = url
        self.rnd = rnd
        self.ids: list[tuple[str, str]] = []
        self.revision = 1
        self.now = NOON

    async def reserve(self, desk: Any) -> None:
        org = self.rnd.choice(ORGS)
        operation = {"provider": "openai", "tokens": self.rnd.randrange(1, 500)}
        asked = [reserve(operation, user_id=self.rnd.choice(USERS), ttl_seconds=60) for _ in range(8)]
        for answer in await asyncio.gather(*(desk.ask(org, one) for one in asked)):
            if isinstance(answer, Reserved) and answer.reservation_id:
                self.ids.append((org, answer.reservation_id))
        await desk.ask(org, check(operation, user_id="ann"))

    async def end(self, desk: Any) -> None:
        if not self.ids:
            await self.reserve(desk)
        for _ in range(min(len(self.ids), 4)):
            org, named = self.ids.pop(self.rnd.randrange(len(self.ids)))
            doings = [Release(reservation_id=named), Extend(reservation_id=named, ttl_seconds=30)]
            with suppress(Refusal):  # it has ended meanwhile
                await desk.ask(org, self.rnd.choice(doings))

    async def use(self, recorder: Any) -> None:
        events = []
        for _ in range(self.rnd.randrange(5, 40)):
            named: Any = self.rnd.choice(self.ids) if self.ids and self.rnd.random() < 0.5 else (None, ...)
            age = timedelta(days=self.rnd.choice([0, 0, 1, 20, 40]))
            events.append(cloudevent(
                org_id=named[0] or self.rnd.choice(ORGS), user_id=self.rnd.choice(USERS), reservation_id=named[1],
                event_type=self.rnd.choice(["export", "api_call"]), occurred_at=(NOON - age).isoformat(),
            ))  # fmt: skip
        await recorder.record([("s", 1, message(*events))], self.now)

    async def change_plans(self) -> None:
        given = {}
        for org in self.rnd.sample(ORGS, 3):
            self.revision += 1
            chosen = self.rnd.sample(METERS, 4)
            limits = [limit(meter, self.rnd.choice([None, 5, 5000, 10**6])) for meter in chosen]
            given[org] = entitlements(*limits, revision=self.revision)
        await entitle(self.url, given, self.now)

    async def let_time_pass(self, pool: Any) -> None:
        self.now += timedelta(seconds=10)
        await asyncio.gather(*(end_reservations(pool, self.now) for _ in range(3)))
        await sweep(pool, self.now)

    async def rebuild(self) -> None:
        await refold.rebuild(self.url, connections=2, progress=lambda *_: None, now=self.now)

    async def keep_on(self, turns: int, doing: Callable[..., Awaitable[None]], *given: Any) -> None:
        for _ in range(turns):
            await doing(*given)


@pytest.mark.parametrize("turns", [15, pytest.param(400, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
async def test_all_at_once(metering_database_url: str, turns: int):
    url = metering_database_url
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    commotion = Commotion(url, random.Random(seed))
    await publish_plans(url, plan("custom", *(limit(meter, 1) for meter in METERS)))
    await entitle(url, {org: entitlements(limit("api_calls", 10**6)) for org in ORGS})
    async with (
        recorder(url) as rec,
        limit_desk(url, lambda: commotion.now) as one,
        limit_desk(url, lambda: commotion.now) as other,
        asyncpg.create_pool(url, min_size=3, max_size=3) as pool,
    ):
        await asyncio.gather(
            *(commotion.keep_on(turns * 2, commotion.reserve, desk) for desk in (one, one, other, other)),
            *(commotion.keep_on(turns, commotion.end, desk) for desk in (one, other)),
            *(commotion.keep_on(turns, commotion.use, rec) for _ in range(3)),
            *(commotion.keep_on(turns, commotion.change_plans) for _ in range(2)),
            commotion.keep_on(turns // 3, commotion.let_time_pass, pool),
            commotion.keep_on(turns // 5, commotion.rebuild),
        )
        assert await pool.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0
    await equal_to_log(url, commotion.now)


async def test_a_rebuild_that_has_something_to_mend_waits_for_plan_changes(metering_database_url: str):
    """Both write the organizations' months: whoever comes first finishes first."""
    url = metering_database_url
    await entitle(url, {org: entitlements(limit("api_calls", 10)) for org in ORGS})
    connection = await asyncpg.connect(url)
    async with recorder(url) as rec:
        await rec.record([("s", 1, message(*(cloudevent(org_id=org) for org in ORGS)))], NOON)
        for revision in range(2, 12):
            await connection.execute("UPDATE usage_monthly SET debates = 5; UPDATE limit_usage SET used = 99")
            await asyncio.gather(
                refold.rebuild(url, connections=1, progress=lambda *_: None, now=NOON),
                *(entitle(url, {org: entitlements(limit("api_calls", 10), revision=revision)}) for org in ORGS),
                rec.record([("s", 1, message(*(cloudevent(org_id=org) for org in ORGS)))], NOON),
            )
            await equal_to_log(url)
    await connection.close()


async def test_more_organizations_than_one_process_remembers(
    metering_database_url: str, monkeypatch: pytest.MonkeyPatch
):
    """Limits are forgotten while others are being read, and nobody gets those of another."""
    monkeypatch.setattr(limit_store.LimitCache, "MAX_ORGANIZATIONS", 3)
    orgs = {f"org_{number}": number for number in range(40)}
    allowances = {org: entitlements(limit("api_calls", number)) for org, number in orgs.items()}
    await entitle(metering_database_url, allowances)
    async with limit_desk(metering_database_url) as desk:
        for _ in range(5):
            answers = await asyncio.gather(*(desk.ask(org, check({"provider": "openai"})) for org in orgs))
            found = [answer.limits[0].limit for answer in answers if isinstance(answer, Checked)]
            assert found == list(orgs.values())


async def test_one_process_decides_in_the_order_in_which_it_was_asked(metering_database_url: str, org: str):
    await entitle(metering_database_url, {org: entitlements(limit("api_calls", 300))})
    async with limit_desk(metering_database_url) as desk:
        asked = [desk.ask(org, reserve({"provider": "openai"}, user_id=f"u{number}")) for number in range(700)]
        answers = await asyncio.gather(*asked)
    assert [type(answer) for answer in answers] == [Reserved] * 300 + [Exceeded] * 400


async def test_a_question_that_can_never_be_decided_fails_alone(metering_database_url: str, org: str):
    """Whatever passes all checks and then is more than Postgres takes: those decided with it get their answer."""
    await entitle(metering_database_url, {org: entitlements(limit("api_calls", 20))})
    good = [reserve({"provider": "openai"}, idempotency_key=f"k{number}") for number in range(20)]
    poison = Reserve(operations=good[0].operations, user_id="nul\x00")
    async with limit_desk(metering_database_url) as desk:
        asked = [*good[:7], poison, *good[7:], poison]
        answers = await asyncio.gather(*(desk.ask(org, one) for one in asked), return_exceptions=True)
        assert [isinstance(answer, Reserved) for answer in answers] == [one is not poison for one in asked]
        assert isinstance(await desk.ask(org, reserve({"provider": "openai"})), Exceeded)
