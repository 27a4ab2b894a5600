"""Revocations on a real bus: known before anybody is let in, and through every interruption."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import nats.errors
import pytest
from fastapi import FastAPI
from one_service import jwt_secret
from servers import delete_streams, eventually
from trust import all_revoked, bus_client, following, new_token, say, session_revoked, token_revoked

from aragora.billing.jwt_auth import validate_access_token
from aragora.chassis.app import create_app
from aragora.chassis.following import follow
from aragora.chassis.problems import Problem
from aragora.chassis.trust import Trust, trusting
from aragora.contracts.topology import EVENTS, REVOCATIONS
from standalone.nats import EmbeddedNats
from standalone.platform import apply_streams

StartNats = Callable[[], Awaitable[EmbeddedNats]]


@pytest.fixture(autouse=True)
def secret():
    with jwt_secret():
        yield


async def test_what_was_said_before_the_start_counts(bus_url: str):
    spoken = [new_token(), new_token(session_id="s-of-before"), new_token()]
    good, _ = new_token()
    async with bus_client(bus_url) as auth:
        for revoked, (_, payload) in zip((token_revoked, session_revoked, all_revoked), spoken, strict=True):
            await say(auth, revoked(payload))
    assert all(validate_access_token(text) for text, _ in spoken)
    async with following(bus_url) as trust:
        with pytest.raises(Problem, match="not known here yet") as caught:
            trust.demand()
        assert (caught.value.status_code, caught.value.headers) == (503, {"Retry-After": "1"})
        await asyncio.wait_for(trust.ready(), 5)
        trust.demand()
    assert [validate_access_token(text) for text, _ in spoken] == [None, None, None]
    assert validate_access_token(good)


async def test_a_bus_that_is_killed_and_started_again_loses_nothing(private_nats: StartNats):
    server = await private_nats()
    await apply_streams(server)
    before, during, after = new_token(), new_token(), new_token()
    async with following(server.url()) as trust:
        await trust.ready()
        async with bus_client(server.url()) as auth:
            await say(auth, token_revoked(before[1]))
        await eventually(lambda: validate_access_token(before[0]) is None)
        await server.kill()
        await server.start()
        async with bus_client(server.url()) as auth:
            await say(auth, token_revoked(during[1]))
            started_at = time.monotonic()
            await eventually(lambda: validate_access_token(during[0]) is None)
            print(f"heard {time.monotonic() - started_at:.1f} s after the bus was back")
            await say(auth, token_revoked(after[1]))
            await eventually(lambda: validate_access_token(after[0]) is None, 1)


async def test_a_stream_made_anew_is_followed_from_its_beginning(bus_url: str):
    async with following(bus_url) as trust, bus_client(bus_url) as auth:
        for _ in range(5):
            await say(auth, token_revoked(new_token()[1]))
        await trust.ready()
        await delete_streams(bus_url)
        await make_events(bus_url)
        text, payload = new_token()
        await say(auth, token_revoked(payload))
        await eventually(lambda: validate_access_token(text) is None)


async def test_what_a_slow_reader_lost_is_fetched_again(bus_url: str, monkeypatch: pytest.MonkeyPatch):
    heard: list[bytes] = []
    caught_up, subscriptions = asyncio.Event(), 0
    async with bus_client(bus_url) as client, bus_client(bus_url) as auth:
        subscribe = client.subscribe

        async def cramped(subject: str, **more: Any) -> Any:
            nonlocal subscriptions
            subscriptions += 1
            return await subscribe(subject, **more, pending_msgs_limit=20)

        monkeypatch.setattr(client, "subscribe", cramped)
        for number in range(70):
            await auth.publish("events.auth.TokenRevoked.platform", b"%d" % number)
        await auth.flush()
        since = datetime.now(UTC) - timedelta(hours=1)
        task = asyncio.create_task(follow(client, "events.auth.TokenRevoked.*", since, heard.append, caught_up))
        try:
            await eventually(lambda: len(heard) >= 70, 20)
            await auth.publish("events.auth.TokenRevoked.platform", b"70")
            await eventually(lambda: len(heard) >= 71)
        finally:
            task.cancel()
    assert heard == [b"%d" % number for number in range(71)]
    assert subscriptions > 1


async def test_a_message_that_is_no_event_is_passed_over(bus_url: str):
    text, payload = new_token()
    async with following(bus_url) as trust, bus_client(bus_url) as auth:
        for nonsense in (b"", b"{}", b"\xff", b"[" * 100_000, b'{"specversion":"1.0"}'):
            await auth.jetstream().publish("events.auth.TokenRevoked.platform", nonsense)
        await say(auth, token_revoked(payload))
        await trust.ready()
        await eventually(lambda: validate_access_token(text) is None)


async def test_no_stream_at_the_start_means_not_ready_until_there_is_one(nats_url: str):
    async with bus_client(nats_url) as client:

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            async with trusting(app, client):
                yield

        app = create_app(title="T", version="1", routers=[], lifespans=[lifespan, lifespan])
        async with app.router.lifespan_context(app), api_of(app) as http:
            trust: Trust = app.state.trust
            assert len(trust._tasks) == len(REVOCATIONS), "two services in one process share one"
            unready = await http.get("/readyz")
            assert (unready.status_code, [one["field"] for one in unready.json()["errors"]]) == (503, ["revocations"])
            await make_events(nats_url)
            await asyncio.wait_for(trust.ready(), 10)
            assert (await http.get("/readyz")).status_code == 200
        assert app.state.trust is None


@pytest.mark.parametrize("account", ["auth", "metering", "billing"])
async def test_a_service_follows_revocations_and_nothing_else(private_nats: StartNats, account: str):
    server = await private_nats()
    await apply_streams(server)
    text, payload = new_token()
    async with bus_client(server.url("auth"), "auth") as auth, following(server.url(account), account) as trust:
        await asyncio.wait_for(trust.ready(), 5)
        await say(auth, token_revoked(payload))
        await eventually(lambda: validate_access_token(text) is None)
    errors: list[str] = []

    async def note(error: Exception) -> None:
        errors.append(str(error).lower())

    async with bus_client(server.url(account), account) as client:
        client._error_cb = note
        for subject in ("UserErased.*", "*.*", ">"):
            with pytest.raises(nats.errors.TimeoutError):
                await client.jetstream(timeout=0.3).add_consumer(
                    EVENTS.name,
                    name="mine",
                    filter_subject=f"events.auth.{subject}",
                    deliver_subject=client.new_inbox(),
                )
        if account != "auth":
            await client.subscribe("rpc.auth.>")
            await client.subscribe("rpc.auth.verify_key")
            await client.flush()
            await eventually(lambda: len([error for error in errors if "rpc.auth" in error]) == 2)
        await eventually(lambda: len([error for error in errors if "consumer.create.events" in error]) == 3)


async def make_events(url: str) -> None:
    """The stream of events alone."""
    async with bus_client(url) as operator:
        await operator.jetstream().add_stream(name=EVENTS.name, subjects=list(EVENTS.subjects))


def api_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
