"""The delivery log over HTTP, and sending again: what, in which order, under which id."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from notifier_world import NotifierWorld, notifier_world
from one_service import KEYS, token
from servers import PostgresServer
from shown_alerts import show

ENDPOINTS = "/api/notifications/endpoints"
NOBODY = UUID(int=7)


@pytest.fixture(scope="module")
async def world(
    postgres_server: PostgresServer, notifier_template: str, nats_server: str
) -> AsyncIterator[NotifierWorld]:
    async with notifier_world(postgres_server, notifier_template, nats_server, works=False) as running:
        await running.app.state.trust.ready()
        yield running


@dataclass
class Sent:
    """An endpoint to which something was sent, as its owner sees it."""

    world: NotifierWorld
    org: str
    key: str
    endpoint_id: str

    @property
    def path(self) -> str:
        return f"{ENDPOINTS}/{self.endpoint_id}"

    async def log(self, **query: Any) -> list[dict[str, Any]]:
        """The newest first."""
        return (await self.world.read("GET", f"{self.path}/deliveries", key=self.key, **query))["deliveries"]

    async def queue(self, *kinds: str) -> list[str]:
        """Their delivery ids, in order."""
        events = await show(self.world, self.org, *kinds)
        found = {each["event_id"]: each["delivery_id"] for each in await self.log(limit=100)}
        return [found[str(event_id)] for event_id in events]

    async def settle(self, status: str, *deliveries: str) -> None:
        """As if they had been tried."""
        await self.world.pool.execute(
            "UPDATE webhook_deliveries SET status = $2, finished_at = now(), attempts = 3 WHERE delivery_id = ANY ($1)",
            [UUID(each) for each in deliveries], status,
        )  # fmt: skip
        await self.world.pool.execute(
            "UPDATE webhook_lanes SET next_attempt_at = NULL WHERE endpoint_id = $1", self.endpoint_id
        )

    async def next_attempt_at(self) -> Any:
        """When something is tried next."""
        return await self.world.pool.fetchval(
            "SELECT next_attempt_at FROM webhook_lanes WHERE endpoint_id = $1", self.endpoint_id
        )

    async def pending(self) -> list[str]:
        """In the order in which they are sent."""
        return [each["delivery_id"] for each in await self.log(status="pending", limit=100)][::-1]


@pytest.fixture
async def sent(world: NotifierWorld, org: str, user: str) -> Sent:
    key = token(user, org, "owner")
    made = await world.read("POST", ENDPOINTS, {"url": "http://127.0.0.1:1/"}, key=key)
    return Sent(world, org, key, made["endpoint_id"])


async def test_pages_and_filters(sent: Sent):
    ids = await sent.queue("limit.reached", "payment.failed", "limit.reached", "limit.reached")
    await sent.settle("delivered", ids[0], ids[1])
    got, cursor = list[str](), None
    for _ in range(3):
        page = await sent.world.read("GET", f"{sent.path}/deliveries", key=sent.key, limit=2, cursor=cursor)
        got += [each["delivery_id"] for each in page["deliveries"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert got == ids[::-1]
    assert [each["delivery_id"] for each in await sent.log(status="delivered")] == [ids[1], ids[0]]
    assert [each["delivery_id"] for each in await sent.log(kind="payment.failed", status="delivered")] == [ids[1]]
    assert await sent.log(kind="payment.failed", status="pending") == []


async def test_the_log_has_what_was_sent_and_what_came_back(sent: Sent):
    (delivery_id,) = await sent.queue("payment.failed")
    path = f"{sent.path}/deliveries/{delivery_id}"
    fresh = await sent.world.read("GET", path, key=sent.key)
    assert (fresh["tries"], fresh["attempts"], fresh["last_attempt_at"]) == ([], 0, None)
    assert fresh["message_id"] == "msg_" + fresh["event_id"].replace("-", "")
    assert fresh["type"] == "payment.failed"
    assert '"type":"payment.failed"' in fresh["body"]
    now = sent.world.clock()
    for minutes, status, answer, failure in ((2, 500, "No!", "status"), (1, None, None, "timeout"), (0, 200, "", None)):
        await sent.world.pool.execute(
            "INSERT INTO webhook_attempts (org_id, endpoint_id, delivery_id, attempted_at, milliseconds, "
            "request_headers, status_code, answer, failure) VALUES ($1, $2, $3, $4, 12, $5, $6, $7, $8)",
            sent.org, sent.endpoint_id, UUID(delivery_id), now - timedelta(minutes=minutes),
            '{"webhook-id": "msg_1"}', status, answer, failure,
        )  # fmt: skip
    found = await sent.world.read("GET", path, key=sent.key)
    assert [(each["status_code"], each["answer"], each["failure"]) for each in found["tries"]] == [
        (200, "", None), (None, None, "timeout"), (500, "No!", "status"),
    ]  # fmt: skip
    assert found["tries"][0]["request_headers"] == {"webhook-id": "msg_1"}
    (listed,) = await sent.log()
    assert (listed["last_status_code"], listed["last_failure"]) == (200, None)
    assert "body" not in listed


async def test_slack_is_shown_what_slack_is_sent(sent: Sent):
    await sent.world.read("PATCH", sent.path, {"format": "slack"}, key=sent.key)
    (delivery_id,) = await sent.queue("payment.failed")
    found = await sent.world.read("GET", f"{sent.path}/deliveries/{delivery_id}", key=sent.key)
    assert '"blocks"' in found["body"]


async def test_one_is_sent_again_in_its_old_place_and_under_its_id(sent: Sent):
    first, second, third = await sent.queue(*["limit.reached"] * 3)
    await sent.settle("delivered", first, second)
    again = await sent.world.read("POST", f"{sent.path}/deliveries/{second}/redeliver", key=sent.key)
    assert (again["status"], again["finished_at"], again["attempts"]) == ("pending", None, 3)
    assert await sent.pending() == [second, third]
    assert await sent.next_attempt_at() <= sent.world.clock()
    assert await sent.world.read("POST", f"{sent.path}/deliveries/{second}/redeliver", key=sent.key) == again
    await sent.world.read("POST", f"{sent.path}/disable", key=sent.key)
    refused = await sent.world.ask("POST", f"{sent.path}/deliveries/{first}/redeliver", key=sent.key)
    assert refused.status_code == 409


async def test_what_was_missed_is_sent_again(sent: Sent):
    delivered, failed, skipped = await sent.queue(*["limit.reached"] * 3)
    between = sent.world.clock()
    (later,) = await sent.queue("payment.failed")
    await sent.settle("delivered", delivered)
    await sent.settle("failed", failed, later)
    await sent.settle("skipped", skipped)
    begin = (between - timedelta(hours=1)).isoformat()

    async def again(**body: Any) -> int:
        return (await sent.world.read("POST", f"{sent.path}/redeliver", body, key=sent.key))["count"]

    assert await again(since=sent.world.clock().isoformat()) == 0
    assert await sent.next_attempt_at() is None
    assert await again(since=begin, until=between.isoformat(), statuses=["skipped"]) == 1
    assert await sent.pending() == [skipped]
    assert await sent.next_attempt_at() <= sent.world.clock()
    assert await again(since=begin) == 2
    assert await again(since=begin) == 0
    assert await sent.pending() == [failed, skipped, later]
    assert await again(since=begin, statuses=["delivered", "failed", "skipped"]) == 1
    assert await sent.pending() == [delivered, failed, skipped, later]
    for body in (
        {}, {"since": 5}, {"since": "2026-01-01"}, {"since": "2026-01-01T00:00:00"}, {"since": begin, "statuses": []},
        {"since": begin, "statuses": ["pending"]}, {"since": begin, "endpoint_id": "x"},
        {"since": "0001-01-01T00:00:00+05:00"},
    ):  # fmt: skip
        assert (await sent.world.ask("POST", f"{sent.path}/redeliver", body, key=sent.key)).status_code == 422


async def test_skipping_lets_those_behind_it_go_on(sent: Sent):
    first, second, third = await sent.queue(*["limit.reached"] * 3)
    tomorrow = sent.world.clock() + timedelta(days=1)
    await sent.world.pool.execute(
        "UPDATE webhook_lanes SET failures = 5, next_attempt_at = $2 WHERE endpoint_id = $1", sent.endpoint_id, tomorrow
    )
    skip = f"{sent.path}/deliveries/%s/skip"
    assert (await sent.world.read("POST", skip % second, key=sent.key))["status"] == "skipped"
    assert await sent.next_attempt_at() == tomorrow
    await sent.world.read("POST", skip % first, key=sent.key)
    assert await sent.next_attempt_at() <= sent.world.clock()
    assert await sent.pending() == [third]
    assert (await sent.world.ask("POST", skip % first, key=sent.key)).status_code == 409
    await sent.world.read("POST", skip % third, key=sent.key)
    assert await sent.next_attempt_at() is None
    assert (await sent.world.ask("POST", skip % NOBODY, key=sent.key)).status_code == 404


async def test_whose_they_are(sent: Sent, user: str):
    (delivery_id,) = await sent.queue("limit.reached")
    one = f"{sent.path}/deliveries/{delivery_id}"
    since = {"since": sent.world.clock().isoformat()}
    stranger = token(f"s_{user}", f"another_{sent.org}", "owner")
    for method, path, body in (
        ("GET", f"{sent.path}/deliveries", None), ("GET", one, None), ("POST", f"{one}/redeliver", None),
        ("POST", f"{one}/skip", None), ("POST", f"{sent.path}/redeliver", since),
    ):  # fmt: skip
        for key, query, status in (
            (None, {}, 401), (token(f"m_{user}", sent.org), {}, 403), (KEYS["usage.read"], {"org_id": sent.org}, 403),
            (stranger, {}, 404), (stranger, {"org_id": sent.org}, 403),
        ):  # fmt: skip
            answer = await sent.world.ask(method, path, body, key=key, **query)
            assert answer.status_code == status, (method, path)
    for method, path in (("GET", ""), ("POST", "/redeliver"), ("POST", "/skip")):
        answer = await sent.world.ask(method, f"{sent.path}/deliveries/{NOBODY}{path}", key=sent.key)
        assert answer.status_code == 404
    assert await sent.pending() == [delivery_id]
