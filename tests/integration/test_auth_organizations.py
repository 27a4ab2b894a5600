"""Organizations and their members over HTTP: what people may do, what is refused, what follows for tokens and keys."""

import asyncio
from typing import Any

import pytest
from auth_orgs import found, newcomer, operator_token, roles
from auth_platform import AuthPlatform, Person, any_email
from servers import eventually

from aragora.contracts.events import (
    ApiKeyRevoked,
    MemberRemoved,
    OrganizationCreated,
    OrganizationDeleted,
    RoleChanged,
    UserTokensRevoked,
)

ORGANIZATIONS = "/api/organizations"


async def test_an_organization_is_founded_read_and_renamed(running_auth: AuthPlatform):
    ann = await running_auth.register(name="Ann Archer")
    mine = await running_auth.read("GET", ORGANIZATIONS, token=ann.access_token)
    assert [(one["org_id"], one["name"], one["role"]) for one in mine] == [(ann.org_id, "My organization", "owner")]
    assert mine[0]["slug"].startswith("my-organization-")
    name = f"  Łódź & Söhne {any_email()[7:13]} "
    made = await running_auth.read("POST", ORGANIZATIONS, {"name": name}, token=ann.access_token)
    assert (made["name"], made["role"], made["members"], made["plan"]) == (name.strip(), "owner", 1, None)
    created = await running_auth.hears(OrganizationCreated, slug=made["slug"])
    assert (created.owner_id, created.name) == (ann.user_id, made["name"])
    await running_auth.entitle(made["org_id"], seats=3)
    path = f"{ORGANIZATIONS}/{made['org_id']}"
    slug = f"new-{made['slug']}"
    renamed = await running_auth.read("PATCH", path, {"name": "Acme", "slug": slug}, token=ann.access_token)
    assert renamed == made | {"name": "Acme", "slug": slug, "plan": {"name": "Test", "seats": 3}}
    assert await running_auth.read("GET", f"{ORGANIZATIONS}/{slug}", token=ann.access_token) == renamed
    assert await running_auth.read("GET", path, token=ann.access_token) == renamed
    assert await running_auth.read("PATCH", path, {}, token=ann.access_token) == renamed
    assert (await running_auth.ask("GET", f"{ORGANIZATIONS}/{made['slug']}", token=ann.access_token)).status_code == 403
    ids = [one["org_id"] for one in await running_auth.read("GET", ORGANIZATIONS, token=ann.access_token)]
    assert ids == [ann.org_id, made["org_id"]]


async def test_a_slug_is_one_organizations_only(running_auth: AuthPlatform):
    ann, name = await running_auth.register(), f"Twice {any_email()[7:13]}"
    answers = await asyncio.gather(
        *(running_auth.read("POST", ORGANIZATIONS, {"name": name}, token=ann.access_token) for _ in range(8))
    )
    slugs = {one["slug"] for one in answers}
    plain = name.lower().replace(" ", "-")
    assert len(slugs) == 8
    assert plain in slugs
    refused = await running_auth.ask("POST", ORGANIZATIONS, {"name": "X", "slug": plain}, token=ann.access_token)
    assert (refused.status_code, "choose another" in refused.json()["detail"]) == (409, True)
    other = next(one for one in answers if one["slug"] != plain)
    path = f"{ORGANIZATIONS}/{other['org_id']}"
    assert (await running_auth.ask("PATCH", path, {"slug": plain}, token=ann.access_token)).status_code == 409
    assert await running_auth.read("GET", path, token=ann.access_token) == other


async def test_members_see_each_other_and_roles_decide(running_auth: AuthPlatform):
    owner = await running_auth.register(name="Olga")
    path = await found(running_auth, owner)
    admin, member = [await newcomer(running_auth, owner, path, role) for role in ("admin", "member")]
    listed = await running_auth.read("GET", f"{path}/members", token=member.access_token)
    assert [(one["user_id"], one["name"], one["email"], one["role"]) for one in listed] == [
        (owner.user_id, "Olga", owner.email, "owner"), (admin.user_id, None, admin.email, "admin"),
        (member.user_id, None, member.email, "member"),
    ]  # fmt: skip

    async def change(by: Person, whom: Person, role: str) -> int:
        url = f"{path}/members/{whom.user_id}/role"
        return (await running_auth.ask("PUT", url, {"role": role}, token=by.access_token)).status_code

    assert await change(member, member, "admin") == 403
    assert await change(admin, member, "owner") == 403
    assert await change(admin, owner, "member") == 403
    assert await change(owner, owner, "admin") == 409
    assert await change(admin, member, "admin") == 200
    await running_auth.hears(RoleChanged, user_id=member.user_id, role="admin")
    # The token from before says another role, and counts no more; the session gives one that is right.
    assert await change(member, member, "member") == 401
    member.access_token = (await running_auth.sign_in(member))["access_token"]
    assert await change(member, admin, "member") == 200
    assert await roles(running_auth, owner, path) == {
        owner.user_id: "owner", admin.user_id: "member", member.user_id: "admin",
    }  # fmt: skip


