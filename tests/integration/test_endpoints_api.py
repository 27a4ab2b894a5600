"""Endpoints over HTTP: made, changed, tried out, disabled; whose they are, and what is never shown."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from notifier_world import NotifierWorld, notifier_world
from one_service import KEYS, token
from servers import PostgresServer
from shown_alerts import show

from notifier.kinds import ENDPOINT_TYPES

ENDPOINTS = "/api/notifications/endpoints"
URL = "http://127.0.0.1:1/hooks/aragora"


@pytest.fixture(scope="module")
async def world(
    postgres_server: PostgresServer, notifier_template: str, nats_server: str
) -> AsyncIterator[NotifierWorld]:
    async with notifier_world(postgres_server, notifier_template, nats_server, works=False) as running:
        await running.app.state.trust.ready()
        yield running


@pytest.fixture
def owner(org: str, user: str) -> str:
    return token(user, org, "owner")


async def make(world: NotifierWorld, key: str, **more: Any) -> dict[str, Any]:
    return await world.read("POST", ENDPOINTS, {"url": URL} | more, key=key)


async def lane(world: NotifierWorld, endpoint_id: str) -> Any:
    (row,) = await world.rows("SELECT * FROM webhook_lanes WHERE endpoint_id = $1", endpoint_id)
    return row


async def waiting(world: NotifierWorld, endpoint_id: str) -> list[str]:
    rows = await world.rows(
        "SELECT kind FROM webhook_deliveries WHERE endpoint_id = $1 AND status = 'pending' ORDER BY position",
        endpoint_id,
    )
    return [row["kind"] for row in rows]


async def test_the_secret_is_shown_once_and_both_are_sealed(world: NotifierWorld, org: str, user: str, owner: str):
    answer = await world.ask("POST", ENDPOINTS, {"url": URL + "?key=hidden", "description": " Ours "}, key=owner)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    made = answer.json()["data"]
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert made.pop("created_at")
    endpoint_id = made["endpoint_id"]
    assert made == {
        "endpoint_id": endpoint_id, "org_id": org, "url": URL + "?…", "description": "Ours", "event_types": [],
        "format": "standard", "status": "enabled", "disabled_because": None, "disabled_at": None,
        "failing_since": None, "failures": 0, "next_attempt_at": None, "waiting": 0, "former_secret_until": None,
        "created_by": user,
    }  # fmt: skip
    (listed,) = await world.read("GET", ENDPOINTS, key=owner)
    assert listed == await world.read("GET", f"{ENDPOINTS}/{endpoint_id}", key=owner)
    assert {name: value for name, value in listed.items() if name != "created_at"} == made
    (row,) = await world.rows("SELECT url, secret FROM webhook_endpoints WHERE endpoint_id = $1", endpoint_id)
    assert b"hidden" not in row["url"]
    assert world.sealer.open(row["url"]) == URL + "?key=hidden"
    assert world.sealer.open(row["secret"]) == secret


async def test_a_slack_url_is_a_secret(world: NotifierWorld, owner: str):
    made = await make(world, owner, url="http://127.0.0.1/services/T0/B0/abcdefgh", format="slack")
    assert made["url"] == "http://127.0.0.1/…efgh"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"), ({"url": 7}, "url"), ({"url": ""}, "url"), ({"url": "ftp://example.com"}, "url"),
        ({"url": "http://169.254.169.254/latest/meta-data"}, "url"), ({"url": "https://[::1]/"}, "url"),
        ({"url": "https://10.0.0.1/"}, "url"), ({"url": "https://user:hunter2@example.com/"}, "url"),
        ({"url": "https://no-such-host.invalid/"}, "url"), ({"url": "https://e.com/" + "x" * 2000}, "url"),
        ({"url": URL, "event_types": ["no.such"]}, "event_types"),
        ({"url": URL, "event_types": ["attention.needed"]}, "event_types"),
        ({"url": URL, "event_types": "limit.reached"}, "event_types"),
        ({"url": URL, "format": "teams"}, "format"), ({"url": URL, "description": "a\nb"}, "description"),
        ({"url": URL, "description": "x" * 201}, "description"), ({"url": URL, "secret": "mine"}, "secret"),
    ],
    ids=str,
)  # fmt: skip
async def test_what_is_no_endpoint(world: NotifierWorld, owner: str, body: dict[str, Any], field: str):
    answer = await world.ask("POST", ENDPOINTS, body, key=owner)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == field
    assert "hunter2" not in answer.text
    if field == "event_types" and isinstance(body["event_types"], list):
        assert ENDPOINT_TYPES[0] in error["message"]
    assert await world.read("GET", ENDPOINTS, key=owner) == []


async def test_whose_they_are(world: NotifierWorld, org: str, user: str, owner: str):
    made = await make(world, owner)
    one = f"{ENDPOINTS}/{made['endpoint_id']}"
    stranger = token(f"s_{user}", f"another_{org}", "owner")
    routes = [
        ("POST", ENDPOINTS, {"url": URL}), ("GET", ENDPOINTS, None), ("GET", one, None), ("PATCH", one, {}),
        ("DELETE", one, None), ("POST", f"{one}/rotate-secret", {}), ("POST", f"{one}/test", None),
        ("POST", f"{one}/disable", None), ("POST", f"{one}/enable", None),
    ]  # fmt: skip
    for method, path, body in routes:
        for key, status in (
            (None, 401), (token(f"m_{user}", org), 403), (stranger, 403), (KEYS["usage.read"], 403),
            (token(user, None), 403),
        ):  # fmt: skip
            query = {"org_id": org} if key == stranger else {}
            answer = await world.ask(method, path, body, key=key, **query)
            assert answer.status_code == status, (method, path)
        if path != ENDPOINTS:
            assert (await world.ask(method, path, body, key=stranger)).status_code == 404
            assert (await world.ask(method, path, body, org_id=f"another_{org}")).status_code in (404, 409)
        assert (await world.ask(method, path, body)).status_code == 422  # a service that names no organization
    assert [each["endpoint_id"] for each in await world.read("GET", ENDPOINTS, org_id=org)] == [made["endpoint_id"]]
    assert (await world.ask("POST", ENDPOINTS, {"url": URL}, org_id="platform")).status_code == 409


async def test_there_are_at_most_twenty(world: NotifierWorld, owner: str):
    made = await asyncio.gather(*(world.ask("POST", ENDPOINTS, {"url": URL}, key=owner) for _ in range(23)))
    assert sorted(each.status_code for each in made) == [201] * 20 + [409] * 3
    first = next(each for each in made if each.is_success).json()["data"]["endpoint_id"]
    assert (await world.ask("DELETE", f"{ENDPOINTS}/{first}", key=owner)).status_code == 200
    assert (await world.ask("GET", f"{ENDPOINTS}/{first}", key=owner)).status_code == 404
    assert await make(world, owner)


async def test_a_change_keeps_what_it_does_not_name(world: NotifierWorld, org: str, owner: str):
    made = await make(world, owner, event_types=["limit.reached", "limit.reached"], description="One")
    assert made["event_types"] == ["limit.reached"]
    path = f"{ENDPOINTS}/{made['endpoint_id']}"
    changed = await world.read("PATCH", path, {"description": "Two"}, key=owner)
    assert (changed["description"], changed["event_types"], changed["url"]) == ("Two", ["limit.reached"], URL)
    await show(world, org, "limit.reached", "payment.failed")
    assert await waiting(world, made["endpoint_id"]) == ["limit.reached"]
    await world.pool.execute(
        "UPDATE webhook_lanes SET failures = 3, failing_since = now(), next_attempt_at = now() + interval '1 day' "
        "WHERE endpoint_id = $1", made["endpoint_id"],
    )  # fmt: skip
    changed = await world.read("PATCH", path, {"url": "http://127.0.0.2/new", "event_types": []}, key=owner)
    assert (changed["url"], changed["failures"], changed["waiting"]) == ("http://127.0.0.2/new", 0, 1)
    assert (await lane(world, made["endpoint_id"]))["next_attempt_at"] <= world.clock()
    await show(world, org, "payment.failed")
    assert await waiting(world, made["endpoint_id"]) == ["limit.reached", "payment.failed"]
    for body in ({"url": None}, {"url": "https://10.0.0.1"}, {"status": "disabled"}, {"event_types": ["x"]}):
        assert (await world.ask("PATCH", path, body, key=owner)).status_code == 422


async def test_a_rotated_secret_signs_for_a_while(world: NotifierWorld, owner: str):
    made = await make(world, owner)
    path = f"{ENDPOINTS}/{made['endpoint_id']}/rotate-secret"

    async def kept() -> tuple[str, str | None, Any]:
        (row,) = await world.rows(
            "SELECT secret, former_secret, former_until FROM webhook_endpoints WHERE endpoint_id = $1",
            made["endpoint_id"],
        )
        former = row["former_secret"]
        return world.sealer.open(row["secret"]), former and world.sealer.open(former), row["former_until"]

    rotated = await world.read("POST", path, {}, key=owner)
    secret, former, until = await kept()
    assert (secret, former) == (rotated["secret"], made["secret"]) != (former, secret)
    assert timedelta(hours=23) < until - world.clock() <= timedelta(hours=24)
    assert rotated["former_secret_until"]
    again = await world.read("POST", path, {"keep_hours": 0}, key=owner)
    assert await kept() == (again["secret"], None, None)
    for hours in (-1, 169, "1", None, 1.5):
        assert (await world.ask("POST", path, {"keep_hours": hours}, key=owner)).status_code == 422


async def test_a_test_message_goes_to_this_endpoint_only(world: NotifierWorld, org: str, owner: str):
    made, other = await make(world, owner, event_types=["payment.failed"]), await make(world, owner)
    path = f"{ENDPOINTS}/{made['endpoint_id']}"
    answer = await world.ask("POST", f"{path}/test", key=owner)
    assert answer.status_code == 202
    queued = answer.json()["data"]
    assert queued["message_id"] == "msg_" + queued["event_id"].replace("-", "")
    assert await waiting(world, made["endpoint_id"]) == ["endpoint.test"]
    assert await waiting(world, other["endpoint_id"]) == []
    assert (await lane(world, made["endpoint_id"]))["next_attempt_at"] <= world.clock()
    assert (await world.ask("POST", f"{path}/test", key=owner)).status_code == 409
    await world.pool.execute("UPDATE webhook_deliveries SET status = 'delivered' WHERE org_id = $1", org)
    await world.read("POST", f"{path}/disable", key=owner)
    assert (await world.ask("POST", f"{path}/test", key=owner)).status_code == 409


async def test_disabled_and_enabled(world: NotifierWorld, org: str, owner: str):
    made = await make(world, owner)
    endpoint_id, path = made["endpoint_id"], f"{ENDPOINTS}/{made['endpoint_id']}"
    await show(world, org, "limit.reached")
    await world.pool.execute(
        "UPDATE webhook_lanes SET failures = 7, failing_since = now(), warned_at = now(), "
        "next_attempt_at = now() + interval '1 day' WHERE endpoint_id = $1", endpoint_id,
    )  # fmt: skip
    disabled = await world.read("POST", f"{path}/disable", key=owner)
    assert (disabled["status"], disabled["disabled_because"], disabled["next_attempt_at"]) == (
        "disabled", "chosen", None,
    )  # fmt: skip
    assert await world.read("POST", f"{path}/disable", key=owner) == disabled
    await show(world, org, "payment.failed")
    assert await waiting(world, endpoint_id) == ["limit.reached"]
    enabled = await world.read("POST", f"{path}/enable", key=owner)
    assert (enabled["status"], enabled["disabled_because"], enabled["disabled_at"]) == ("enabled", None, None)
    assert (enabled["failures"], enabled["failing_since"], enabled["waiting"]) == (0, None, 1)
    found = await lane(world, endpoint_id)
    assert found["next_attempt_at"] <= world.clock()
    assert found["warned_at"] is None
    await world.pool.execute("UPDATE webhook_deliveries SET status = 'delivered' WHERE org_id = $1", org)
    assert (await world.read("POST", f"{path}/enable", key=owner))["next_attempt_at"] is None
