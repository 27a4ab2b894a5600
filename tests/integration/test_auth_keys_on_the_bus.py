"""What auth answers and hears on the bus: whose key is this, what does a letter say, what does a plan include."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from auth_people import Team, team
from auth_platform import SEALING_KEYS, AuthPlatform, any_email

from aragora.billing.api_keys import digest_of, new_api_key
from aragora.chassis.sealing import Sealer
from aragora.contracts.contacts import READ_CONTACTS, Contacts
from aragora.contracts.keys import KeyVerdict
from aragora.contracts.messages import READ_MESSAGE, MessageVerdict
from aragora.contracts.topology import VERIFY_KEY
from auth.messages import token_of


@pytest.fixture(scope="module")
async def people(running_auth: AuthPlatform) -> Team:
    return await team(running_auth)


async def key_of(running: AuthPlatform, token: str) -> str:
    body = {"name": "deploy", "scopes": ["usage.read"]}
    key: str = (await running.read("POST", "/api/auth/api-keys", body, token=token))["key"]
    return key


async def verdict(running: AuthPlatform, key: str) -> KeyVerdict:
    question = json.dumps({"digest": digest_of(key), "asked_by": "a later version"}).encode()
    return msgspec.json.decode((await running.bus.request(VERIFY_KEY, question, timeout=5)).data, type=KeyVerdict)


async def read(running: AuthPlatform, message_id: str) -> MessageVerdict:
    question = json.dumps({"message_id": message_id}).encode()
    return msgspec.json.decode((await running.bus.request(READ_MESSAGE, question, timeout=5)).data, type=MessageVerdict)


async def test_many_ask_at_once_and_each_gets_their_own_answer(running_auth: AuthPlatform, people: Team):
    keys = [await key_of(running_auth, people.owner.access_token) for _ in range(5)]
    keys += [new_api_key() for _ in range(5)]
    asked = [key for key in keys for _ in range(60)]
    found = await asyncio.gather(*(verdict(running_auth, key) for key in asked))
    ids = {
        key: {one.holder.key_id for k, one in zip(asked, found, strict=True) if k == key and one.holder} for key in keys
    }
    assert [len(ids[key]) for key in keys] == [1] * 5 + [0] * 5
    assert len(set().union(*ids.values())) == 5
    assert {one.refused for one in found} == {None, "unknown"}
    holder = found[0].holder
    assert holder is not None
    assert (holder.org_id, holder.user_id, holder.scopes) == (people.org_id, people.owner.user_id, ("usage.read",))


async def test_a_key_of_a_plan_that_lost_its_api_access_is_told_apart(running_auth: AuthPlatform):
    person = await running_auth.register()
    await running_auth.entitle(person.org_id, features={"api_access": True})
    key = await key_of(running_auth, person.access_token)
    await running_auth.entitle(person.org_id, features={"api_access": False})
    assert await verdict(running_auth, key) == KeyVerdict(refused="plan")
    answer = await running_auth.ask("GET", "/api/auth/verify", token=key)
    assert answer.status_code == 403
    assert "API access" in answer.json()["detail"]


@pytest.mark.parametrize(
    "question",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"digest": null}', b'{"digest": "ABC"}',
        b'{"digest": "%s"}' % (b"A" * 64), b'{"digest": "%s\\u0000"}' % (b"a" * 64), b'{"message_id": ""}',
        b'{"message_id": "a\\u0000b"}', b'{"message_id": "\\ud800"}', b'{"message_id": 7}',
        b'{"message_id": "%s"}' % (b"x" * 129),
    ],
    ids=lambda question: repr(question[:24]),
)  # fmt: skip
@pytest.mark.parametrize("subject", [VERIFY_KEY, READ_MESSAGE, READ_CONTACTS])
async def test_a_malformed_question_is_refused(running_auth: AuthPlatform, subject: str, question: bytes):
    answer = await running_auth.bus.request(subject, question, timeout=5)
    assert json.loads(answer.data)["refused"] == "unknown"


async def test_a_letter_is_told_until_it_is_used(running_auth: AuthPlatform):
    person = await running_auth.register()
    secret = await running_auth.letter(person.email, "verify_email")
    message_id = secret.partition(".")[0]
    letter = (await read(running_auth, message_id)).message
    assert letter is not None
    assert (letter.kind, letter.email, letter.token, letter.org_name) == ("verify_email", person.email, secret, None)
    assert secret not in repr(letter)
    assert person.email not in repr(letter)
    await running_auth.ask("POST", "/api/auth/verify-email", {"token": secret})
    assert await read(running_auth, message_id) == MessageVerdict(refused="unknown")


async def test_an_invitation_names_who_invites_until_it_is_withdrawn(running_auth: AuthPlatform, people: Team):
    email, path = any_email(), f"/api/organizations/{people.org_id}"
    token = people.owner.access_token
    await running_auth.read("POST", f"{path}/invitations", {"email": email, "role": "member"}, token=token)
    message_id = (await running_auth.letter(email, "invitation")).partition(".")[0]
    letter = (await read(running_auth, message_id)).message
    assert letter is not None
    assert letter.org_name == (await running_auth.read("GET", path, token=token))["name"]
    assert letter.token == token_of(Sealer(SEALING_KEYS, "auth"), "invitation", message_id)
    await running_auth.read("DELETE", f"{path}/invitations/{message_id}", token=token)
    assert await read(running_auth, message_id) == MessageVerdict(refused="unknown")


async def contacts(running: AuthPlatform, **asked: str) -> Contacts:
    question = json.dumps(asked).encode()
    return msgspec.json.decode((await running.bus.request(READ_CONTACTS, question, timeout=5)).data, type=Contacts)


async def test_who_belongs_to_an_organization_is_told_with_their_address(running_auth: AuthPlatform, people: Team):
    found = await contacts(running_auth, org_id=people.org_id)
    assert {one.user_id: one.role for one in found.contacts} == {
        people.owner.user_id: "owner", people.admin.user_id: "admin", people.member.user_id: "member",
    }  # fmt: skip
    assert {one.email for one in found.contacts} == {people.owner.email, people.admin.email, people.member.email}
    assert found.org_name
    assert people.owner.email not in repr(found)
    assert not (await contacts(running_auth, org_id="org_of_nobody")).contacts


async def test_a_large_organization_is_told_in_answers_that_the_bus_takes(running_auth: AuthPlatform):
    owner = await running_auth.register()
    await running_auth.query(
        "WITH made AS (INSERT INTO users (user_id, email, name, created_at)"
        " SELECT 'large_' || n, 'large_' || n || repeat('e', 240) || '@x.co', repeat('ä', 100), now()"
        " FROM generate_series(1, 2500) n RETURNING user_id)"
        " INSERT INTO members (org_id, user_id, role, joined_at) SELECT $1, user_id, 'member', now() FROM made",
        owner.org_id,
    )
    try:
        found = await contacts(running_auth, org_id=owner.org_id)
        told = list(found.contacts)
        while found.more:
            found = await contacts(running_auth, org_id=owner.org_id, after=told[-1].user_id)
            told += found.contacts
        assert len({one.user_id for one in told}) == len(told) == 2501
    finally:
        await running_auth.query("DELETE FROM members WHERE user_id LIKE 'large_%'")
        await running_auth.query("DELETE FROM users WHERE user_id LIKE 'large_%'")


async def test_a_person_is_told_until_they_are_erased(running_auth: AuthPlatform):
    person = await running_auth.register()
    (found,) = (await contacts(running_auth, user_id=person.user_id)).contacts
    assert (found.email, found.verified, found.role) == (person.email, False, None)
    secret = await running_auth.letter(person.email, "verify_email")
    await running_auth.ask("POST", "/api/auth/verify-email", {"token": secret})
    assert (await contacts(running_auth, user_id=person.user_id)).contacts[0].verified
    body = {"password": person.password}
    answer = await running_auth.ask("DELETE", "/api/auth/me", body, token=person.access_token)
    assert answer.is_success, answer.text
    assert not (await contacts(running_auth, user_id=person.user_id)).contacts
    assert not (await contacts(running_auth, org_id=person.org_id)).contacts


async def test_an_event_that_is_none_stops_nobody(running_auth: AuthPlatform, people: Team):
    garbage: list[Any] = [b"{", b'{"specversion": "1.0"}']
    for body in garbage:
        await running_auth.bus.jetstream().publish("events.billing.EntitlementsChanged.some", body)
    await running_auth.entitle(people.org_id, seats=7, features={"api_access": True})
    (row,) = await running_auth.query("SELECT seats FROM entitlements WHERE org_id = $1", people.org_id)
    assert row["seats"] == 7