async def test_who_is_removed_loses_tokens_and_keys(running_auth: AuthPlatform):
    owner = await running_auth.register()
    path = await found(running_auth, owner)
    org_id = path.rpartition("/")[2]
    await running_auth.entitle(org_id, features={"api_access": True})
    admin = await newcomer(running_auth, owner, path, "admin")
    body = {"name": "ci", "scopes": ["usage.read"]}
    key = await running_auth.read("POST", "/api/auth/api-keys", body, token=admin.access_token)
    refused = await running_auth.ask("DELETE", f"{path}/members/{owner.user_id}", token=admin.access_token)
    assert refused.status_code == 403
    url = f"{path}/members/{admin.user_id}"
    assert (await running_auth.ask("DELETE", url, token=owner.access_token)).status_code == 200
    assert (await running_auth.ask("DELETE", url, token=owner.access_token)).status_code == 404
    assert (await running_auth.ask("GET", path, token=admin.access_token)).status_code == 401
    revoked = await running_auth.hears(ApiKeyRevoked, key_id=key["key_id"])
    assert revoked.reason == "member_removed"
    await running_auth.hears(MemberRemoved, user_id=admin.user_id)
    ended = await running_auth.hears(UserTokensRevoked, user_id=admin.user_id)
    assert ended.org_id == org_id
    again = (await running_auth.sign_in(admin))["access_token"]
    assert (await running_auth.ask("GET", path, token=again)).status_code == 403
    assert await running_auth.read("GET", ORGANIZATIONS, token=again) == []


async def test_the_last_owner_transfers_before_leaving(running_auth: AuthPlatform):
    owner = await running_auth.register()
    path = await found(running_auth, owner)
    member = await newcomer(running_auth, owner, path)
    refused = await running_auth.ask("POST", f"{path}/leave", token=owner.access_token)
    assert (refused.status_code, "transfer it" in refused.json()["detail"]) == (409, True)
    to = {"user_id": member.user_id}
    assert (await running_auth.ask("POST", f"{path}/transfer", to, token=member.access_token)).status_code == 403
    transferred = await running_auth.read("POST", f"{path}/transfer", to, token=owner.access_token)
    assert transferred["role"] == "admin"
    assert (await running_auth.ask("POST", f"{path}/leave", token=owner.access_token)).status_code == 200
    assert (await running_auth.ask("POST", f"{path}/leave", token=owner.access_token)).status_code == 403
    member.access_token = (await running_auth.sign_in(member))["access_token"]
    assert await roles(running_auth, member, path) == {member.user_id: "owner"}


async def test_deleting_needs_the_slug_and_is_for_ever(running_auth: AuthPlatform):
    owner = await running_auth.register()
    path = await found(running_auth, owner)
    admin = await newcomer(running_auth, owner, path, "admin")
    slug = (await running_auth.read("GET", path, token=owner.access_token))["slug"]
    wrong = await running_auth.ask("DELETE", path, {"slug": "acne"}, token=owner.access_token)
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "slug")
    assert (await running_auth.ask("DELETE", path, {"slug": "acne"}, token=admin.access_token)).status_code == 403
    assert (await running_auth.ask("DELETE", path, {"slug": slug}, token=owner.access_token)).status_code == 200
    await running_auth.hears(UserTokensRevoked, user_id=admin.user_id)
    org_id, heard = path.rpartition("/")[2], running_auth.heard
    await eventually(lambda: org_id in [outer.subject for outer, one in heard if isinstance(one, OrganizationDeleted)])
    for by in (owner.access_token, operator_token(owner)):
        expected = 403 if by == owner.access_token else 404
        for method, body in (("GET", None), ("PATCH", {"name": "Back"}), ("DELETE", {"slug": slug})):
            for url in (path, f"{ORGANIZATIONS}/{slug}"):
                assert (await running_auth.ask(method, url, body, token=by)).status_code == expected
    taken = await running_auth.ask("POST", ORGANIZATIONS, {"name": "A", "slug": slug}, token=owner.access_token)
    assert taken.status_code == 409
    assert await running_auth.query("SELECT user_id FROM members WHERE org_id = $1 AND left_at IS NULL", org_id) == []


