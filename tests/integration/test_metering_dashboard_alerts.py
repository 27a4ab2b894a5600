"""Unread alerts on the dashboard: what the notifier says over the bus, and what is shown when it says nothing."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from metering_platform import MeteringPlatform, metering_platform
from nats.aio.client import Client
from nats.aio.msg import Msg
from one_service import token
from servers import PostgresServer
from usage import native

from standalone.nats import EmbeddedNats

SUBJECT = "rpc.notifier.unread_alerts"


@asynccontextmanager
async def notifier(platform: MeteringPlatform, reply: bytes | None) -> AsyncIterator[list[bytes]]:
    """Somebody on the bus who answers so, or hears and is silent. Gives the questions that came."""
    questions: list[bytes] = []

    async def hear(message: Msg) -> None:
        questions.append(message.data)
        if reply is not None:
            await message.respond(reply)

    client = Client()
    await client.connect(platform.bus_url)
    try:
        await client.subscribe(SUBJECT, cb=hear)
        await client.flush()
        yield questions
    finally:
        await client.close()


async def unread(platform: MeteringPlatform, user: str, org: str) -> object:
    """What the dashboard says; the rest of it is there in any case."""
    answer = await platform.get(f"/api/subscription/dashboard/{user}", key=token(user, org))
    assert answer.status_code == 200, answer.text
    assert answer.elapsed.total_seconds() < 3
    page = answer.json()["data"]
    assert page["current_usage"]["org_id"] == org
    return page["summary"]["unread_alerts"]


async def test_the_notifier_is_asked_about_this_person(platform: MeteringPlatform, org: str, user: str):
    async with notifier(platform, b'{"unread": 2, "since": "yesterday"}') as questions:
        assert await unread(platform, user, org) == 2
    assert [json.loads(question) for question in questions] == [{"org_id": org, "user_id": user}]
    async with notifier(platform, b'{"unread": 0}'):
        assert await unread(platform, user, org) == 0


async def test_nobody_answers(platform: MeteringPlatform, org: str, user: str):
    assert await unread(platform, user, org) is None


async def test_it_hears_and_is_silent(platform: MeteringPlatform, org: str, user: str):
    async with notifier(platform, None) as questions:
        assert await unread(platform, user, org) is None
    assert len(questions) == 1


@pytest.mark.parametrize(
    "reply",
    [
        b"", b"2", b"null", b"[]", b"{}", b'{"unread": "2"}', b'{"unread": -1}', b'{"unread": 2.5}',
        b'{"unread": true}', b'{"unread": null}', b'{"unread": 2', b'{"unread": 1e400}', b"\xff\xfe",
        b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b', "unread": 2}',
    ],
    ids=lambda reply: reply[:24].decode(errors="replace"),
)  # fmt: skip
async def test_it_answers_nonsense(platform: MeteringPlatform, org: str, user: str, reply: bytes):
    async with notifier(platform, reply) as questions:
        assert await unread(platform, user, org) is None
    assert len(questions) == 1


async def test_metering_may_ask_with_its_own_account_and_does_not_need_the_bus_for_the_rest(
    postgres_server: PostgresServer, metering_template: str, private_nats: Callable[[], Awaitable[EmbeddedNats]]
):
    nats = await private_nats()
    async with metering_platform(
        postgres_server, metering_template, nats.url(), account_url=nats.url("metering")
    ) as platform:
        await platform.record(native(org_id="org_a", user_id="ann"))
        async with notifier(platform, b'{"unread": 3}'):
            assert await unread(platform, "ann", "org_a") == 3
        await nats.kill()
        assert await unread(platform, "ann", "org_a") is None
        await nats.start()
