"""Erasing a person: nothing in the database names them any more, and every total is what it was."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from limits import PEOPLE, entitle, entitlements, equal_to_log, limit, limit_desk, reserve, standing
from metering_platform import MeteringPlatform
from servers import eventually
from trust import bus_client, say
from usage import NOON, cloudevent, message, native, recorder

from aragora.chassis.migrate import apply, migrate, migrations_of
from aragora.contracts.events import PLATFORM, UserErased
from aragora.contracts.ids import new_id
from aragora.contracts.limits import Release
from metering import erasure, housekeeping
from metering.limit_answers import Exceeded, Reserved
from metering.log_months import open_due_month

DEBATE = {"event_type": "debate"}
PLAN = entitlements(
    limit("debates", 100), limit("debates", 5, "user"), limit(PEOPLE, 3), limit("cost_usd", "9", "user")
)
TEXT_COLUMNS = """
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = 'public' AND data_type IN ('text', 'jsonb', 'bytea') AND table_name <> ALL ('{events}')
    AND table_name IN (SELECT tablename FROM pg_tables WHERE schemaname = 'public')
"""
TOTALS = """
SELECT sum(events) AS events, sum(debates) AS debates, sum(tokens_in) AS tokens, sum(cost_usd) AS cost,
       count(DISTINCT user_id) AS people
