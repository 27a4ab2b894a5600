"""API keys over HTTP: made, listed, used, revoked, and by whom."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from auth_people import Team, team
from auth_platform import AuthPlatform
from one_service import ALL_SCOPES, bearer
from servers import eventually

from aragora.billing.api_keys import has_key_form, new_api_key
from aragora.contracts.events import ApiKeyIssued, ApiKeyRevoked
from aragora.contracts.keys import KEY_SCOPES
from auth.keys_api import Scope

KEYS = "/api/auth/api-keys"
WHOSE = "/api/auth/verify"
BODY: dict[str, Any] = {"name": "deploy", "scopes": ["usage.write"]}


@pytest.fixture(scope="module")
async def people(running_auth: AuthPlatform) -> Team:
    return await team(running_auth)


async def make(running: AuthPlatform, token: str, **body: Any) -> dict[str, Any]:
    made: dict[str, Any] = await running.read("POST", KEYS, BODY | body, token=token)
    return made


async def refused(running: AuthPlatform, key: str) -> bool:
    return (await running.ask("GET", WHOSE, token=key)).status_code == 401


def test_every_scope_may_be_asked_for():
    assert get_args(Scope) == KEY_SCOPES


async def test_a_key_is_shown_once_listed_by_its_prefix_used_and_revoked(running_auth: AuthPlatform, people: Team):
    expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    answer = await running_auth.ask(
        "POST", KEYS, BODY | {"name": " deploy ", "expires_at": expires_at.isoformat()},
        token=people.owner.access_token,
    )  # fmt: skip
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    made = answer.json()["data"]
    assert has_key_form(made["key"])
    assert (made["name"], made["scopes"], made["revoked_at"]) == ("deploy", ["usage.write"], None)
    assert made["prefix"] == made["key"][:12]
    assert datetime.fromisoformat(made["expires_at"]) == expires_at

    issued = await running_auth.hears(ApiKeyIssued, key_id=made["key_id"])
    assert (issued.user_id, issued.scopes) == (people.owner.user_id, ("usage.write",))
    whose = await running_auth.read("GET", WHOSE, token=made["key"])
    assert whose | {"expires_at": None} == {
        "token_type": "api_key",
        "user_id": people.owner.user_id,
        "org_id": people.org_id,
        "role": "member",
        "scopes": ["usage.write"],
        "expires_at": None,
    }

    listed = await running_auth.ask("GET", KEYS, token=people.owner.access_token)
    (found,) = [one for one in listed.json()["data"] if one["key_id"] == made["key_id"]]
    assert found["last_used_at"] is not None
    assert "key" not in found
    assert "digest" not in found
    assert made["key"] not in listed.text

    for _ in range(2):
        await running_auth.read("DELETE", f"{KEYS}/{made['key_id']}", token=people.owner.access_token)
    await eventually(lambda: refused(running_auth, made["key"]), 1)  # whoever remembers it hears of it from the bus
    await running_auth.hears(ApiKeyRevoked, key_id=made["key_id"])
    assert len(running_auth.heard_of(ApiKeyRevoked, key_id=made["key_id"])) == 1


async def test_who_may_make_see_and_revoke(running_auth: AuthPlatform, people: Team):
    owner, admin, member, stranger = (
        each.access_token for each in (people.owner, people.admin, people.member, people.stranger)
    )
    theirs = await make(running_auth, admin)
    for token in (member, stranger):
        answer = await running_auth.ask("POST", KEYS, BODY | {"org_id": people.org_id}, token=token)
        assert answer.status_code == 403
    for org_id in (people.org_id, "nobodys", "platform"):
        for method, path in (("GET", KEYS), ("DELETE", f"{KEYS}/{theirs['key_id']}"), ("DELETE", f"{KEYS}/none")):
            assert (await running_auth.ask(method, path, token=stranger, org_id=org_id)).status_code == 403

    assert await running_auth.read("GET", KEYS, token=member) == []
    for key_id in (theirs["key_id"], "none"):
        assert (await running_auth.ask("DELETE", f"{KEYS}/{key_id}", token=member)).status_code == 403
    assert (await running_auth.ask("DELETE", f"{KEYS}/none", token=owner)).status_code == 404
    assert theirs["key_id"] in [one["key_id"] for one in await running_auth.read("GET", KEYS, token=owner)]
    await running_auth.read("DELETE", f"{KEYS}/{theirs['key_id']}", token=owner)


async def test_the_members_decide_not_what_the_token_says(running_auth: AuthPlatform):
    people = await team(running_auth)
    old = people.admin.access_token
    made = await make(running_auth, old)
    role = f"/api/organizations/{people.org_id}/members/{people.admin.user_id}/role"
    await running_auth.read("PUT", role, {"role": "member"}, token=people.owner.access_token)
    fresh = (await running_auth.sign_in(people.admin))["access_token"]
    answer = await running_auth.ask("POST", KEYS, BODY | {"org_id": people.org_id}, token=fresh)
    assert answer.status_code == 403
    assert [one["key_id"] for one in await running_auth.read("GET", KEYS, token=fresh)] == [made["key_id"]]
    await running_auth.read("DELETE", f"{KEYS}/{made['key_id']}", token=fresh)


async def test_keys_make_no_keys_and_nobody_does_without_a_credential(running_auth: AuthPlatform, people: Team):
    key = (await make(running_auth, people.owner.access_token))["key"]
    for token, status in (
        (key, 403),
        (ALL_SCOPES, 403),
        (None, 401),
        ("ara_x", 401),
        (people.owner.access_token[:-3], 401),
    ):
        for method, path in (("POST", KEYS), ("GET", KEYS), ("DELETE", f"{KEYS}/some")):
            answer = await running_auth.ask(method, path, BODY if method == "POST" else None, token=token)
            assert answer.status_code == status


async def test_whose_credential_it_is(running_auth: AuthPlatform, people: Team):
    mine = await running_auth.read("GET", WHOSE, token=people.admin.access_token)
    assert mine["token_type"] == "access"
    assert (mine["user_id"], mine["org_id"], mine["role"]) == (people.admin.user_id, people.org_id, "admin")
    assert datetime.fromisoformat(mine["expires_at"]) > datetime.now(UTC)
    service = await running_auth.read("GET", WHOSE, token=ALL_SCOPES)
    assert (service["token_type"], service["user_id"], service["org_id"]) == ("service_key", None, None)
    assert "operator" in service["scopes"]
    for credential in (None, new_api_key(), "ara_", "ara_" + "x" * 197, "ara_ä" + "x" * 20, "svc_x", "a.b.c"):
        headers = {b"Authorization": b"Bearer " + credential.encode()} if credential else {}
        answer = await running_auth.client.get(WHOSE, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["title"] == "Unauthorized"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": 7}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["operator"]}, "scopes.0"),
        ({"scopes": ["usage.read"] * 3}, "scopes"),
        ({"scopes": "usage.read"}, "scopes"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2020-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59Z"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-23:59"}, "expires_at"),
        ({"expires_at": "0001-01-01T00:00:00+23:59"}, "expires_at"),
        ({"expires_at": "soon"}, "expires_at"),
        ({"org_id": "a b"}, "org_id"),
        ({"role": "owner"}, "role"),
    ],
)
async def test_bad_input_names_the_field(running_auth: AuthPlatform, people: Team, change: dict[str, Any], field: str):
    answer = await running_auth.ask("POST", KEYS, BODY | change, token=people.owner.access_token)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_a_plan_must_have_api_access(running_auth: AuthPlatform):
    person = await running_auth.register()
    answer = await running_auth.client.post(KEYS, json=BODY, headers=bearer(person.access_token))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    await running_auth.entitle(person.org_id, features={"api_access": False})
    assert (await running_auth.ask("POST", KEYS, BODY, token=person.access_token)).status_code == 403
    await running_auth.entitle(person.org_id, features={"api_access": True})
    await make(running_auth, person.access_token)


async def test_the_hundredth_key_is_the_last(running_auth: AuthPlatform):
    person = await running_auth.register()
    await running_auth.entitle(person.org_id, features={"api_access": True})
    asked = [running_auth.ask("POST", KEYS, BODY, token=person.access_token) for _ in range(105)]
    found = sorted(answer.status_code for answer in await asyncio.gather(*asked))
    assert found == [201] * 100 + [409] * 5


async def test_a_key_ends_with_its_makers_membership_and_with_the_organization(running_auth: AuthPlatform):
    people = await team(running_auth)
    theirs = (await make(running_auth, people.admin.access_token))["key"]
    owners = (await make(running_auth, people.owner.access_token))["key"]
    await running_auth.read("GET", WHOSE, token=theirs)  # from now on it is remembered
    await running_auth.read("GET", WHOSE, token=owners)
    member = f"/api/organizations/{people.org_id}/members/{people.admin.user_id}"
    await running_auth.read("DELETE", member, token=people.owner.access_token)
    await eventually(lambda: refused(running_auth, theirs), 5)
    await running_auth.read("GET", WHOSE, token=owners)
    home = f"/api/organizations/{people.org_id}"
    slug = (await running_auth.read("GET", home, token=people.owner.access_token))["slug"]
    await running_auth.read("DELETE", home, {"slug": slug}, token=people.owner.access_token)
    await eventually(lambda: refused(running_auth, owners), 5)
