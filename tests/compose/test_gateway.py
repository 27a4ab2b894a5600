"""The gateway: who calls is known behind it, alerts come live, what is large gets through, what is away is said."""

import asyncio
import time

import pytest
from composed import Composed
from event_streams import streaming
from one_service import ALL_SCOPES, PROBLEM, bearer
from people import Site
from servers import eventually

from aragora.chassis.app import MAX_BODY_BYTES

pytestmark = [pytest.mark.compose, pytest.mark.timeout(600)]


@pytest.fixture
async def site(containers: Composed):
    await containers.healthy()
    async with containers.site() as running:
        yield running


async def test_who_calls_is_known_behind_it(site: Site):
    person = await site.register()
    body = {"email": person.email, "password": person.password}
    # Through one proxy, through two, and with a first address that the client has made up.
    for said in ("203.0.113.7", "203.0.113.7, 172.20.0.9", "198.51.100.9, 203.0.113.7"):
        answer = await site.ask("auth", "POST", "/api/auth/login", None, body, None, **{"X-Forwarded-For": said})
        assert answer.is_success
        query = {"action": "sign_in"}
        found = await site.ask("auth", "GET", "/api/auth/audit", answer.json()["data"]["access_token"], None, query)
        assert found.json()["data"]["entries"][0]["address"] == "203.0.113.7", found.text


async def test_alerts_come_live(site: Site):
    person = await site.register()
    await site.give_plan(person, person.org_id, "free")
    site.client.base_url = site.urls["notifier"]
    path = f"/api/subscription/alerts/{person.user_id}/stream"
    async with streaming(site.client, path, person.access_token) as events:
        await eventually(lambda: events.found == [("unread", {"unread_count": 0})], what="the stream has begun")
        began = time.monotonic()
        await site.give_plan(person, person.org_id)
        await eventually(lambda: any(kind == "alert" for kind, _ in events.found), 20, what="the alert has come")
        print(f"{time.monotonic() - began:.2f} s from the change of the plan to the alert on the page")


async def test_as_much_comes_in_as_a_service_takes(site: Site):
    headers = bearer(ALL_SCOPES) | {"Content-Type": "application/json"}
    body = b"[" + b" " * (MAX_BODY_BYTES - 2) + b"]"
    answer = await site.client.post(f"{site.urls['metering']}/api/usage/events", content=body, headers=headers)
    assert answer.status_code == 422, answer.text
    assert answer.headers["Content-Type"] == PROBLEM


async def test_what_is_larger_is_refused_before_all_of_it_is_sent(containers: Composed):
    """The gateway takes in a quarter of a megabyte before it answers, as Go's server does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(containers.made["ARAGORA_PORT"]))
    request = f"POST /api/usage/events HTTP/1.1\r\nHost: here\r\nContent-Length: {MAX_BODY_BYTES + 1}\r\n\r\n["
    writer.write(request.encode() + b" " * 300_000)
    said = (await reader.readuntil(b"}")).decode()
    writer.close()
    assert said.startswith("HTTP/1.1 413 ")
    assert PROBLEM in said
    assert f"exceeds {MAX_BODY_BYTES} bytes" in said


async def test_what_is_away_is_said_in_the_one_shape_of_errors(containers: Composed, site: Site):
    await containers.compose("stop", "billing-api")
    try:
        answer = await site.client.get(f"{site.urls['billing']}/api/subscription/plans", headers=bearer(ALL_SCOPES))
        assert (answer.status_code, answer.headers["Content-Type"]) == (503, PROBLEM)
        assert answer.headers["Retry-After"] == "1"
        assert answer.json().keys() == {"type", "title", "status", "detail", "errors"}
    finally:
        await containers.compose("start", "billing-api")
    answer = await site.client.get(f"{site.urls['auth']}/api/nothing-of-ours")
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, PROBLEM)