FROM usage_daily WHERE org_id = $1
"""


@pytest.fixture
async def database(metering_database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(metering_database_url)
    yield connection
    await connection.close()


@pytest.fixture
def ann() -> str:
    """An id that JSON writes in more than one way."""
    return f'anné "{new_id().hex}'


async def erase(connection: Any, user_id: str, *org_ids: str, now: Any = NOON) -> None:
    async with connection.transaction():
        await erasure.erase(connection, user_id, org_ids, now)


async def places_that_name(connection: Any, user_id: str) -> set[str]:
    """Every table and column that has the id in it somewhere; published events aside."""
    plain, escaped = json.dumps(user_id, ensure_ascii=False)[1:-1], json.dumps(user_id)[1:-1]
    found = set()
    for table, column in await connection.fetch(TEXT_COLUMNS):
        texts = [
            str(row[0]) for row in await connection.fetch(f'SELECT "{column}" FROM "{table}"') if row[0] is not None
        ]
        if any(
            spelling in text for spelling in (user_id, plain, escaped, repr(plain.encode())[2:-1]) for text in texts
        ):
            found.add(f"{table}.{column}")
    return found


async def use(url: str, org: str, *users: str, now: Any = NOON, **fields: Any) -> list[dict[str, Any]]:
    events = [
        cloudevent(org_id=org, user_id=user, **{"endpoint": f"/of/{user}", "metadata": {"who": user}, **fields})
        for user in users
    ]
    async with recorder(url, now) as rec:
        await rec.record([("s", 1, message(*events))], now)
    return events


async def test_nothing_names_the_person_and_the_totals_stay(
    metering_database_url: str, database: Any, org: str, ann: str
):
    url, other_org = metering_database_url, f"org_{new_id().hex}"
    await entitle(url, {org: PLAN, other_org: PLAN})
    for each in (org, other_org):
        await use(url, each, ann, ann, "bob", **DEBATE)
        await use(url, each, ann, id="bad", tokens_in=-1)
        async with limit_desk(url) as desk:
            for user in (ann, "bob"):
                assert isinstance(await desk.ask(each, reserve(DEBATE, user_id=user, idempotency_key=user)), Reserved)
    async with recorder(url) as rec:
        await rec.record([("s", 2, b"[" + json.dumps({"of": org, "user": ann}).encode())], NOON)
    before = {each: await database.fetchrow(TOTALS, each) for each in (org, other_org)}
    stood = sorted((meter, counts) for (_, meter, _), counts in (await standing(url, org)).items())
    named = await places_that_name(database, ann)
    assert {place.split(".")[0] for place in named} >= {
        "usage_daily", "limit_usage", "limit_users", "limit_holds", "reservations", "dead_letters",
    }, named  # fmt: skip

    await erase(database, ann, org)

    assert (
        await database.fetchval("SELECT count(*) FROM usage_events WHERE org_id = $1 AND user_id = $2", org, ann) == 0
    )
    assert await database.fetchval("SELECT count(*) FROM usage_events WHERE user_id = $1", ann) == 2
    await erase(database, ann, other_org)
    assert await places_that_name(database, ann) == set()
    assert {each: await database.fetchrow(TOTALS, each) for each in (org, other_org)} == before
    assert sorted((meter, counts) for (_, meter, _), counts in (await standing(url, org)).items()) == stood
    await equal_to_log(url)
    kept = await database.fetch("SELECT user_id, endpoint, metadata FROM usage_events WHERE org_id = $1", org)
    pseudonyms = {row["user_id"] for row in kept} - {"bob"}
    assert [len(pseudonyms), *(one.startswith("erased-") for one in pseudonyms)] == [1, True]
    assert [row["endpoint"] for row in kept if row["user_id"] == "bob"] == ["/of/bob"]
    assert all(row["endpoint"] is row["metadata"] is None for row in kept if row["user_id"] != "bob")
    assert (
        await database.fetchval("SELECT count(DISTINCT user_id) FROM usage_events WHERE user_id LIKE 'erased-%'") == 2
    )


async def test_what_arrives_late_goes_under_the_same_pseudonym(
    metering_database_url: str, database: Any, org: str, ann: str
):
    url = metering_database_url
    await entitle(url, {org: PLAN})
    (recorded, *_) = await use(url, org, ann, ann, ann, "bob", **DEBATE)
    await erase(database, ann, org)
    async with recorder(url) as rec:
        assert await rec.record([("s", 2, message(recorded))], NOON) == 0, "a repeat is still known as one"
    await use(url, org, ann, "bob", **DEBATE)
    assert await places_that_name(database, ann) == set()
    rows = await database.fetch("SELECT user_id, sum(debates) AS n FROM usage_daily GROUP BY user_id ORDER BY user_id")
    assert [(row["user_id"][:7], row["n"]) for row in rows] == [("bob", 2), ("erased-", 4)]
    uses = await database.fetch("SELECT user_id, used FROM limit_usage WHERE meter = 'debates' ORDER BY used")
    assert [(row["user_id"][:7], row["used"]) for row in uses] == [("bob", 2), ("erased-", 4), ("", 6)]
    assert await database.fetchval("SELECT used FROM limit_usage WHERE meter = 'people'") == 2
    await equal_to_log(url)


async def test_told_twice_it_is_done_once(metering_database_url: str, database: Any, org: str, ann: str):
    await entitle(metering_database_url, {org: PLAN})
    await use(metering_database_url, org, ann, "bob", **DEBATE)
    for _ in range(3):
        await erase(database, ann, org, "org_that_nobody_knows")
        await use(metering_database_url, org, ann, **DEBATE)
    assert await places_that_name(database, ann) == set()
    assert await database.fetchval("SELECT used FROM limit_usage WHERE meter = 'debates' AND user_id = ''") == 5
    await equal_to_log(metering_database_url)


async def test_what_is_held_can_still_be_given_back(metering_database_url: str, database: Any, org: str, ann: str):
    url = metering_database_url
    await entitle(url, {org: PLAN})
    async with limit_desk(url) as desk:
        held = [await desk.ask(org, reserve(DEBATE, DEBATE, user_id=ann)) for _ in range(2)]
        assert [type(one) for one in held] == [Reserved, Reserved]
        await erase(database, ann, org)
        first, second = (one.reservation_id or "" for one in held if isinstance(one, Reserved))
        await desk.ask(org, Release(reservation_id=first))
        await use(url, org, ann, reservation_id=second, **DEBATE)
        assert isinstance(await desk.ask(org, reserve(*[DEBATE] * 5, user_id="bob")), Reserved)
    held_now = await database.fetch("SELECT user_id, held FROM limit_holds WHERE meter = 'debates' AND held > 0")
    assert {(row["user_id"], row["held"]) for row in held_now} == {("", 5), ("bob", 5)}
    await equal_to_log(url)


async def test_the_log_stays_append_only(metering_database_url: str, database: Any, org: str, ann: str):
    await use(metering_database_url, org, ann)
    async with asyncpg.create_pool(metering_database_url, min_size=1, max_size=1) as pool:
        await open_due_month(pool, NOON + timedelta(days=90))
    await erase(database, ann, org)
    tables = await database.fetch("SELECT tablename FROM pg_tables WHERE tablename LIKE 'usage_events%'")
    assert len(tables) >= 4
    always = ("UPDATE {} SET tokens_in = 0", "UPDATE {} SET user_id = NULL, id = 'x'", "DELETE FROM {}", "TRUNCATE {}")
    for setting, statements in (("off", (*always, "UPDATE {} SET user_id = 'x'")), ("on", always)):
        await database.execute(f"SET aragora.erasing = '{setting}'")
        for (table,) in tables:
            for statement in statements:
                with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
                    await database.execute(statement.format(table))


async def test_partitions_from_before_are_open_to_erasing_too(empty_database_url: str, org: str, ann: str):
    connection = await asyncpg.connect(empty_database_url)
    try:
        await migrate(connection)
        before = [one for one in migrations_of("metering") if one.version < 3]
        await apply(connection, "metering", before)
        await connection.execute("SELECT make_usage_partition('2026-06-01')")
        await connection.execute("INSERT INTO usage_log_months (log_month) VALUES ('2026-06-01')")
        assert (await migrate(connection, "metering"))[0] == "metering/0003_erasure.sql"
        await use(empty_database_url, org, ann)
        await erase(connection, ann, org)
        assert await places_that_name(connection, ann) == set()
        with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
            await connection.execute("UPDATE usage_events_2026_06 SET user_id = 'x'")
    finally:
        await connection.close()


async def test_erasing_while_everybody_is_busy(metering_database_url: str, database: Any, org: str, ann: str):
    url, chunks = metering_database_url, 30
    await entitle(url, {org: PLAN})
    async with recorder(url) as rec, limit_desk(url) as desk, asyncpg.create_pool(url, min_size=3, max_size=3) as pool:

        async def record(number: int) -> None:
            events = (cloudevent(org_id=org, user_id=user, **DEBATE) for user in (ann, "bob", ann))
            await rec.record([("s", number, message(*events))], NOON)

        async def ask() -> None:
            for _ in range(20):
                assert isinstance(await desk.ask(org, reserve(DEBATE, user_id=ann)), Reserved | Exceeded)

        async def erase_alone() -> None:
            async with pool.acquire() as connection:
                await erase(connection, ann, org)

        recording = [record(number) for number in range(chunks)]
        await asyncio.gather(*recording[:10], ask(), erase_alone(), *recording[10:20], erase_alone(), *recording[20:])
    await erase(database, ann, org)
    assert await places_that_name(database, ann) == set()
    assert await database.fetchval("SELECT sum(debates) FROM usage_daily") == 3 * chunks
    await equal_to_log(url)


async def test_after_35_days_nothing_leads_back(metering_database_url: str, database: Any, org: str, ann: str):
    await erase(database, ann, org)
    async with asyncpg.create_pool(metering_database_url, min_size=1, max_size=1) as pool:
        for days, left in ((34, 1), (36, 0)):
            await housekeeping.sweep(pool, NOON + timedelta(days=days))
            assert await database.fetchval("SELECT count(*) FROM erased_people") == left


async def test_auth_says_so_and_the_worker_does_it(platform: MeteringPlatform, org: str, user: str):
    await platform.record(native(org_id=org, user_id=user, id="first"), native(org_id=org, user_id="bob"))
    async with bus_client(platform.bus_url) as auth:
        await say(auth, UserErased(user_id=user, org_ids=(org,)), PLATFORM)

    async def people() -> set[str]:
        log = (await platform.get("/api/usage/events", org_id=org)).json()
        return {each["user_id"] for each in log["events"]}

    async def is_erased() -> bool:
        return user not in await people()

    await eventually(is_erased)
    await platform.record(native(org_id=org, user_id=user, id="first"), native(org_id=org, user_id=user, id="late"))
    assert sorted(one[:7] for one in await people()) == ["bob", "erased-"]
    summary = (await platform.get(f"/api/usage/organizations/{org}/summary")).json()["data"]
    assert user not in json.dumps(summary)
