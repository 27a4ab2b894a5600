"""How reservations end: by usage, by word, by time. What has ended holds nothing, and nothing can be done with it."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from limits import check, entitle, entitlements, equal_to_log, happened, limit, limit_desk, reserve, standing
from usage import NOON, cloudevent, message, recorder

from aragora.contracts.events import ReservationExpired
from aragora.contracts.limits import Extend, Release
from metering import limit_store
from metering.housekeeping import end_reservations, sweep
from metering.limit_answers import Checked, Ended, Exceeded, Reserved
from metering.limit_desk import LimitDesk
from metering.log_months import open_due_month
from metering.reservations import KeyReused, ReservationEnded, UnknownReservation

CALL = {"provider": "openai"}


class Clock:
    """The time of the test."""

    now = NOON

    def __call__(self) -> datetime:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def hold(desk: LimitDesk, org: str, *operations: Any, **more: Any) -> str:
    answer = await desk.ask(org, reserve(*(operations or (CALL,)), **more))
    assert isinstance(answer, Reserved), answer
    assert answer.reservation_id is not None
    return answer.reservation_id


async def held(url: str, org: str, meter: str = "api_calls", month: str = "2026-06") -> int:
    return int((await standing(url, org)).get((month, meter, ""), (0, 0))[1])


async def used(url: str, org: str, meter: str = "api_calls", month: str = "2026-06") -> int:
    return int((await standing(url, org)).get((month, meter, ""), (0, 0))[0])


async def settle(url: str, now: datetime, *events: dict[str, Any]) -> None:
    async with recorder(url, now) as rec:
        assert await rec.record([("s", 1, message(*events))], now) == len(events)


async def test_usage_settles_whatever_it_used(metering_database_url: str, org: str):
    url = metering_database_url
    await entitle(url, {org: entitlements(limit("tokens", 1000), limit("api_calls", 100))})
    async with limit_desk(url) as desk:
        for tokens, total in ((100, 100), (300, 400), (700, 1100)):  # less than held, as much, more
            asked = reserve(CALL | {"tokens": 300})
            answer = await desk.ask(org, asked)
            assert isinstance(answer, Reserved)
            event = cloudevent(org_id=org, tokens_in=tokens, tokens_out=0, reservation_id=answer.reservation_id)
            await settle(url, NOON, event)
            assert (await used(url, org, "tokens"), await held(url, org, "tokens")) == (total, 0)
        assert isinstance(await desk.ask(org, asked), Exceeded)
    await equal_to_log(url)


@pytest.mark.parametrize("ended", ["settled", "released", "expired", "foreign", "unknown"])
async def test_usage_that_names_no_open_reservation_of_its_own_is_recorded_and_nothing_else(
    metering_database_url: str, org: str, clock: Clock, ended: str
):
    url, other = metering_database_url, f"{org}_other"
    await entitle(url, {one: entitlements(limit("api_calls", 9)) for one in (org, other)})
    async with limit_desk(url, clock) as desk:
        named = await hold(desk, other if ended == "foreign" else org, ttl_seconds=10)
        if ended == "settled":
            await settle(url, clock.now, cloudevent(org_id=org, reservation_id=named))
        elif ended == "released":
            assert isinstance(await desk.ask(org, Release(reservation_id=named)), Ended)
        elif ended == "expired":
            clock.pass_seconds(10)
            assert isinstance(await desk.ask(org, check(CALL)), Checked)
        await hold(desk, org)
    before = await rows(url)
    counted = await used(url, org)
    await settle(url, clock.now, cloudevent(org_id=org, reservation_id="unknown" if ended == "unknown" else named))
    assert await used(url, org) == counted + 1
    assert await rows(url) == before
    await equal_to_log(url)


async def rows(url: str) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        held = await connection.fetch("SELECT org_id, meter, user_id, held FROM limit_holds ORDER BY 1, 2, 3")
        return [
            *held,
            *await connection.fetch("SELECT org_id, id, state, ended_at, settled_by FROM reservations ORDER BY 2"),
        ]
    finally:
        await connection.close()


@pytest.mark.parametrize("ended", ["settled", "released", "expired"])
async def test_nothing_can_be_done_with_what_has_ended(metering_database_url: str, org: str, clock: Clock, ended: str):
    url = metering_database_url
    await entitle(url, {org: entitlements(limit("api_calls", 9))})
    async with limit_desk(url, clock) as desk:
        named = await hold(desk, org, idempotency_key="k", ttl_seconds=10)
        if ended == "settled":
            await settle(url, clock.now, cloudevent(org_id=org, reservation_id=named))
        elif ended == "released":
            await desk.ask(org, Release(reservation_id=named))
            assert isinstance(await desk.ask(org, Release(reservation_id=named)), Ended)
        else:
            clock.pass_seconds(10)
        with pytest.raises(ReservationEnded, match=ended):
            await desk.ask(org, reserve(CALL, idempotency_key="k", ttl_seconds=10))
        with pytest.raises(ReservationEnded, match=ended):
            await desk.ask(org, Extend(reservation_id=named, ttl_seconds=60))
        if ended != "released":
            with pytest.raises(ReservationEnded, match=ended):
                await desk.ask(org, Release(reservation_id=named))
        assert await held(url, org) == 0


async def test_the_same_key_is_the_same_reservation_and_no_other_body(metering_database_url: str, org: str):
    url = metering_database_url
    await entitle(url, {org: entitlements(limit("api_calls", 1))})
    body = reserve(CALL, idempotency_key="k", user_id="ann")
    async with limit_desk(url) as one, limit_desk(url) as other:
        answers = await asyncio.gather(*(desk.ask(org, body) for desk in [one, other] * 20))
        assert sum(isinstance(answer, Reserved) and answer.is_new for answer in answers) == 1
        assert len({answer.reservation_id for answer in answers if isinstance(answer, Reserved)}) == 1
        assert await held(url, org) == 1
        for changed in ({"user_id": "bob"}, {"ttl_seconds": 61}, {}):
            operation = CALL if changed else CALL | {"requests": 1}
            with pytest.raises(KeyReused):
                await one.ask(org, reserve(operation, **{"idempotency_key": "k", "user_id": "ann"} | changed))
        await entitle(url, {f"{org}_b": entitlements(limit("api_calls", 1))})
        await hold(one, f"{org}_b", idempotency_key="k")  # a key is an organization's own


async def test_a_hold_past_its_time_does_not_count_at_the_next_decision(
    metering_database_url: str, org: str, clock: Clock
):
    url = metering_database_url
    await entitle(url, {org: entitlements(limit("api_calls", 2))})
    async with limit_desk(url, clock) as desk:
        first, second = await hold(desk, org, ttl_seconds=10), await hold(desk, org, ttl_seconds=20)
        refused = await desk.ask(org, reserve(CALL))
        assert isinstance(refused, Exceeded)
        assert refused.retry_after_seconds == 10
        await desk.ask(org, Extend(reservation_id=first, ttl_seconds=30))
        clock.pass_seconds(20)
        checked = await desk.ask(org, check(CALL))
        assert isinstance(checked, Checked)
        assert checked.allowed
        await hold(desk, org)
        assert isinstance(await desk.ask(org, reserve(CALL)), Exceeded)
    (expired,) = await happened(url, org, ReservationExpired)
    assert expired.reservation_id == second
    assert (expired.reserved_at, expired.expired_at) == (NOON, NOON + timedelta(seconds=20))
    assert expired.held == {"api_calls": 1}
    await equal_to_log(url)


async def test_thousands_that_end_together_all_give_back_at_once(metering_database_url: str, org: str, clock: Clock):
    url, many = metering_database_url, limit_store.EXPIRE_AT_ONCE * 2 + 1
    await entitle(url, {org: entitlements(limit("api_calls", many))})
    async with limit_desk(url, clock) as desk:
        asked = [desk.ask(org, reserve(CALL, ttl_seconds=10)) for _ in range(many)]
        assert all(isinstance(answer, Reserved) for answer in await asyncio.gather(*asked))
        clock.pass_seconds(10)
        await hold(desk, org, CALL | {"requests": many})
    assert len(await happened(url, org, ReservationExpired)) == many


async def test_several_sweepers_end_each_reservation_once(metering_database_url: str, org: str, clock: Clock):
    url = metering_database_url
    orgs = [f"{org}_{number}" for number in range(20)]
    await entitle(url, {one: entitlements(limit("api_calls", 50)) for one in orgs})
    async with limit_desk(url, clock) as desk, asyncpg.create_pool(url, min_size=4, max_size=4) as pool:
        ids = await asyncio.gather(*(hold(desk, one, ttl_seconds=10) for one in orgs for _ in range(30)))
        clock.pass_seconds(10)
        await asyncio.gather(*(end_reservations(pool, clock.now) for _ in range(4)))
        expired = [event.reservation_id for one in orgs for event in await happened(url, one, ReservationExpired)]
        assert sorted(expired) == sorted(ids)
        await settle(url, clock.now, cloudevent(org_id=orgs[0], reservation_id=ids[0]))  # late
        assert (await used(url, orgs[0]), await held(url, orgs[0])) == (1, 0)
        clock.pass_seconds(24 * 3600)
        await sweep(pool, clock.now)  # ended exactly a day ago
        with pytest.raises(ReservationEnded):
            await desk.ask(orgs[0], Extend(reservation_id=ids[0], ttl_seconds=1))
        clock.pass_seconds(1)
        await asyncio.gather(*(sweep(pool, clock.now) for _ in range(4)))
        with pytest.raises(UnknownReservation, match="forgotten"):
            await desk.ask(orgs[0], Extend(reservation_id=ids[0], ttl_seconds=1))
        await equal_to_log(url, clock.now)


async def test_a_reservation_over_the_end_of_the_month(metering_database_url: str, org: str, clock: Clock):
    url = metering_database_url
    clock.now = july = datetime(2026, 7, 1, tzinfo=UTC)
    clock.pass_seconds(-5)
    await entitle(url, {org: entitlements(limit("api_calls", 2))}, clock.now)
    async with limit_desk(url, clock) as desk, recorder(url, clock.now) as rec:
        ids = [await hold(desk, org), await hold(desk, org)]
        assert isinstance(await desk.ask(org, reserve(CALL)), Exceeded)
        clock.now = july + timedelta(seconds=5)
        more = [await hold(desk, org), await hold(desk, org)]
        assert isinstance(await desk.ask(org, reserve(CALL)), Exceeded)
        assert (await held(url, org), await held(url, org, month="2026-07")) == (2, 2)
        await open_due_month(rec._pool, clock.now)
        event = cloudevent(org_id=org, reservation_id=ids[0], occurred_at=clock.now.isoformat())
        await rec.record([("s", 1, message(event))], clock.now)
        assert (await held(url, org), await held(url, org, month="2026-07")) == (1, 2)
        assert (await used(url, org), await used(url, org, month="2026-07")) == (0, 1)
        await desk.ask(org, Release(reservation_id=ids[1]))
        await desk.ask(org, Release(reservation_id=more[0]))
        assert (await held(url, org), await held(url, org, month="2026-07")) == (0, 1)
        assert isinstance(await desk.ask(org, reserve(CALL)), Exceeded)
        await desk.ask(org, Release(reservation_id=more[1]))
        await hold(desk, org)
    await equal_to_log(url, clock.now)
