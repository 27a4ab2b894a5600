"""Messages reach their endpoints: in order, at least once, under one id, and tried again as the schedule says."""

import asyncio
import json
import random
from datetime import timedelta
from functools import partial
from ipaddress import ip_network

import pytest
from servers import PostgresServer, cut, eventually
from standardwebhooks import Webhook
from webhook_lanes import SECRET, LanesWorld
from webhook_receiver import Received, Receiver

from aragora.contracts.ids import new_id
from notifier import lanes, schedule, signatures, waking

HERE = (ip_network("127.0.0.0/8"),)


async def test_messages_come_signed_in_order_and_once_over_kept_connections(
    webhooks: LanesWorld, hook: Receiver, org: str
):
    await webhooks.endpoint(hook.url, org)
    event_ids = await webhooks.tell(org, 45)
    async with webhooks.work(3, networks=HERE):
        await webhooks.settled(["delivered"] * 45, org)
    assert hook.ids == [signatures.message_id_of(each) for each in event_ids]
    assert hook.connections <= 3
    for number, request in enumerate(hook.requests):
        body = Webhook(SECRET).verify(request.body, dict(request.headers))
        assert (body["type"], body["data"]["fields"]) == ("payment.failed", {"number": number})
    assert {request.headers["content-type"] for request in hook.requests} == {"application/json"}
    assert {request.headers["user-agent"] for request in hook.requests} == {"Aragora-Webhooks/1"}
    said = await webhooks.said(org)
    assert [name for name, _ in said] == ["NotificationDelivered"] * 45
    assert [fields["event_id"] for _, fields in said] == [str(each) for each in event_ids]
    assert said[0][1]["endpoint_id"] == "ep_1"
    (first, *_) = await webhooks.attempts(org)
    assert (first["status_code"], first["answer"], first["failure"]) == (200, "thanks", None)
    assert json.loads(first["request_headers"]).keys() == {
        "Content-Type", "User-Agent", "webhook-id", "webhook-timestamp",
    }  # fmt: skip
    assert (await webhooks.lane(org))["next_attempt_at"] is None


async def test_a_head_that_fails_is_waited_for_and_the_schedule_is_kept(webhooks: LanesWorld, hook: Receiver, org: str):
    hook.status = 503
    await webhooks.endpoint(hook.url, org, event_types=["payment.failed"])
    first, second = await webhooks.tell(org, 2)
    async with webhooks.work(networks=HERE):
        for count, wait in enumerate(schedule.WAITS, 1):
            failing = await webhooks.failures(count, org)
            due_in = failing["next_attempt_at"] - webhooks.clock()
            assert wait - timedelta(seconds=20) < due_in <= wait
            await webhooks.jump(wait)
        # The tenth attempt is the last one. What is behind it is tried soon, and has time of its own.
        await webhooks.settled(["failed", "pending"], org)
        await webhooks.failures(10, org)
        hook.status = 200
        await webhooks.jump(schedule.WAIT_AFTER_GIVING_UP)
        await webhooks.settled(["failed", "delivered"], org)
    ids = [signatures.message_id_of(each) for each in (first, second)]
    assert hook.ids == [ids[0]] * 10 + [ids[1]]
    lane = await webhooks.lane(org)
    assert (lane["failures"], lane["failing_since"], lane["warned_at"]) == (0, None, None)
    (failed, *_), (delivered, *_) = [
        [fields for name, fields in await webhooks.said(org) if name == wanted]
        for wanted in ("NotificationFailed", "NotificationDelivered")
    ]
    assert (failed["event_id"], failed["reason"], failed["attempts"]) == (str(first), "gave_up", 10)
    assert (delivered["event_id"], delivered["attempts"]) == (str(second), 1)
    assert await webhooks.alerts(org) == ["endpoint.failing"]


