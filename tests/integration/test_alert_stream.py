"""Alerts live: what comes, to whom, after what; and how a stream ends."""

import signal
import socket
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace

import httpx
import pytest
from event_streams import serving, streaming
from notifier_world import NotifierWorld, notifier_world
from one_service import KEYS, bearer, token
from servers import PostgresServer, eventually
from shown_alerts import show

from aragora.billing.jwt_auth import create_access_token, revoke_token, validate_access_token
from aragora.chassis.app import _Server
from notifier import alert_following
from notifier.alert_following import AlertStreams


@pytest.fixture(scope="module")
async def world(
    postgres_server: PostgresServer, notifier_template: str, nats_server: str
) -> AsyncIterator[NotifierWorld]:
    async with notifier_world(postgres_server, notifier_template, nats_server, works=False) as running:
        await running.app.state.trust.ready()
        yield running


@pytest.fixture
async def served(world: NotifierWorld) -> AsyncIterator[tuple[httpx.AsyncClient, _Server]]:
    async with serving(world.app) as running:
        yield running
    assert not streams_of(world)._open
    assert not streams_of(world)._people


@pytest.fixture
def client(served: tuple[httpx.AsyncClient, _Server]) -> httpx.AsyncClient:
    return served[0]


def streams_of(world: NotifierWorld) -> AlertStreams:
    return world.app.state.notifier_alert_streams


def path_of(user_id: str) -> str:
    return f"/api/subscription/alerts/{user_id}/stream"


