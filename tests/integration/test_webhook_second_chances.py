"""Second chances: of a lane that is to be tried at once, of one that met trouble of ours, of one among slow ones."""

import asyncio
from ipaddress import ip_network

import asyncpg
import pytest
from servers import eventually
from webhook_lanes import LanesWorld
from webhook_receiver import Receiver, receiver

from notifier import deliveries, endpoints, queueing, recording, schedule, signatures
from notifier.endpoints import Changes

HERE = (ip_network("127.0.0.0/8"),)


async def test_who_waits_behind_a_skipped_message_goes_on_although_it_was_being_sent(
    webhooks: LanesWorld, hook: Receiver, org: str
):
    hook.status = 500
    await webhooks.endpoint(hook.url, org)
    _, second = await webhooks.tell(org, 2)
    async with webhooks.work(networks=HERE):
        for count, wait in enumerate(schedule.WAITS[:4], 1):
            await webhooks.failures(count, org)
            if count == 4:
                hook.manner = "hang"
            await webhooks.jump(wait)
        await eventually(lambda: len(hook.requests) == 5)
        first = await webhooks.pool.fetchval("SELECT delivery_id FROM webhook_deliveries ORDER BY position LIMIT 1")
        async with webhooks.pool.acquire() as connection, connection.transaction():
            await deliveries.skip(connection, org, "ep_1", first, webhooks.clock())
        hook.manner, hook.status = "answer", 200
        await hook.hang_up()
        await webhooks.settled(["skipped", "delivered"], org)
    assert hook.ids[5:] == [signatures.message_id_of(second)]


async def test_what_the_former_url_answers_says_nothing_of_the_new_one(webhooks: LanesWorld, hook: Receiver, org: str):
    going = asyncio.Event()
    async with receiver() as other:
        hook.status, hook.on_request = 410, lambda _: going.set()
        await webhooks.endpoint(hook.url, org)
        (event_id,) = await webhooks.tell(org)
        async with webhooks.pool.acquire() as connection:
            change = connection.transaction()
            await change.start()
            await queueing.wait_for_turn(connection)  # so nothing is recorded before the change is made
            async with webhooks.work(networks=HERE):
                await going.wait()
                await endpoints.change(
                    connection, webhooks.sealer, org, "ep_1", Changes(url=other.url), webhooks.clock()
                )
                await change.commit()
                await webhooks.settled(["delivered"], org)
    assert other.ids == [signatures.message_id_of(event_id)]
    assert await webhooks.alerts(org) == []
    assert [each["status_code"] for each in await webhooks.attempts(org)] == [410, 200]


async def test_what_cannot_be_looked_up_at_all_is_a_failure_of_the_endpoint(webhooks: LanesWorld, org: str):
    await webhooks.endpoint("https://a..example/", org)
    await webhooks.tell(org)
    async with webhooks.work(networks=HERE):
        await webhooks.failures(1, org)
    (attempt,) = await webhooks.attempts(org)
    assert attempt["failure"] == "the name of the host is not known"


async def test_an_unbelievable_retry_after_is_none(webhooks: LanesWorld, hook: Receiver, org: str):
    hook.status, hook.headers = 503, {"Retry-After": "99999999999 Jan 00:00:00 +0000 10000"}
    await webhooks.endpoint(hook.url, org)
    await webhooks.tell(org)
    async with webhooks.work(networks=HERE):
        lane = await webhooks.failures(1, org)
    assert lane["next_attempt_at"] - webhooks.clock() <= schedule.WAITS[0]


async def test_many_that_hang_for_the_first_time_leave_room_for_the_others(
    webhooks: LanesWorld, hook: Receiver, org: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("notifier.lanes.WELL_AT_ONCE", 5)
    monkeypatch.setattr("notifier.lanes.DRAIN_SECONDS", 0.0)
    async with receiver() as hole:
        hole.manner = "hang"
        for number in range(12):
            await webhooks.endpoint(hole.url, f"{org}_{number}")
            await webhooks.tell(f"{org}_{number}")
        async with webhooks.work(networks=HERE):
            await eventually(lambda: len(hole.requests) >= 5)  # others follow when these are known to be slow
            await webhooks.endpoint(hook.url, org)
            await webhooks.tell(org)
            await eventually(lambda: hook.requests, 5)


async def test_a_lane_whose_messages_could_not_be_read_is_given_back(
    webhooks: LanesWorld, hook: Receiver, org: str, monkeypatch: pytest.MonkeyPatch
):
    await webhooks.endpoint(hook.url, org)
    await webhooks.tell(org)
    interrupted: list[str] = []
    fetch = asyncpg.Pool.fetch

    async def fetch_or_not(pool: asyncpg.Pool, query: str, *arguments: object) -> object:
        if query == recording.queries.read_messages and not interrupted:
            interrupted.append(query)
            raise ConnectionResetError("a test cut it")
        return await fetch(pool, query, *arguments)

    monkeypatch.setattr(asyncpg.Pool, "fetch", fetch_or_not)
    async with webhooks.work(networks=HERE):
        await webhooks.settled(["delivered"], org)
    assert interrupted
