"""Messages reach their endpoints: in order, at least once, under one id, and tried again as the schedule says."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from ipaddress import ip_network

import pytest
from servers import PostgresServer, eventually
from standardwebhooks import Webhook
from webhook_lanes import SECRET, LanesWorld, lanes_world
from webhook_receiver import Received, Receiver, receiver

from notifier import lanes, schedule, signatures

HERE = (ip_network("127.0.0.0/8"),)


@pytest.fixture(scope="module")
async def shared_world(postgres_server: PostgresServer, notifier_template: str) -> AsyncIterator[LanesWorld]:
    async with lanes_world(postgres_server, notifier_template) as running:
        yield running


@pytest.fixture
async def world(shared_world: LanesWorld) -> AsyncIterator[LanesWorld]:
    """Without the endpoints of other tests, and in the present."""
    yield shared_world
    await shared_world.pool.execute("DELETE FROM webhook_endpoints")
    shared_world.clock.ahead = timedelta()


@pytest.fixture
async def hook() -> AsyncIterator[Receiver]:
    async with receiver() as running:
        yield running


async def test_messages_come_signed_in_order_and_once_over_kept_connections(
    world: LanesWorld, hook: Receiver, org: str
):
    await world.endpoint(hook.url, org)
    event_ids = await world.tell(org, 45)
    async with world.work(3, networks=HERE):
        await world.settled(["delivered"] * 45, org)
    assert hook.ids == [signatures.message_id_of(each) for each in event_ids]
    assert hook.connections <= 3
    for number, request in enumerate(hook.requests):
        body = Webhook(SECRET).verify(request.body, dict(request.headers))
        assert (body["type"], body["data"]["fields"]) == ("payment.failed", {"number": number})
    assert {request.headers["content-type"] for request in hook.requests} == {"application/json"}
    assert {request.headers["user-agent"] for request in hook.requests} == {"Aragora-Webhooks/1"}
    said = await world.said(org)
    assert [name for name, _ in said] == ["NotificationDelivered"] * 45
    assert [fields["event_id"] for _, fields in said] == [str(each) for each in event_ids]
    assert said[0][1]["endpoint_id"] == "ep_1"
    (first, *_) = await world.attempts(org)
    assert (first["status_code"], first["answer"], first["failure"]) == (200, "thanks", None)
    assert json.loads(first["request_headers"]).keys() == {
        "Content-Type", "User-Agent", "webhook-id", "webhook-timestamp",
    }  # fmt: skip
    assert (await world.lane(org))["next_attempt_at"] is None


async def test_a_head_that_fails_is_waited_for_and_the_schedule_is_kept(world: LanesWorld, hook: Receiver, org: str):
    hook.status = 503
    await world.endpoint(hook.url, org, event_types=["payment.failed"])
    first, second = await world.tell(org, 2)
    async with world.work(networks=HERE):
        for count, wait in enumerate(schedule.WAITS, 1):
            failing = await world.failures(count, org)
            due_in = failing["next_attempt_at"] - world.clock()
            assert wait - timedelta(seconds=20) < due_in <= wait
            await world.jump(wait)
        # The tenth attempt is the last one. What is behind it is tried soon, and has time of its own.
        await world.settled(["failed", "pending"], org)
        await world.failures(10, org)
        hook.status = 200
        await world.jump(schedule.WAIT_AFTER_GIVING_UP)
        await world.settled(["failed", "delivered"], org)
    ids = [signatures.message_id_of(each) for each in (first, second)]
    assert hook.ids == [ids[0]] * 10 + [ids[1]]
    lane = await world.lane(org)
    assert (lane["failures"], lane["failing_since"], lane["warned_at"]) == (0, None, None)
    (failed, *_), (delivered, *_) = [
        [fields for name, fields in await world.said(org) if name == wanted]
        for wanted in ("NotificationFailed", "NotificationDelivered")
    ]
    assert (failed["event_id"], failed["reason"], failed["attempts"]) == (str(first), "gave_up", 10)
    assert (delivered["event_id"], delivered["attempts"]) == (str(second), 1)
    assert await world.alerts(org) == ["endpoint.failing"]


async def test_an_endpoint_that_fails_for_five_days_is_disabled_with_a_notice(
    world: LanesWorld, hook: Receiver, org: str
):
    hook.status = 500
    await world.endpoint(hook.url, org)
    await world.endpoint("https://unused.example/", org, "ep_2", event_types=["endpoint.disabled"], status="disabled")
    await world.tell(org)
    async with world.work(networks=HERE):
        await world.failures(1, org)
        await world.jump(schedule.DISABLED_AFTER)
        await world.failures(2, org)
        await world.tell(org)
    assert await world.statuses(org) == ["failed", "skipped", "skipped"]
    row = await world.pool.fetchrow(
        "SELECT status, disabled_because FROM webhook_endpoints WHERE org_id = $1 AND endpoint_id = 'ep_1'", org
    )
    assert row is not None
    assert tuple(row) == ("disabled", "failing")
    assert await world.alerts(org) == ["endpoint.disabled"]
    assert (await world.lane(org))["next_attempt_at"] is None
    assert await world.statuses(org, "ep_2") == ["skipped"]


async def test_who_says_gone_is_disabled_at_once_and_keeps_what_waits(world: LanesWorld, hook: Receiver, org: str):
    hook.status = 410
    await world.endpoint(hook.url, org, description="Our  \n receiver")
    await world.tell(org, 2)
    async with world.work(networks=HERE):
        await world.failures(1, org)
    assert len(hook.requests) == 1
    assert (await world.statuses(org))[:2] == ["pending", "pending"]
    assert await world.alerts(org) == ["endpoint.disabled"]
    title = await world.pool.fetchval("SELECT title FROM usage_alerts WHERE org_id = $1", org)
    assert title == "A webhook endpoint was disabled: Our receiver"


async def test_who_asks_for_time_gets_it(world: LanesWorld, hook: Receiver, org: str):
    hook.status, hook.headers = 429, {"Retry-After": "3600"}
    await world.endpoint(hook.url, org)
    await world.tell(org)
    async with world.work(networks=HERE):
        lane = await world.failures(1, org)
    assert timedelta(minutes=59) < lane["next_attempt_at"] - world.clock() <= timedelta(hours=1)


async def test_both_secrets_sign_while_one_follows_the_other(world: LanesWorld, hook: Receiver, org: str):
    newer = signatures.secret_text(b"n" * 32)
    sealed, former, until = world.sealer.seal(newer), world.sealer.seal(SECRET), world.clock() + timedelta(hours=24)
    await world.endpoint(hook.url, org, secret=sealed, former_secret=former, former_until=until)
    await world.tell(org)
    async with world.work(networks=HERE):
        await world.settled(["delivered"], org)
        (request,) = hook.requests
        for secret in (SECRET, newer):
            Webhook(secret).verify(request.body, dict(request.headers))
        await world.jump(timedelta(hours=25))
        await world.tell(org)
        await world.settled(["delivered"] * 2, org)
    assert " " not in hook.requests[1].headers["webhook-signature"]


async def test_slack_gets_what_slack_reads(world: LanesWorld, hook: Receiver, org: str):
    await world.endpoint(hook.url, org, format="slack")
    await world.tell(org)
    async with world.work(networks=HERE):
        await world.settled(["delivered"], org)
    assert json.loads(hook.requests[0].body)["blocks"]


async def test_nothing_is_sent_after_an_endpoint_is_disabled_or_deleted_in_the_midst(
    world: LanesWorld, hook: Receiver, org: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lanes, "POLL_SECONDS", 0.0)
    gone = f"{org}_gone"
    hook.manner = "hang"
    for each in (org, gone):
        await world.endpoint(hook.url, each)
        await world.tell(each, 3)
    async with world.work(networks=HERE):
        await eventually(lambda: len(hook.requests) == 2)
        await world.pool.execute("UPDATE webhook_endpoints SET status = 'disabled' WHERE org_id = $1", org)
        await world.pool.execute("DELETE FROM webhook_endpoints WHERE org_id = $1", gone)
        hook.manner = "answer"
        await hook.hang_up()
        await world.failures(1, org)
    assert len(hook.requests) == 2
    assert (await world.lane(org))["next_attempt_at"] is None
    assert await world.said(gone) == []


async def test_a_claim_that_was_lost_changes_nothing_of_the_lane(world: LanesWorld, hook: Receiver, org: str):
    hook.manner = "hang"
    await world.endpoint(hook.url, org)
    await world.tell(org)
    async with world.work(networks=HERE):
        await eventually(lambda: len(hook.requests) == 1)
        taken = "UPDATE webhook_lanes SET claimed_by = uuidv7(), claimed_until = $2, failures = 7 WHERE org_id = $1"
        # A stop must not find a lane that is nobody's.
        await world.pool.execute(taken, org, world.clock() + timedelta(minutes=1))
        await hook.hang_up()
        await eventually(lambda: world.attempts(org))
    assert (await world.lane(org))["failures"] == 7


async def test_workers_that_die_leave_nothing_behind(
    world: LanesWorld, hook: Receiver, org: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lanes, "DRAIN_SECONDS", 0.0)
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    await world.endpoint(hook.url, org)
    event_ids = await world.tell(org, 60)
    kills = sorted(dice.sample(range(60), 6))
    for count in kills:
        dying = asyncio.ensure_future(_work(world))
        await eventually(partial(_has_come, hook, count))
        # As a crash does: nothing is finished, and the sessions end.
        await world.pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid()"
        )
        dying.cancel()
        await asyncio.gather(dying, return_exceptions=True)
    async with world.work(2, networks=HERE):
        await world.settled(["delivered"] * 60, org)
    assert list(dict.fromkeys(hook.ids)) == [signatures.message_id_of(each) for each in event_ids]
    said = [fields["event_id"] for _, fields in await world.said(org)]
    assert sorted(said) == sorted(str(each) for each in event_ids)


def _has_come(hook: Receiver, count: int) -> bool:
    return len(set(hook.ids)) >= count


async def _work(world: LanesWorld) -> None:
    async with world.work(networks=HERE):
        await asyncio.Event().wait()


async def test_a_worker_that_stops_gives_back_what_it_could_not_finish(
    world: LanesWorld, hook: Receiver, org: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lanes, "DRAIN_SECONDS", 0.1)
    hook.manner = "hang"
    await world.endpoint(hook.url, org)
    await world.tell(org)
    async with world.work(networks=HERE):
        await eventually(lambda: len(hook.requests) == 1)
    lane = await world.lane(org)
    assert (lane["claimed_by"], lane["failures"]) == (None, 0)
    assert lane["next_attempt_at"] <= world.clock()


async def test_a_message_added_while_the_lane_is_let_go_is_not_left_behind(world: LanesWorld, hook: Receiver, org: str):
    await world.endpoint(hook.url, org)
    told: list[asyncio.Task[object]] = []

    def tell_another(_: Received) -> None:
        if len(told) < 30:
            told.append(asyncio.ensure_future(world.tell(org)))

    hook.on_request = tell_another
    async with world.work(2, networks=HERE):
        await world.tell(org)
        await world.settled(["delivered"] * 31, org)
