"""`verify` names every row about limits that is wrong, and `rebuild` mends it, while reserving goes on."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from limits import PEOPLE, entitle, entitlements, equal_to_log, happened, limit, limit_desk, reserve, standing
from usage import NOON, cloudevent, message, recorder

from aragora.contracts.events import LimitReached
from metering import refold
from metering.limit_answers import Exceeded, Reserved

CALL = {"provider": "openai"}


@pytest.fixture
async def database(metering_database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(metering_database_url)
    yield connection
    await connection.close()


async def something_used_and_held(url: str, org: str) -> dict[Any, Any]:
    plan = entitlements(limit("api_calls", 20), limit("api_calls", 12, "user"), limit(PEOPLE, 5), limit("tokens", None))
    await entitle(url, {org: plan})
    async with recorder(url) as rec, limit_desk(url) as desk:
        await rec.record([("s", 1, message(*(cloudevent(org_id=org, user_id=f"u{n % 3}") for n in range(10))))], NOON)
        for user in ("u0", "u4"):
            assert isinstance(await desk.ask(org, reserve(CALL, CALL, user_id=user)), Reserved)
    return await standing(url, org)


COPY_USAGE = "INSERT INTO limit_usage (org_id, month, user_id, meter, used) SELECT org_id, month, 'nobody', meter, 3"
COPY_USERS = "INSERT INTO limit_users (org_id, month, meter, user_id) SELECT org_id, month, meter, 'nobody'"
COPY_HOLDS = "INSERT INTO limit_holds (org_id, month, user_id, meter, held) SELECT org_id, '2026-05', user_id, meter, 1"
DAMAGES = (
    ("limit_usage", "UPDATE limit_usage SET used = used + 1 WHERE user_id = ''"),
    ("limit_usage", "UPDATE limit_usage SET used = 0 WHERE user_id = 'u1'"),
    ("limit_usage", "DELETE FROM limit_usage WHERE meter = 'people'"),
    ("limit_usage", f"{COPY_USAGE} FROM limit_usage WHERE meter = 'api_calls' AND user_id = ''"),
    ("limit_users", "DELETE FROM limit_users WHERE user_id = 'u2'"),
    ("limit_users", f"{COPY_USERS} FROM limit_users WHERE user_id = 'u1'"),
    ("limit_holds", "UPDATE limit_holds SET held = held + 7 WHERE user_id = ''"),
    ("limit_holds", "DELETE FROM limit_holds WHERE meter = 'people'"),
    ("limit_holds", f"{COPY_HOLDS} FROM limit_holds WHERE user_id = ''"),
)


@pytest.mark.parametrize(("projection", "damage"), DAMAGES)
async def test_verify_names_what_is_wrong_and_rebuild_mends_it(
    metering_database_url: str, database: Any, org: str, projection: str, damage: str
):
    right = await something_used_and_held(metering_database_url, org)
    changed = int((await database.execute(damage)).rsplit(" ", 1)[1])
    assert changed >= 1
    for fold in (refold.verify, refold.rebuild):
        verdict = await fold(metering_database_url, connections=1, progress=lambda *_: None, now=NOON)
        assert verdict.different_rows == changed
        assert {one.projection for one in verdict.differences} == {projection}
        assert all(one.key.startswith(f"{org}/") for one in verdict.differences)
    await equal_to_log(metering_database_url)
    mended = await standing(metering_database_url, org)
    assert {key: both for key, both in mended.items() if any(both)} == right
    async with limit_desk(metering_database_url) as desk:
        answers = [await desk.ask(org, reserve(CALL, user_id=f"u{n % 3}")) for n in range(7)]
    assert [type(answer) for answer in answers] == [Reserved] * 6 + [Exceeded]


async def test_what_a_rebuild_mends_is_said_once_at_the_next_usage(metering_database_url: str, database: Any, org: str):
    url = metering_database_url
    await entitle(url, {org: entitlements(limit("api_calls", 10))})
    async with recorder(url) as rec:
        await rec.record([("s", 1, message(*(cloudevent(org_id=org) for _ in range(7))))], NOON)
        await database.execute("UPDATE limit_usage SET used = 1")
        await refold.rebuild(url, connections=1, progress=lambda *_: None, now=NOON)
        for _ in range(3):
            await rec.record([("s", 1, message(cloudevent(org_id=org)))], NOON)
            await refold.rebuild(url, connections=1, progress=lambda *_: None, now=NOON)
    assert [event.threshold_percent for event in await happened(url, org, LimitReached)] == [80, 90, 100]


async def test_reserving_goes_on_while_the_log_is_folded(metering_database_url: str, org: str):
    url = metering_database_url
    await something_used_and_held(url, org)
    reserved: list[type] = []
    asked = asyncio.Event()

    async with limit_desk(url) as desk:

        async def ask() -> None:
            reserved.append(type(await desk.ask(org, reserve({"event_type": "debate"}))))
            asked.set()

        tasks = []

        def fold_has_begun(*_: int) -> None:
            tasks.append(asyncio.create_task(ask()))

        async with refold._refolded(url, 1, fold_has_begun, NOON, hold_log=True):
            async with asyncio.timeout(5):
                await asked.wait()
        await asyncio.gather(*tasks)
    assert set(reserved) == {Reserved}
