"""A person's data: all of it told to them, all of it erased."""

import asyncio
from typing import Any

import asyncpg
import pytest
from auth_people import join, operator, team
from auth_platform import AuthPlatform, Person, any_email

from aragora.contracts.events import ApiKeyRevoked, OrganizationDeleted, UserErased

ME = "/api/auth/me"
EXPORT = "/api/auth/me/export"


async def everything(running: AuthPlatform) -> str:
    """All that the database holds, as text."""
    connection = await asyncpg.connect(running.database_url)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        rows = [
            row["row"]
            for table in tables
            for row in await connection.fetch(f"SELECT t::text AS row FROM {table['tablename']} AS t")
        ]
    finally:
        await connection.close()
    return "\n".join(rows)


async def erase(running: AuthPlatform, person: Person, **body: Any) -> int:
    body = {"password": person.password} | body
    return (await running.ask("DELETE", ME, body, token=person.access_token)).status_code


async def test_the_export_tells_everything_and_no_secret(running_auth: AuthPlatform):
    people = await team(running_auth)
    admin, owner = people.admin, people.owner
    key = await running_auth.read(
        "POST", "/api/auth/api-keys", {"name": "deploy", "scopes": ["usage.read"]}, token=admin.access_token
    )
    role = f"/api/organizations/{people.org_id}/members/{admin.user_id}/role"
    await running_auth.read("PUT", role, {"role": "member"}, token=owner.access_token)
    await running_auth.ask("POST", "/api/auth/forgot-password", {"email": admin.email})
    tokens = await running_auth.sign_in(admin)
    await running_auth.read("PATCH", ME, {"name": "Ada Example"}, token=tokens["access_token"])
    answer = await running_auth.ask("GET", EXPORT, token=tokens["access_token"])
    assert answer.headers["cache-control"] == "no-store"
    found = answer.json()["data"]
    assert (found["account"]["email"], found["account"]["name"]) == (admin.email, "Ada Example")
    assert [(one["org_id"], one["role"], one["left_at"]) for one in found["memberships"]] == [
        (people.org_id, "member", None)
    ]
    assert len(found["sessions"]) == 2
    assert [one["key_id"] for one in found["api_keys"]] == [key["key_id"]]
    assert [(one["org_id"], one["status"]) for one in found["invitations"]] == [(people.org_id, "accepted")]
    assert "invitation" in {one["kind"] for one in found["letters"]}
    assert {one["action"] for one in found["audit"]} >= {"registered", "role_changed", "personal_data_exported"}
    assert not [one for one in found["audit"] if one["actor"] == owner.user_id and one["address"]]
    assert "/api/usage/events" in found["elsewhere"]
    for secret in ("argon2", "digest", key["key"], owner.email, tokens["refresh_token"]):
        assert secret not in answer.text
    assert (await running_auth.ask("GET", EXPORT)).status_code == 401
    assert (await running_auth.ask("GET", EXPORT, token=key["key"])).status_code == 403


async def test_nothing_is_left_of_an_erased_person(running_auth: AuthPlatform):
    people = await team(running_auth)
    email = any_email()
    person = await running_auth.register(email, name="Ada Erased-Hopper")
    await running_auth.entitle(person.org_id, features={"api_access": True})
    key = await running_auth.read(
        "POST", "/api/auth/api-keys", {"name": "deploy", "scopes": ["usage.read"]}, token=person.access_token
    )
    invitations = f"/api/organizations/{people.org_id}/invitations"
    invited = {"email": email, "role": "member"}
    await running_auth.read("POST", invitations, invited, token=people.owner.access_token)
    letter = await running_auth.letter(email, "invitation")
    await running_auth.ask("POST", "/api/auth/forgot-password", {"email": email})
    await running_auth.ask(
        "POST", "/api/auth/login", {"email": email, "password": "wrong-password"}, address="192.0.2.77"
    )
    await running_auth.ask("GET", ME, token=person.access_token)

    assert await erase(running_auth, person, password="wrong-password") == 401
    assert await erase(running_auth, person) == 200
    erased = await running_auth.hears(UserErased, user_id=person.user_id)
    assert erased.org_ids == (person.org_id,)
    await running_auth.hears(ApiKeyRevoked, key_id=key["key_id"])
    await running_auth.hears(OrganizationDeleted)

    assert (await running_auth.ask("GET", ME, token=person.access_token)).status_code == 401
    assert (
        await running_auth.ask("POST", "/api/auth/refresh", {"refresh_token": person.refresh_token})
    ).status_code == 401
    signing_in = {"email": email, "password": person.password}
    assert (await running_auth.ask("POST", "/api/auth/login", signing_in)).status_code == 401
    held = await everything(running_auth)
    for trace in (email, "Erased-Hopper", "192.0.2.77", key["key"]):
        assert trace not in held
    rows = await running_auth.query(
        "SELECT action, address, program FROM security_events WHERE user_id = $1 OR actor = $1", person.user_id
    )
    assert {row["action"] for row in rows} >= {"registered", "sign_in", "user_erased"}
    assert {(row["address"], row["program"]) for row in rows} == {(None, None)}

    again = await running_auth.register(email)  # the address is free, and nothing of the past comes back
    assert again.user_id != person.user_id
    answer = await running_auth.ask("POST", "/api/invitations/accept", {"token": letter}, token=again.access_token)
    assert answer.status_code == 422