async def test_an_endpoint_that_fails_for_five_days_is_disabled_with_a_notice(
    webhooks: LanesWorld, hook: Receiver, org: str
):
    hook.status = 500
    await webhooks.endpoint(hook.url, org)
    await webhooks.endpoint(
        "https://unused.example/", org, "ep_2", event_types=["endpoint.disabled"], status="disabled"
    )
    await webhooks.tell(org)
    async with webhooks.work(networks=HERE):
        await webhooks.failures(1, org)
        await webhooks.jump(schedule.DISABLED_AFTER)
        await webhooks.failures(2, org)
        await webhooks.tell(org)
    assert await webhooks.statuses(org) == ["failed", "skipped", "skipped"]
    row = await webhooks.pool.fetchrow(
        "SELECT status, disabled_because FROM webhook_endpoints WHERE org_id = $1 AND endpoint_id = 'ep_1'", org
    )
    assert row is not None
    assert tuple(row) == ("disabled", "failing")
    assert await webhooks.alerts(org) == ["endpoint.disabled"]
    assert (await webhooks.lane(org))["next_attempt_at"] is None
    assert await webhooks.statuses(org, "ep_2") == ["skipped"]


async def test_who_says_gone_is_disabled_at_once_and_keeps_what_waits(webhooks: LanesWorld, hook: Receiver, org: str):
    hook.status = 410
    await webhooks.endpoint(hook.url, org, description="Our  \n receiver")
    await webhooks.tell(org, 2)
    async with webhooks.work(networks=HERE):
        await webhooks.failures(1, org)
    assert len(hook.requests) == 1
    assert (await webhooks.statuses(org))[:2] == ["pending", "pending"]
    assert await webhooks.alerts(org) == ["endpoint.disabled"]
    title = await webhooks.pool.fetchval("SELECT title FROM usage_alerts WHERE org_id = $1", org)
    assert title == "A webhook endpoint was disabled: Our receiver"


async def test_who_asks_for_time_gets_it(webhooks: LanesWorld, hook: Receiver, org: str):
    hook.status, hook.headers = 429, {"Retry-After": "3600"}
    await webhooks.endpoint(hook.url, org)
    await webhooks.tell(org)
    async with webhooks.work(networks=HERE):
        lane = await webhooks.failures(1, org)
    assert timedelta(minutes=59) < lane["next_attempt_at"] - webhooks.clock() <= timedelta(hours=1)


async def test_both_secrets_sign_while_one_follows_the_other(webhooks: LanesWorld, hook: Receiver, org: str):
    newer = signatures.secret_text(b"n" * 32)
    sealed, former, until = (
        webhooks.sealer.seal(newer),
        webhooks.sealer.seal(SECRET),
        webhooks.clock() + timedelta(hours=24),
    )
    await webhooks.endpoint(hook.url, org, secret=sealed, former_secret=former, former_until=until)
    await webhooks.tell(org)
    async with webhooks.work(networks=HERE):
        await webhooks.settled(["delivered"], org)
        (request,) = hook.requests
        for secret in (SECRET, newer):
            Webhook(secret).verify(request.body, dict(request.headers))
        await webhooks.jump(timedelta(hours=25))
        await webhooks.tell(org)
        await webhooks.settled(["delivered"] * 2, org)
    assert " " not in hook.requests[1].headers["webhook-signature"]


async def test_slack_gets_what_slack_reads(webhooks: LanesWorld, hook: Receiver, org: str):
    await webhooks.endpoint(hook.url, org, format="slack")
    await webhooks.tell(org)
    async with webhooks.work(networks=HERE):
        await webhooks.settled(["delivered"], org)
    assert json.loads(hook.requests[0].body)["blocks"]


async def test_nothing_is_sent_after_an_endpoint_is_disabled_or_deleted_in_the_midst(
    webhooks: LanesWorld, hook: Receiver, org: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lanes, "POLL_SECONDS", 0.0)
    gone = f"{org}_gone"
    hook.manner = "hang"
    for each in (org, gone):
        await webhooks.endpoint(hook.url, each)
        await webhooks.tell(each, 3)
    async with webhooks.work(networks=HERE):
        await eventually(lambda: len(hook.requests) == 2)
        await webhooks.pool.execute("UPDATE webhook_endpoints SET status = 'disabled' WHERE org_id = $1", org)
        await webhooks.pool.execute("DELETE FROM webhook_endpoints WHERE org_id = $1", gone)
        hook.manner = "answer"
        await hook.hang_up()
        await webhooks.failures(1, org)
    assert len(hook.requests) == 2
    assert (await webhooks.lane(org))["next_attempt_at"] is None
    assert await webhooks.said(gone) == []


