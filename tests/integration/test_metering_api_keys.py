"""An organization's programs: they record, ask and read what is their own organization's, and nobody else's."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from limits import LimitAsker, entitle, entitlements, limit
from metering_platform import MeteringPlatform
from one_service import token
from servers import eventually
from trust import KeysOfAuth, answering_for_auth, bus_client, key_revoked, new_token, say, token_revoked
from usage import cloudevent, native

from aragora.billing.jwt_auth import create_access_token

BATCH = "application/cloudevents-batch+json"
BOTH = ("usage.read", "usage.write")
CALL = {"operations": [{"provider": "openai"}]}


@pytest.fixture(scope="module")
async def keys(platform: MeteringPlatform) -> AsyncIterator[KeysOfAuth]:
    async with answering_for_auth(platform.bus_url) as answering:
        yield answering


async def test_it_records_its_own_organizations_usage_only(platform: MeteringPlatform, keys: KeysOfAuth, org: str):
    key, _ = keys.issue(org, BOTH)
    before = await platform.published()
    batch = [native(org_id=each) for each in (org, "org_theirs", org, "org_others")]
    refused = await platform.post(batch, key=key)
    assert refused.status_code == 403
    assert [(one["index"], one["field"]) for one in refused.json()["errors"]] == [(1, "org_id"), (3, "org_id")]
    refused = await platform.post([cloudevent(org_id=org), cloudevent(org_id="org_theirs")], BATCH, key=key)
    assert [(one["index"], one["field"]) for one in refused.json()["errors"]] == [(1, "subject")]
    wrong = await platform.post([native(org_id="org_theirs"), native(org_id=org, tokens_in=-1)], key=key)
    assert (wrong.status_code, [one["index"] for one in wrong.json()["errors"]]) == (422, [1])
    assert await platform.published() == before
    assert (await platform.post([native(org_id=org, id="ours"), native(org_id=org)], key=key)).status_code == 202
    await platform.settled()
    log = (await platform.get("/api/usage/events", key=key)).json()
    assert len(log["events"]) == 2
    assert (await platform.get("/api/usage/events", key=key, org_id="org_theirs")).status_code == 403


async def test_its_scopes_hold(platform: MeteringPlatform, keys: KeysOfAuth, org: str):
    reading, writing = (keys.issue(org, (scope,))[0] for scope in BOTH)
    assert (await platform.post([native(org_id=org)], key=reading)).status_code == 403
    assert (await platform.get("/api/usage/events", key=writing)).status_code == 403
    assert (await platform.get("/api/usage/events", key=reading)).status_code == 200
    assert (await platform.post([native(org_id=org)], key=writing)).status_code == 202


async def test_it_reserves_for_its_own_organization_only(platform: MeteringPlatform, keys: KeysOfAuth, org: str):
    other = f"{org}_2"
    for each in (org, other):
        await entitle(platform.database_url, {each: entitlements(limit("api_calls", 10))})
    async with bus_client(platform.bus_url) as bus:
        asker, key = LimitAsker(platform, bus), keys.issue(org, BOTH)[0]
        assert (await asker.ask("check", {**CALL, "user_id": "bob"}, key=key)).status_code == 200
        held = await asker.ask("reserve", CALL, key=key)
        assert held.status_code == 201
        foreign = (await asker.ask("reserve", {**CALL, "org_id": other})).json()["reservation_id"]
        for verb in ("check", "reserve"):
            assert (await asker.ask(verb, {**CALL, "org_id": other}, key=key)).status_code == 403
        ours: dict[str, Any] = {"reservation_id": held.json()["reservation_id"]}
        theirs: dict[str, Any] = {"reservation_id": foreign}
        for verb, more in (("extend", {"ttl_seconds": 60}), ("release", {})):
            assert (await asker.ask(verb, {**theirs, **more, "org_id": other}, key=key)).status_code == 403
            assert (await asker.ask(verb, {**theirs, **more}, key=key)).status_code == 404
            assert (await asker.ask(verb, {**ours, **more}, key=key)).status_code == 200
        assert (await platform.get(f"/api/usage/reservations/{foreign}", key=key)).status_code == 404
        assert (await platform.get(f"/api/usage/reservations/{foreign}", key=key, org_id=other)).status_code == 403
        shown = await platform.get(f"/api/usage/reservations/{ours['reservation_id']}", key=key)
        assert shown.json()["state"] == "released"


async def test_an_operator_in_person_may_do_what_a_service_key_may(platform: MeteringPlatform, org: str):
    operator = create_access_token("root", "root@example.com", operator=True)
    await entitle(platform.database_url, {org: entitlements(limit("api_calls", 10))})
    assert (await platform.post([native(org_id=org), native(org_id=f"{org}_2")], key=operator)).status_code == 202
    await platform.settled()
    for path in ("/api/usage/events", "/api/subscription/usage/user_ann", "/api/subscription/dashboard/user_ann"):
        assert (await platform.get(path, key=operator, org_id=org)).status_code == 200
        assert (await platform.get(path, key=operator)).status_code == 403
    async with bus_client(platform.bus_url) as bus:
        asker = LimitAsker(platform, bus)
        for verb, status in (("check", 200), ("reserve", 201)):
            question = {**CALL, "org_id": org, "user_id": "user_ann"}
            assert (await asker.ask(verb, question, key=operator)).status_code == status
            assert (await asker.ask(verb, question, key=token("ann", org, "owner"))).status_code == 403


async def test_what_is_revoked_is_refused_within_a_second(platform: MeteringPlatform, keys: KeysOfAuth, org: str):
    key, key_id = keys.issue(org, BOTH)
    person, payload = new_token(org_id=org)
    for credential in (key, person):
        assert (await platform.get("/api/usage/events", key=credential)).status_code == 200
    async with bus_client(platform.bus_url) as auth:
        await say(auth, key_revoked(key_id), org)
        await say(auth, token_revoked(payload))

    async def both_are_refused() -> bool:
        return {(await platform.get("/api/usage/events", key=each)).status_code for each in (key, person)} == {401}

    await eventually(both_are_refused, 1)