async def test_the_last_owner_of_others_cannot_go(running_auth: AuthPlatform):
    people = await team(running_auth)
    answer = await running_auth.ask("DELETE", ME, {"password": people.owner.password}, token=people.owner.access_token)
    assert answer.status_code == 409
    assert "transfer" in answer.json()["detail"]
    await running_auth.read("GET", ME, token=people.owner.access_token)
    transfer = f"/api/organizations/{people.org_id}/transfer"
    await running_auth.read("POST", transfer, {"user_id": people.admin.user_id}, token=people.owner.access_token)
    people.owner.access_token = (await running_auth.sign_in(people.owner))["access_token"]
    assert await erase(running_auth, people.owner) == 200
    erased = await running_auth.hears(UserErased, user_id=people.owner.user_id)
    assert erased.org_ids == (people.org_id,)
    members = await running_auth.query(
        "SELECT user_id FROM members WHERE org_id = $1 AND left_at IS NULL", people.org_id
    )
    assert {row["user_id"] for row in members} == {people.admin.user_id, people.member.user_id}


async def test_former_organizations_hear_of_it_too(running_auth: AuthPlatform):
    people = await team(running_auth)
    leave = f"/api/organizations/{people.org_id}/leave"
    await running_auth.read("POST", leave, token=people.member.access_token)
    people.member.access_token = (await running_auth.sign_in(people.member))["access_token"]
    assert await erase(running_auth, people.member) == 200
    assert (await running_auth.hears(UserErased, user_id=people.member.user_id)).org_ids == (people.org_id,)


async def test_asked_many_times_at_once_it_is_done_once(running_auth: AuthPlatform):
    boss, person = await operator(running_auth), await running_auth.register()
    path = f"/api/auth/users/{person.user_id}"
    asked = [running_auth.ask("DELETE", path, token=boss.access_token) for _ in range(8)]
    found = [answer.status_code for answer in await asyncio.gather(*asked)]
    assert set(found) <= {200, 409}
    assert 200 in found
    await running_auth.read("DELETE", path, token=boss.access_token)
    await running_auth.hears(UserErased, user_id=person.user_id)
    (row,) = await running_auth.query(
        "SELECT count(*) AS events FROM events WHERE stream = $1 AND type LIKE '%UserErased%'", f"user/{person.user_id}"
    )
    assert row["events"] == 1


async def test_only_operators_erase_others(running_auth: AuthPlatform):
    people, boss = await team(running_auth), await operator(running_auth)
    path = f"/api/auth/users/{people.member.user_id}"
    for token, status in ((people.owner.access_token, 403), (people.member.access_token, 403), (None, 401)):
        assert (await running_auth.ask("DELETE", path, token=token)).status_code == status
    assert (await running_auth.ask("DELETE", "/api/auth/users/nobody", token=boss.access_token)).status_code == 404
    for user_id in ("a%00b", "x" * 129):
        answer = await running_auth.ask("DELETE", f"/api/auth/users/{user_id}", token=boss.access_token)
        assert answer.status_code == 422
    own = await running_auth.ask("DELETE", f"/api/auth/users/{boss.user_id}", token=boss.access_token)
    assert own.status_code == 403
    await running_auth.read("DELETE", path, token=boss.access_token)
    assert (await running_auth.ask("GET", ME, token=people.member.access_token)).status_code == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "password"),
        ({"password": ""}, "password"),
        ({"password": "x" * 1_000_000}, "password"),
        ({"password": 7}, "password"),
        ({"password": "p", "code": ""}, "code"),
        ({"password": "p", "sure": True}, "sure"),
    ],
)
async def test_bad_input_names_the_field(running_auth: AuthPlatform, body: dict[str, Any], field: str):
    person = await running_auth.register()
    answer = await running_auth.ask("DELETE", ME, body, token=person.access_token)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_whoever_joins_meanwhile_is_erased_from_there_too_or_not_at_all(running_auth: AuthPlatform):
    people, boss = await team(running_auth), await operator(running_auth)
    for _ in range(5):
        person = await join(running_auth, people.owner, "member")
        invited = {"email": person.email, "role": "member"}
        other = await running_auth.register()
        await running_auth.entitle(other.org_id, features={})
        await running_auth.read(
            "POST", f"/api/organizations/{other.org_id}/invitations", invited, token=other.access_token
        )
        secret = await running_auth.letter(person.email, "invitation")
        joined, gone = await asyncio.gather(
            running_auth.ask("POST", "/api/invitations/accept", {"token": secret}, token=person.access_token),
            running_auth.ask("DELETE", f"/api/auth/users/{person.user_id}", token=boss.access_token),
        )
        left = await running_auth.query(
            "SELECT org_id FROM members WHERE user_id = $1 AND left_at IS NULL", person.user_id
        )
        if gone.status_code == 200:
            assert left == []
        else:
            assert (gone.status_code, joined.status_code) == (409, 200)
