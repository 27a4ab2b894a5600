"""A month is closed once, some days after its end, and again when usage came late; what is said of it is exact."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from itertools import pairwise
from typing import Any

import asyncpg
import pytest
from limits import CUSTOM, entitle, entitlements, equal_to_log, happened, limit, plan, publish_plans
from usage import NOON, cloudevent, message, recorder

from aragora.chassis.sql import Pool
from aragora.chassis.transient import is_transient
from aragora.contracts.events import UsagePeriodClosed
from metering import erasure, periods
from metering.handlers import Recorder
from metering.periods import SESSION_SETTINGS, close_due, prepare_closing_session

JUNE_4 = datetime(2026, 6, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)
QUANTITIES = (
    "debates", "api_calls", "tokens_in", "tokens_out", "tokens_cached", "tokens_cache_write", "tokens_reasoning",
    "tokens_audio_in", "tokens_audio_out", "requests", "searches", "images", "pages", "seconds", "cost_usd",
)  # fmt: skip


@asynccontextmanager
async def closer(database_url: str) -> AsyncIterator[Pool]:
    """What a worker closes months with."""
    async with asyncpg.create_pool(
        database_url, min_size=0, max_size=1, init=prepare_closing_session, server_settings=SESSION_SETTINGS
    ) as pool:
        yield pool


async def close(database_url: str, now: datetime = JUNE_4, days: int = 3) -> int:
    async with closer(database_url) as pool:
        return await close_due(pool, now, days)


async def use(rec: Recorder, *events: dict[str, Any]) -> None:
    assert await rec.record([("usage.recorded.0", 1, message(*events))], NOON) == len(events)


async def closed(database_url: str, org: str) -> list[UsagePeriodClosed]:
    return await happened(database_url, org, UsagePeriodClosed)


async def rows(database_url: str, query: str, *args: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(database_url)
    try:
        found: list[asyncpg.Record] = await connection.fetch(query, *args)
        return found
    finally:
        await connection.close()


def call(org: str, moment: str = "2026-05-20T12:00:00Z", **fields: Any) -> dict[str, Any]:
    return cloudevent(org_id=org, occurred_at=moment, **fields)


def digest_of(events: list[dict[str, Any]]) -> str:
    """As docs/decisions/0018 has it, without SQL."""
    days: defaultdict[date, list[bytes]] = defaultdict(list)
    for event in events:
        at = event["occurred_at"].astimezone(UTC)
        said = [event["id"], f"{at:%Y-%m-%dT%H:%M:%S.%f}Z", event["event_type"], event["provider"], event["model"]]
        for name in QUANTITIES:
            amount = event[name]
            plain = amount.normalize() if isinstance(amount, Decimal) else amount
            said.append(f"{plain:f}" if isinstance(plain, Decimal) else plain)
        line = "\x1f".join("" if one is None else str(one) for one in said)
        days[at.date()].append(sha256(line.encode()).digest())
    of_days = [f"{day}".encode() + sha256(b"".join(sorted(found))).digest() for day, found in sorted(days.items())]
    return sha256(b"".join(of_days)).hexdigest()


def totals_of(events: list[dict[str, Any]]) -> dict[str, Decimal]:
    """By the built-in meters and those of `CUSTOM["first"]`."""
    found: Counter[str] = Counter()
    for event in events:
        tokens = event["tokens_in"] + event["tokens_out"]
        amounts = {"debates": event["debates"], "api_calls": event["api_calls"], "tokens": tokens}
        amounts |= {"images": event["images"], "searches": event["searches"], "cost_usd": event["cost_usd"]}
        amounts |= {"exports": int(event["event_type"] == "export")}
        if event["provider"] not in (None, "not a meter"):
            name = {"google": "gemini"}.get(event["provider"].lower(), event["provider"].lower())
            amounts |= {f"calls:{name}": event["api_calls"], f"tokens:{name}": tokens}
        found.update({meter: Decimal(amount or 0) for meter, amount in amounts.items()})
        found["largest"] = max(found["largest"], tokens)
    found["people"] = len({event["user_id"] for event in events} - {None})
    return {meter: Decimal(amount) for meter, amount in found.items() if amount}


def random_usage(rnd: random.Random, org: str, number: int) -> dict[str, Any]:
    kind: dict[str, Any] = rnd.choice([
        {"provider": "openai", "model": "gpt-4o", "tokens_in": rnd.randrange(9000)},
        {"provider": "OpenAI", "model": "gpt-4o", "cost_usd": f"0.{rnd.randrange(10**18):018d}", "seconds": "1.50"},
        {"provider": rnd.choice(["gemini", "google"]), "model": "gemini-2.5-pro", "requests": rnd.randrange(3)},
        {"provider": "acme-llm", "model": "m-1"}, {"provider": "not a meter", "model": "m"},
        {"event_type": rnd.choice(["debate", "export"]), "provider": ..., "model": ..., "tokens_out": ...},
        {"event_type": "image", "provider": "stability", "model": "sd", "images": 2, "cost_usd": "0.10"},
    ])  # fmt: skip
    moment = datetime(2026, 6, 1, tzinfo=UTC) + timedelta(milliseconds=rnd.randrange(-31 * 86_400_000, 86_400_000))
    user = rnd.choice(["ann", "bob", "cy", ...])
    return call(org, moment.isoformat(), id=f"e{number}", user_id=user, **kind)


async def test_totals_number_and_digest_are_those_of_the_same_events(metering_database_url: str):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rnd, url = random.Random(seed), metering_database_url
    events = [random_usage(rnd, f"org_{rnd.randrange(4)}", number) for number in range(800)]
    # The meters of a plan, limited or not, for everybody or for each; of an organization without one, the catalog's.
    exports, people, largest = CUSTOM["first"].values()
    mine = entitlements(limit(exports, None), limit(people, 5), limit(largest, 9, "user"), limit("cost_usd", 1))
    await publish_plans(url, plan("custom", *(limit(one, 1) for one in CUSTOM["first"].values())))
    async with recorder(url) as rec:
        await entitle(url, {"org_0": mine, "org_1": entitlements()})
        for start in range(0, len(events), 100):
            await use(rec, *events[start : start + 100])
    assert await close(url) == 4
    for org in (f"org_{number}" for number in range(4)):
        stored = await rows(
            url, f"SELECT id, occurred_at, event_type, provider, model, user_id, {', '.join(QUANTITIES)} "
            "FROM usage_events WHERE org_id = $1 AND occurred_at >= '2026-05-01+00' AND occurred_at < '2026-06-01+00'",
            org,
        )  # fmt: skip
        behind = [dict(row) for row in stored]
        (said,) = await closed(url, org)
        assert (said.month, said.sequence, said.closed_at) == ("2026-05", 1, JUNE_4)
        assert said.totals == totals_of(behind)
        assert said.events == len(behind)
        assert said.unpriced_events == sum(one["cost_usd"] is None for one in behind)
        assert said.digest == digest_of(behind)
        kept = await rows(url, "SELECT month, sequence, closed_at, digest FROM closed_periods WHERE org_id = $1", org)
        assert [tuple(row) for row in kept] == [("2026-05", 1, JUNE_4, said.digest)]
        more = {"tokens_in": behind[0]["tokens_in"] + 1}
        for changed in ({"id": "x"}, more, {"occurred_at": behind[0]["occurred_at"] + timedelta(0, 0, 1)}):
            assert digest_of([behind[0] | changed, *behind[1:]]) != said.digest
    await equal_to_log(url)


async def test_a_month_ends_in_utc_and_is_closed_some_days_later(metering_database_url: str, org: str):
    url, moments = metering_database_url, ["2026-05-31T23:59:59.999999Z", "2026-06-01T01:59:59+02:00"]
    async with recorder(url) as rec:
        await entitle(url, {"org_quiet": entitlements(limit("debates", 1))})
        await use(rec, *(call(org, moment) for moment in [*moments, "2026-06-01T00:00:00Z", "2026-04-02T00:00:00Z"]))
    assert await close(url, JUNE_4 - timedelta(microseconds=1)) == 1
    assert [one.month for one in await closed(url, org)] == ["2026-04"]
    assert await close(url, JUNE_4) == 1
    assert [(one.month, one.events) for one in await closed(url, org)] == [("2026-04", 1), ("2026-05", 2)]
    assert await close(url, datetime(2026, 7, 1, tzinfo=UTC), days=0) == 1
    assert await closed(url, "org_quiet") == []
    assert await rows(url, "SELECT org_id FROM periods_to_close") == []


async def test_late_usage_closes_the_month_once_more_and_at_most_once_an_hour(metering_database_url: str, org: str):
    url = metering_database_url
    async with recorder(url) as rec:
        await use(rec, call(org))
        assert await close(url) == 1
        assert await close(url, JUNE_4 + HOUR) == 0
        await use(rec, call(org, "2026-06-10T00:00:00Z"))
        assert await rows(url, "SELECT org_id FROM periods_to_close") == [], "that month is not closed"
        await use(rec, call(org, tokens_in=7))
        assert await close(url, JUNE_4 + HOUR) == 1
        await use(rec, call(org), call("org_new", "2019-01-31T00:00:00Z"))
        await use(rec, call(org))
        assert await close(url, JUNE_4 + HOUR * 2 - timedelta(seconds=1)) == 1
        assert [one.month for one in await closed(url, "org_new")] == ["2019-01"]
        assert await close(url, JUNE_4 + HOUR * 2) == 1
        assert await close(url, JUNE_4 + HOUR * 9) == 0
        # An older version of the worker, during an update, notes nothing: it is found when the next month is closed.
        await use(rec, call("org_new", "2019-01-31T00:00:00Z"))
        await rows(url, "DELETE FROM periods_to_close")
        assert await close(url, JUNE_4 + timedelta(days=28)) == 0
        assert await close(url, datetime(2026, 7, 4, tzinfo=UTC)) == 2
    assert [(one.month, one.sequence, one.events) for one in await closed(url, "org_new")] == [
        ("2019-01", 1, 1), ("2019-01", 2, 2),
    ]  # fmt: skip
    said = [one for one in await closed(url, org) if one.month == "2026-05"]
    assert [(one.sequence, one.events, int(one.totals["tokens"])) for one in said] == [
        (1, 1, 1500), (2, 2, 2007), (3, 4, 5007),
    ]  # fmt: skip
    assert len({one.digest for one in said}) == 3
    with pytest.raises(asyncpg.RestrictViolationError):
        await rows(url, "DELETE FROM closed_periods")


async def test_whoever_closes_and_records_meanwhile_nothing_is_said_twice_or_lost(
    metering_database_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(periods, "PERIODS_AT_ONCE", 3)
    url, orgs = metering_database_url, [f"org_{number}" for number in range(8)]
    stop = asyncio.Event()

    async def keep_closing(pool: Pool) -> None:
        now = JUNE_4
        while not stop.is_set():
            await close_due(pool, now, 3)
            now += HOUR / 2

    async with recorder(url) as rec, closer(url) as one, closer(url) as other:
        await use(rec, *(call(org) for org in orgs))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep_closing(one))
            tasks.create_task(keep_closing(other))
            for number in range(40):
                await use(rec, *(call(org) for org in orgs[number % 5 :]), call("org_0", "2026-05-01T00:00:00Z"))
            stop.set()
        await close_due(one, NOON + timedelta(days=300), 3)
    for org in orgs:
        said = [one for one in await closed(url, org) if one.month == "2026-05"]
        assert [one.sequence for one in said] == list(range(1, len(said) + 1))
        assert all(earlier.events < later.events for earlier, later in pairwise(said))
        assert all(later.closed_at - earlier.closed_at >= HOUR for earlier, later in pairwise(said))
        (stored,) = await rows(url, "SELECT events, total_tokens FROM usage_monthly WHERE org_id = $1", org)
        assert tuple(stored) == (said[-1].events, said[-1].totals["tokens"])
    await equal_to_log(url)


async def test_usage_that_comes_while_its_month_is_closed_is_late(
    metering_database_url: str, org: str, monkeypatch: pytest.MonkeyPatch
):
    url, say = metering_database_url, periods._say
    async with recorder(url) as rec:

        async def record_and_say(*said: Any) -> None:
            await use(rec, call(org))
            await say(*said)

        await use(rec, call(org))
        monkeypatch.setattr(periods, "_say", record_and_say)
        assert await close(url) == 1
        monkeypatch.setattr(periods, "_say", say)
        assert await close(url, JUNE_4 + HOUR) == 1
    assert [one.events for one in await closed(url, org)] == [1, 2]


async def test_closing_goes_on_where_it_was_killed(metering_database_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(periods, "PERIODS_AT_ONCE", 2)
    url, orgs = metering_database_url, [f"org_{number:02d}" for number in range(30)]
    async with recorder(url) as rec:
        await use(rec, *(call(org) for org in orgs))
    connection = await asyncpg.connect(url)
    kills = 0
    try:
        for _ in range(200):
            closing = asyncio.create_task(close(url))
            while kills < 20 and not closing.done():
                found = await connection.fetch(  # and waits: a session that is not yet gone turns away who comes next
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                    "WHERE application_name = 'metering-periods' AND datname = current_database() AND query LIKE $1",
                    ["%closed_periods%", "%append%", "COMMIT%", "%periods_to_close%", "%"][kills % 5],
                )
                kills += len(found)
            try:
                await closing
                break
            except Exception as error:
                if not is_transient(error):
                    raise
    finally:
        await connection.close()
    assert kills > 0
    await close(url)
    # What was killed between saying so and taking it off the list is looked at once more, an hour later.
    assert await close(url, JUNE_4 + HOUR) == 0
    said = [[(one.month, one.sequence) for one in await closed(url, org)] for org in orgs]
    assert said == [[("2026-05", 1)]] * len(orgs)
    assert await rows(url, "SELECT org_id FROM periods_to_close") == []


async def test_what_did_not_change_is_not_said_again(metering_database_url: str, org: str):
    url = metering_database_url
    async with recorder(url) as rec:
        await use(rec, call(org, user_id="ann"), call(org, user_id="bob", metadata={"name": "Ann"}))
        await entitle(url, {org: entitlements(limit(CUSTOM["first"]["people"], 5))})
        assert await close(url) == 1
        connection = await asyncpg.connect(url)
        async with connection.transaction():
            await erasure.erase(connection, "ann", [org], NOON)
        # As if the worker had died after it said so, and before it took it off the list.
        await connection.execute("INSERT INTO periods_to_close (org_id, month, noted) VALUES ($1, '2026-05', 1)", org)
        # And as if it had died before all were listed.
        await connection.execute("UPDATE closing_months SET listed_at = NULL")
        await connection.close()
        assert await close(url, JUNE_4 + HOUR) == 0
        assert await rows(url, "SELECT org_id FROM periods_to_close") == []
    (said,) = await closed(url, org)
    assert said.totals["people"] == 2