async def test_an_alert_is_there_at_once_as_in_the_list(
    world: NotifierWorld, client: httpx.AsyncClient, org: str, user: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(alert_following, "LOOK_SECONDS", 3600.0)  # so that nobody comes upon it by looking
    await show(world, org, "limit.reached")
    key = token(user, org)
    async with streaming(client, path_of(user), key) as events:
        assert events.found == [("unread", {"unread_count": 1})]
        await eventually(lambda: streams_of(world)._live, what="the stream is live")
        (alert_id,) = await show(world, org, "limit.reached", title='A "title"\nof two lines')
        await eventually(lambda: len(events.found) == 3)
        page = await world.read("GET", f"/api/subscription/alerts/{user}", key=key)
        assert page["alerts"][0]["id"] == str(alert_id)
        assert events.found[1:] == [("alert", page["alerts"][0]), ("unread", {"unread_count": 2})]
        assert events.last_id == str(page["alerts"][0]["position"])
        await world.read("POST", f"/api/subscription/alerts/{alert_id}/mark-read", key=key)
        await eventually(lambda: events.of("unread")[-1] == {"unread_count": 1})
        await world.read("POST", f"/api/subscription/alerts/{user}/mark-all-read", key=key)
        await eventually(lambda: events.of("unread")[-1] == {"unread_count": 0})


async def test_everybody_gets_what_is_theirs(world: NotifierWorld, client: httpx.AsyncClient, org: str, user: str):
    owner = f"owner_{user}"
    world.book.add(org, user, "member")
    async with (
        streaming(client, path_of(user), token(user, org)) as members,
        streaming(client, path_of(owner), token(owner, org, "owner")) as owners,
        streaming(client, path_of(user), KEYS["usage.read"], org_id=org) as services,
    ):
        await show(world, f"another_{org}", "limit.reached", "payment.failed")
        (of_admins,) = await show(world, org, "payment.failed")
        (of_member,) = await show(world, org, "account.locked", user_id=user)
        (of_owner,) = await show(world, org, "account.locked", user_id=owner)
        (of_all,) = await show(world, org, "limit.reached")
        await eventually(lambda: min(len(each.ids) for each in (members, owners, services)) >= 2)
        await eventually(lambda: len(owners.ids) == 3)
        assert members.ids == services.ids == [str(of_member), str(of_all)]
        assert owners.ids == [str(of_admins), str(of_owner), str(of_all)]


async def test_who_comes_back_misses_nothing(world: NotifierWorld, client: httpx.AsyncClient, org: str, user: str):
    key = token(user, org)
    async with streaming(client, path_of(user), key) as events:
        await show(world, org, "limit.reached")
        await eventually(lambda: events.ids)
    missed = await show(world, org, *["limit.reached"] * 250)
    async with streaming(client, path_of(user), key, last_id=events.last_id) as later:
        missed += await show(world, org, "limit.reached")
        await eventually(lambda: len(later.ids) >= 251)
        assert later.ids == [str(each) for each in missed]
    async with streaming(client, path_of(user), key, after=str(later.last_id)) as nothing:
        await eventually(lambda: streams_of(world)._live, what="the stream is live")
        (newest,) = await show(world, org, "limit.reached")
        await eventually(lambda: nothing.ids == [str(newest)])


async def test_a_credential_that_ends_ends_the_stream(
    world: NotifierWorld, client: httpx.AsyncClient, org: str, user: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(streams_of(world), "heartbeat_seconds", 0.05)
    revoked = token(user, org)
    yesterday = datetime.now(UTC) - timedelta(hours=23)
    expiring = create_access_token(user, "somebody@example.com", org, "member", issued_at=yesterday)
    async with (
        streaming(client, path_of(user), revoked) as first,
        streaming(client, path_of(user), expiring) as second,
        streaming(client, path_of(user), token(user, org)) as third,
    ):
        await eventually(lambda: min(first.heartbeats, second.heartbeats, third.heartbeats) > 1)
        payload = validate_access_token(revoked)
        assert payload is not None
        revoke_token(payload.jti)
        await first.over()
        assert not second.is_over
        in_two_hours = SimpleNamespace(time=lambda: time.time() + 2 * 3600)
        monkeypatch.setattr("aragora.billing.tokens.time", in_two_hours)
        await second.over()
        (alert_id,) = await show(world, org, "limit.reached")
        await eventually(lambda: third.ids == [str(alert_id)])
        assert (first.ids, second.ids) == ([], [])


async def test_nothing_is_told_to_a_credential_that_has_ended(
    world: NotifierWorld, client: httpx.AsyncClient, org: str, user: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("notifier.alert_stream.TRUSTED_SECONDS", 0.0)
    revoked = token(user, org)
    async with streaming(client, path_of(user), revoked) as events:
        await eventually(lambda: streams_of(world)._live, what="the stream is live")
        payload = validate_access_token(revoked)
        assert payload is not None
        revoke_token(payload.jti)
        await show(world, org, "limit.reached")
        await events.over()
        assert events.ids == []


async def test_who_may_not_listen(client: httpx.AsyncClient, org: str, user: str):
    for key, query, status in (
        (None, {}, 401),
        (token(user, org, "owner") + "x", {}, 401),
        (token(f"other_{user}", org), {}, 403),
        (token(user, org), {"org_id": f"another_{org}"}, 403),
        (KEYS["usage.write"], {"org_id": org}, 403),
        (KEYS["usage.read"], {"org_id": org}, 404),
        (token(user, org), {"after": "-1"}, 422),
        (token(user, org), {"after": "9" * 19}, 422),
    ):
        answer = await client.get(path_of(user), params=query, headers=bearer(key))
        assert answer.status_code == status, query
    headers = bearer(token(user, org)) | {"Last-Event-ID": "7; DROP"}
    assert (await client.get(path_of(user), headers=headers)).status_code == 422


async def test_there_is_an_end_to_how_many(
    world: NotifierWorld, client: httpx.AsyncClient, org: str, user: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(streams_of(world), "max_streams_each", 1)
    monkeypatch.setattr(streams_of(world), "max_streams", 2)
    key, other = token(user, org), token(f"other_{user}", org)
    async with streaming(client, path_of(user), key):
        answer = await client.get(path_of(user), headers=bearer(key))
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "15")
        async with streaming(client, path_of(f"other_{user}"), other):
            third = f"third_{user}"
            answer = await client.get(path_of(third), headers=bearer(token(third, org)))
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    await eventually(lambda: not streams_of(world)._open, what="who has left is forgotten")
    async with streaming(client, path_of(user), key):
        assert len(streams_of(world)._open) == 1


async def test_who_does_not_read_is_dropped_and_nobody_else_waits(
    world: NotifierWorld, client: httpx.AsyncClient, org: str, user: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(alert_following, "MAX_WAITING", 30)
    asleep = f"asleep_{user}"
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect((client.base_url.host, client.base_url.port))
        one.sendall(
            f"GET {path_of(asleep)} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token(asleep, org)}\r\n\r\n".encode()
        )
        await eventually(lambda: streams_of(world)._live, what="the stream is live")
        monkeypatch.undo()
        async with streaming(client, path_of(user), token(user, org)) as events:
            await eventually(lambda: len(streams_of(world)._live) == 2, what="both are live")
            told = 0

            def got(count: int) -> bool:
                return len(events.ids) == count

            while len(streams_of(world)._open) == 2:
                told += len(await show(world, org, *["limit.reached"] * 20, message="m" * 50_000))
                assert told < 2000, "nobody was dropped"
                await eventually(partial(got, told), 20, what="who reads gets everything")
            assert [each.reader.user_id for each in streams_of(world)._open] == [user]


async def test_listening_goes_on_when_postgres_has_ended_it(
    world: NotifierWorld, client: httpx.AsyncClient, org: str, user: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(alert_following, "LOOK_SECONDS", 3600.0)
    async with streaming(client, path_of(user), token(user, org)) as events:
        await eventually(lambda: streams_of(world)._live, what="the stream is live")
        ended = await world.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )
        assert ended
        told = await show(world, org, "limit.reached")
        await eventually(lambda: events.ids == [str(each) for each in told], what="what came meanwhile")
        told += await show(world, org, "limit.reached")
        await eventually(lambda: events.ids == [str(each) for each in told], what="what comes later")


async def test_one_looks_although_nothing_was_heard(
    world: NotifierWorld, client: httpx.AsyncClient, org: str, user: str, monkeypatch: pytest.MonkeyPatch
):
    async with streaming(client, path_of(user), token(user, org)) as events:
        await eventually(lambda: streams_of(world)._live, what="the stream is live")
        monkeypatch.setattr(streams_of(world), "_wake", lambda _: None)
        told = await show(world, org, "limit.reached")
        await eventually(lambda: events.ids == [str(each) for each in told])


async def test_a_stop_does_not_wait_for_listeners(
    world: NotifierWorld, served: tuple[httpx.AsyncClient, _Server], org: str, user: str
):
    client, server = served
    async with streaming(client, path_of(user), token(user, org)) as events:
        (alert_id,) = await show(world, org, "limit.reached")
        await eventually(lambda: events.ids == [str(alert_id)])
        world.app.state.draining = True
        await events.over()
        refused = await client.get(path_of(user), headers=bearer(token(user, org)))
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        world.app.state.draining = False
    async with streaming(client, path_of(user), token(user, org)) as events:
        began = time.monotonic()
        server.handle_exit(signal.SIGTERM, None)
        await events.over()
        await eventually(lambda: not server.server_state.connections, what="every connection is closed")
        assert time.monotonic() - began < 3
