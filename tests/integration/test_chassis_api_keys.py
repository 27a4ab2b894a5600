"""API keys on a real bus: asked of auth once, and forgotten at once when they are revoked."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from nats.aio.msg import Msg
from one_service import jwt_secret
from servers import eventually
from trust import KeysOfAuth, answering_for_auth, bus_client, digest, following, key_revoked, say

from aragora.billing.api_keys import new_api_key
from aragora.chassis import trust as trust_module
from aragora.chassis.problems import Problem
from aragora.chassis.trust import Trust
from aragora.contracts.keys import KeyVerdict
from aragora.contracts.topology import VERIFY_KEY


@pytest.fixture
async def auth(bus_url: str) -> AsyncIterator[KeysOfAuth]:
    async with answering_for_auth(bus_url) as answering:
        yield answering


@pytest.fixture
async def trust(bus_url: str) -> AsyncIterator[Trust]:
    with jwt_secret():
        async with following(bus_url) as following_trust:
            await following_trust.ready()
            yield following_trust


async def test_a_key_is_asked_about_once(auth: KeysOfAuth, trust: Trust):
    key, key_id = auth.issue()
    holders = await asyncio.gather(*(trust.verify_key(key) for _ in range(100)))
    assert {holder.key_id for holder in holders if holder} == {key_id}
    assert (await trust.verify_key(key)) == holders[0]
    assert auth.asked == {digest(key): 1}


async def test_after_its_time_it_is_asked_about_again(auth: KeysOfAuth, trust: Trust, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trust_module, "REMEMBERED_SECONDS", 0.0)
    key, _ = auth.issue()
    assert await trust.verify_key(key)
    auth.verdicts[digest(key)] = KeyVerdict(refused="plan")
    with pytest.raises(Problem, match="no API access") as caught:
        await trust.verify_key(key)
    assert caught.value.status_code == 403


async def test_a_revoked_key_is_refused_at_once(auth: KeysOfAuth, trust: Trust, bus_url: str):
    key, key_id = auth.issue()
    assert await trust.verify_key(key)
    async with bus_client(bus_url) as client:
        await say(client, key_revoked(key_id), "org_a")

    async def is_refused() -> bool:
        return await trust.verify_key(key) is None

    await eventually(is_refused, 1)
    assert auth.asked == {digest(key): 1}


async def test_a_revocation_overtakes_an_answer_that_is_under_way(
    auth: KeysOfAuth, trust: Trust, bus_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trust_module, "ASK_SECONDS", 30.0)
    key, key_id = auth.issue()
    auth.gate.clear()
    asking = asyncio.create_task(trust.verify_key(key))
    await eventually(lambda: auth.asked[digest(key)])
    async with bus_client(bus_url) as client:
        await say(client, key_revoked(key_id), "org_a")
    await eventually(lambda: len(trust._ended_keys))
    auth.gate.set()
    assert await asking is None
    assert await trust.verify_key(key) is None


async def test_nobodys_keys(auth: KeysOfAuth, trust: Trust):
    unknown = new_api_key()
    assert [await trust.verify_key(unknown) for _ in range(3)] == [None, None, None]
    assert auth.asked == {digest(unknown): 1}, "a wrong key is remembered too, briefly"
    for malformed in ("ara_", "ara_short", "ara_" + "x" * 500, "ara_ä" * 10, "svc_" + "k" * 43, ""):
        assert await trust.verify_key(malformed) is None
    assert len(auth.asked) == 1
    expired, _ = auth.issue(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert await trust.verify_key(expired) is None


async def test_without_auth_it_is_503(trust: Trust):
    with pytest.raises(Problem, match="try again") as caught:
        await trust.verify_key(new_api_key())
    assert (caught.value.status_code, caught.value.headers) == (503, {"Retry-After": "1"})


async def test_an_answer_that_is_none_is_503(trust: Trust, bus_url: str):
    async with bus_client(bus_url) as client:

        async def mumble(message: Msg) -> None:
            await message.respond(b"{}}")

        await client.subscribe(VERIFY_KEY, cb=mumble)
        await client.flush()
        with pytest.raises(Problem, match="try again"):
            await trust.verify_key(new_api_key())


async def test_one_caller_that_gives_up_leaves_the_others_their_answer(auth: KeysOfAuth, trust: Trust):
    key, key_id = auth.issue()
    auth.gate.clear()
    first, second = (asyncio.create_task(trust.verify_key(key)) for _ in range(2))
    await eventually(lambda: auth.asked[digest(key)])
    first.cancel()
    auth.gate.set()
    holder = await second
    assert holder is not None
    assert holder.key_id == key_id
    assert auth.asked == {digest(key): 1}


@pytest.mark.usefixtures("auth")
async def test_memory_is_bounded(bus_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trust_module, "MAX_REMEMBERED", 50)
    with jwt_secret():
        async with following(bus_url) as trust, bus_client(bus_url) as client:
            for number in range(200):
                await trust.verify_key(new_api_key())
                await say(client, key_revoked(f"key-{number}"), "org_a")
            await eventually(lambda: trust._ended_keys.get("key-199", 0))
            assert len(trust._verdicts) <= 50
            assert len(trust._ended_keys) <= 50
            assert trust._asking == {}