async def test_a_claim_that_was_lost_changes_nothing_of_the_lane(webhooks: LanesWorld, hook: Receiver, org: str):
    hook.manner = "hang"
    await webhooks.endpoint(hook.url, org)
    await webhooks.tell(org)
    other = new_id()
    async with webhooks.pool.acquire() as somebody, webhooks.work(networks=HERE):
        await eventually(lambda: len(hook.requests) == 1)
        # Somebody who is there: what the dead have claimed, the worker may have again before its attempt has ended.
        await somebody.execute(waking.queries.show_presence, other)
        taken = "UPDATE webhook_lanes SET claimed_by = $3, claimed_until = $2, failures = 7 WHERE org_id = $1"
        # A stop must not find a lane that is nobody's.
        await somebody.execute(taken, org, webhooks.clock() + timedelta(minutes=1), other)
        await hook.hang_up()
        await eventually(lambda: webhooks.attempts(org))
    assert (await webhooks.lane(org))["failures"] == 7


async def test_workers_that_die_leave_nothing_behind(
    webhooks: LanesWorld, postgres_server: PostgresServer, hook: Receiver, org: str, monkeypatch: pytest.MonkeyPatch
):
    url = postgres_server.url_of(await webhooks.pool.fetchval("SELECT current_database()"))
    monkeypatch.setattr(lanes, "DRAIN_SECONDS", 0.0)
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    await webhooks.endpoint(hook.url, org)
    event_ids = await webhooks.tell(org, 60)
    kills = sorted(dice.sample(range(60), 6))
    for count in kills:
        dying = asyncio.ensure_future(_work(webhooks))
        await eventually(partial(_has_come, hook, count))
        # As a crash does: nothing is finished, and the sessions end.
        await cut(url, "SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
        dying.cancel()
        await asyncio.gather(dying, return_exceptions=True)
    async with webhooks.work(2, networks=HERE):
        await webhooks.settled(["delivered"] * 60, org)
    assert list(dict.fromkeys(hook.ids)) == [signatures.message_id_of(each) for each in event_ids]
    said = [fields["event_id"] for _, fields in await webhooks.said(org)]
    assert sorted(said) == sorted(str(each) for each in event_ids)


def _has_come(hook: Receiver, count: int) -> bool:
    return len(set(hook.ids)) >= count


async def _work(webhooks: LanesWorld) -> None:
    async with webhooks.work(networks=HERE):
        await asyncio.Event().wait()


async def test_a_worker_that_stops_gives_back_what_it_could_not_finish(
    webhooks: LanesWorld, hook: Receiver, org: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lanes, "DRAIN_SECONDS", 0.1)
    hook.manner = "hang"
    await webhooks.endpoint(hook.url, org)
    await webhooks.tell(org)
    async with webhooks.work(networks=HERE):
        await eventually(lambda: len(hook.requests) == 1)
    lane = await webhooks.lane(org)
    assert (lane["claimed_by"], lane["failures"]) == (None, 0)
    assert lane["next_attempt_at"] <= webhooks.clock()


async def test_a_message_added_while_the_lane_is_let_go_is_not_left_behind(
    webhooks: LanesWorld, hook: Receiver, org: str
):
    await webhooks.endpoint(hook.url, org)
    told: list[asyncio.Task[object]] = []

    def tell_another(_: Received) -> None:
        if len(told) < 30:
            told.append(asyncio.ensure_future(webhooks.tell(org)))

    hook.on_request = tell_another
    async with webhooks.work(2, networks=HERE):
        await webhooks.tell(org)
        await webhooks.settled(["delivered"] * 31, org)
