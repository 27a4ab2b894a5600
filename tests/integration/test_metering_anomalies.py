"""A day that is not like the others is told of once: by one worker, within the hour, and whatever happens meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import asyncpg
import pytest
from limits import happened
from servers import cut, eventually
from usage import NOON, cloudevent, message, recorder

from aragora.chassis.sql import Pool
from aragora.chassis.transient import is_transient
from aragora.contracts.events import UsageAnomalySeen
from metering.anomalies import LOOK_EVERY
from metering.housekeeping import look_for_anomalies, watch_days


@pytest.fixture
async def pool(metering_database_url: str) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(metering_database_url, min_size=1, max_size=4) as opened:
        yield opened


async def use(url: str, org: str, now: datetime, costs: Sequence[int | str], requests: Sequence[int] = ()) -> None:
    """One event a day: that of `now` the last, the one of the day before the last but one, and so on. 0: none."""
    events = [
        cloudevent(
            org_id=org, cost_usd=str(cost), occurred_at=(now - timedelta(days=ago)).isoformat(),
            requests=requests[-1 - ago] if requests else 1,
        )
        for ago, cost in enumerate(reversed(costs))
        if cost
    ]  # fmt: skip
    async with recorder(url, now) as rec:
        assert await rec.record([("s", 1, message(*events))], now) == len(events)


async def seen(url: str, org: str) -> list[UsageAnomalySeen]:
    return await happened(url, org, UsageAnomalySeen)


async def test_a_day_that_costs_a_multiple_is_told_once(metering_database_url: str, pool: Pool):
    url = metering_database_url
    await use(url, "org_wild", NOON, [*[2] * 9, 200, 0, 3, 3, 50])
    await use(url, "org_calm", NOON, [*[2] * 13, 8])
    await use(url, "org_new", NOON, [*[2] * 6, 500])
    await use(url, "org_small", NOON, [*["0.01"] * 13, 5])
    assert await look_for_anomalies(pool, NOON) == 1
    (anomaly,) = await seen(url, "org_wild")
    assert anomaly.model_dump() == {
        "day": NOON.date(), "meter": "cost_usd", "used": Decimal(50), "usual": Decimal(2), "days": 12,
    }  # fmt: skip
    for later in (timedelta(minutes=59), LOOK_EVERY, 2 * LOOK_EVERY):
        assert await look_for_anomalies(pool, NOON + later) == 0
    assert [await seen(url, org) for org in ("org_calm", "org_new", "org_small")] == [[], [], []]


async def test_each_meter_and_each_day_by_itself(metering_database_url: str, pool: Pool, org: str):
    tomorrow = NOON + timedelta(days=1)
    await use(metering_database_url, org, NOON, [1] * 8, [10] * 7 + [501])
    assert await look_for_anomalies(pool, NOON) == 1
    await use(metering_database_url, org, NOON, ["1000000"])
    assert await look_for_anomalies(pool, NOON + LOOK_EVERY) == 1
    await use(metering_database_url, org, tomorrow, [6], [2004])
    assert await look_for_anomalies(pool, tomorrow) == 2
    found = {
        (one.day.day, str(one.meter), int(one.used), int(one.usual)) for one in await seen(metering_database_url, org)
    }
    assert found == {
        (15, "api_calls", 501, 10), (15, "cost_usd", 1_000_001, 1), (16, "cost_usd", 6, 1), (16, "api_calls", 2004, 10)
    }  # fmt: skip


async def test_the_last_hour_of_a_day_is_looked_at_after_it(metering_database_url: str, pool: Pool, org: str):
    last = datetime(2026, 6, 30, 23, 30, tzinfo=UTC)
    await use(metering_database_url, org, last, [2] * 20)
    assert await look_for_anomalies(pool, last) == 0
    await use(metering_database_url, org, last + timedelta(minutes=29), [100])
    assert await look_for_anomalies(pool, last + LOOK_EVERY) == 1
    assert [one.day.isoformat() for one in await seen(metering_database_url, org)] == ["2026-06-30"]


async def test_days_that_are_long_past_say_nothing_of_what_is_usual(metering_database_url: str, pool: Pool, org: str):
    await use(metering_database_url, org, NOON, [*[1] * 20, *[0] * 22, *[30] * 6, 100])
    assert await look_for_anomalies(pool, NOON) == 0, "six days are known"
    await use(metering_database_url, org, NOON - timedelta(days=7), [10])
    assert await look_for_anomalies(pool, NOON + LOOK_EVERY) == 0, "100 is not more than four times 30"


async def test_of_many_workers_one_looks(metering_database_url: str, pool: Pool, org: str):
    await use(metering_database_url, org, NOON, [*[2] * 10, 100])
    assert sorted(await asyncio.gather(*(look_for_anomalies(pool, NOON) for _ in range(8)))) == [*[0] * 7, 1]
    assert len(await seen(metering_database_url, org)) == 1


async def test_a_look_that_is_cut_short_is_done_again(metering_database_url: str, pool: Pool, org: str):
    await use(metering_database_url, org, NOON, [*[2] * 10, 100])
    async with asyncpg.create_pool(metering_database_url, min_size=1, max_size=1) as doomed:
        blocker = await asyncpg.connect(metering_database_url)
        try:
            async with blocker.transaction():
                await blocker.execute("LOCK TABLE events IN SHARE MODE")
                looking = asyncio.create_task(look_for_anomalies(doomed, NOON))
                waiting = "SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'events'::regclass"

                async def is_waiting() -> bool:
                    return await blocker.fetchval(waiting) is not None

                await eventually(is_waiting)
                assert await look_for_anomalies(pool, NOON) == 0, "somebody is at it, and nobody waits for that"
                await cut(metering_database_url, waiting)
                with pytest.raises(check=is_transient):
                    await looking
        finally:
            await blocker.close()
    assert await seen(metering_database_url, org) == []
    assert await look_for_anomalies(pool, NOON) == 1


async def test_a_worker_looks_as_soon_as_it_starts(metering_database_url: str, pool: Pool, org: str):
    await use(metering_database_url, org, datetime.now(UTC), [*[2] * 10, 100])
    stop = asyncio.Event()
    watching = asyncio.create_task(watch_days(pool, stop))
    assert len(await eventually(lambda: seen(metering_database_url, org))) == 1
    stop.set()
    await watching