async def test_an_operator_may_do_all_but_leave_it_without_an_owner(running_auth: AuthPlatform):
    owner, stranger = await running_auth.register(), await running_auth.register()
    path = await found(running_auth, owner)
    key = operator_token(stranger)
    assert (await running_auth.read("GET", path, token=key))["role"] is None
    assert (await running_auth.read("PATCH", path, {"name": "Ours"}, token=key))["name"] == "Ours"
    assert (await running_auth.ask("DELETE", f"{path}/members/{owner.user_id}", token=key)).status_code == 409
    assert (await running_auth.ask("GET", f"{ORGANIZATIONS}/nowhere", token=key)).status_code == 404
    assert (await running_auth.ask("GET", f"{path}/invitations", token=key)).status_code == 200
    member = await newcomer(running_auth, owner, path)
    await running_auth.read("POST", f"{path}/transfer", {"user_id": member.user_id}, token=key)
    assert set((await roles(running_auth, owner, path)).values()) == {"owner"}


ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "", None), ("PATCH", "", {"name": "Mine"}), ("DELETE", "", {"slug": "x"}), ("POST", "/leave", None),
    ("GET", "/members", None), ("PUT", "/members/x/role", {"role": "admin"}), ("DELETE", "/members/x", None),
    ("POST", "/transfer", {"user_id": "x"}), ("POST", "/invitations", {"email": "x@example.com"}),
    ("GET", "/invitations", None), ("DELETE", "/invitations/x", None),
]  # fmt: skip


@pytest.mark.parametrize(("method", "rest", "body"), ROUTES)
async def test_a_stranger_cannot_tell_what_there_is(running_auth: AuthPlatform, method: str, rest: str, body: Any):
    owner, admin_elsewhere = await running_auth.register(), await running_auth.register()
    path = await found(running_auth, owner)
    answers = [
        await running_auth.ask(method, where + rest, body, token=admin_elsewhere.access_token)
        for where in (path, f"{ORGANIZATIONS}/nowhere", f"{ORGANIZATIONS}/platform")
    ]
    assert {answer.status_code for answer in answers} == {403}
    assert len({answer.text for answer in answers}) == 1
    assert (await running_auth.ask(method, path + rest, body)).status_code == 401


WRONG: list[tuple[str, str, Any]] = [
    ("POST", "", {}), ("POST", "", {"name": " "}), ("POST", "", {"name": "a\x00b"}), ("POST", "", {"name": "a\u0081b"}),
    ("POST", "", {"name": "x" * 101}), ("POST", "", {"name": 7}), ("POST", "", {"name": "A", "owner": "eve"}),
    ("POST", "", {"name": "A", "slug": "Not A Slug"}), ("POST", "", {"name": "A", "slug": "a" * 64}),
    ("POST", "", ["A"]), ("PATCH", "/here", {"slug": "-a"}), ("PATCH", "/here", {"name": ""}),
    ("PUT", "/here/members/x/role", {"role": "king"}), ("PUT", "/here/members/x%00/role", {"role": "admin"}),
    ("DELETE", "/here/members/x%0a", None), ("GET", "/he%00re", None), ("GET", "/he%20re", None),
    ("POST", "/here/transfer", {"user_id": "x\x00"}), ("POST", "/here/transfer", {"user_id": ""}),
    ("DELETE", "/here", {}), ("POST", "/here/invitations", {"email": "no address"}),
    ("POST", "/here/invitations", {"email": "x@example.com", "role": "operator"}),
    ("POST", "/here/invitations", {"email": "\u0430nn@example.com"}), ("DELETE", "/here/invitations/%00", None),
]  # fmt: skip


async def test_what_does_not_fit_is_named(running_auth: AuthPlatform):
    ann = await running_auth.register()
    for method, rest, body in WRONG:
        path = ORGANIZATIONS + rest.replace("/here", f"/{ann.org_id}")
        answer = await running_auth.ask(method, path, body, token=ann.access_token)
        assert answer.status_code == 422, (method, rest, body, answer.text)
        assert answer.json()["errors"], (method, rest, body)
