"""The audit log: what is in it, who may read what of it, and how it is filtered and paged."""

from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from auth_people import Team, operator, team
from auth_platform import AuthPlatform, Person

from aragora.chassis import sql
from aragora.contracts.ids import new_id

MINE = "/api/auth/audit"


@pytest.fixture(scope="module")
async def people(running_auth: AuthPlatform) -> Team:
    found = await team(running_auth)
    path = f"/api/organizations/{found.org_id}/members"
    gone = f"{path}/{found.member.user_id}"
    await running_auth.read("PUT", f"{gone}/role", {"role": "admin"}, token=found.owner.access_token)
    await running_auth.read("PUT", f"{gone}/role", {"role": "member"}, token=found.owner.access_token)
    for person in (found.member, found.admin):
        person.access_token = (await running_auth.sign_in(person))["access_token"]
    await running_auth.ask("POST", "/api/auth/login", {"email": found.member.email, "password": "wrong-password"})
    return found


@pytest.fixture(scope="module")
async def boss(running_auth: AuthPlatform) -> Person:
    return await operator(running_auth)


def log_of(org: str) -> str:
    return f"/api/organizations/{org}/audit"


async def entries(running: AuthPlatform, path: str, person: Person, **filters: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await running.read("GET", path, token=person.access_token, **filters))["entries"]
    return found


async def test_an_organizations_log_tells_its_administrators(running_auth: AuthPlatform, people: Team, boss: Person):
    slug = (await running_auth.read("GET", f"/api/organizations/{people.org_id}", token=people.owner.access_token))[
        "slug"
    ]
    found = await entries(running_auth, log_of(people.org_id), people.owner)
    assert [one["action"] for one in found].count("member_joined") == 2
    assert {one["org_id"] for one in found} == {people.org_id}
    assert sorted(found, key=lambda one: one["id"], reverse=True) == found
    (first, _) = await entries(running_auth, log_of(people.org_id), people.owner, action="role_changed")
    assert (first["actor"], first["user_id"], first["succeeded"]) == (people.owner.user_id, people.member.user_id, True)
    assert first["address"].startswith("10.")
    assert first["program"].startswith("python-httpx")
    assert first["detail"]["role"] == "member"
    for org, person in ((slug, people.owner), (people.org_id, people.admin), (slug, boss)):
        assert await entries(running_auth, log_of(org), person) == found  # reading is noted nowhere


async def test_who_may_not_read_an_organizations_log(running_auth: AuthPlatform, people: Team, boss: Person):
    for person, org, status in (
        (people.member, people.org_id, 403),
        (people.stranger, people.org_id, 403),
        (people.stranger, "nobodys", 403),
        (people.owner, "platform", 403),
        (boss, "nobodys", 404),
    ):
        assert (await running_auth.ask("GET", log_of(org), token=person.access_token)).status_code == status
    assert (await running_auth.ask("GET", log_of(people.org_id))).status_code == 401
    assert (await running_auth.ask("GET", log_of("a%00b"), token=boss.access_token)).status_code == 422


async def test_a_person_reads_what_concerns_them(running_auth: AuthPlatform, people: Team):
    member = people.member
    found = await entries(running_auth, MINE, member)
    assert {one["user_id"] for one in found} == {member.user_id}
    actions = {one["action"] for one in found}
    assert {"registered", "sign_in", "member_joined", "role_changed"} <= actions
    (failed,) = await entries(running_auth, MINE, member, succeeded=False)
    assert (failed["action"], failed["actor"]) == ("sign_in", None)
    assert failed["address"] is not None
    changed = await entries(running_auth, MINE, member, action="role_changed")
    assert {(one["actor"], one["address"], one["program"]) for one in changed} == {(people.owner.user_id, None, None)}
    assert await entries(running_auth, MINE, member, user_id=member.user_id) == found
    answer = await running_auth.ask("GET", MINE, token=member.access_token, user_id=people.owner.user_id)
    assert answer.status_code == 403


async def test_an_operator_reads_everything(running_auth: AuthPlatform, people: Team, boss: Person):
    found = await entries(running_auth, MINE, boss, limit=500)
    assert {people.member.user_id, people.stranger.user_id, boss.user_id} <= {one["user_id"] for one in found}
    of_member = await entries(running_auth, MINE, boss, user_id=people.member.user_id)
    assert {one["user_id"] for one in of_member} == {people.member.user_id}
    by_owner = await entries(running_auth, MINE, boss, actor=people.owner.user_id, action="role_changed")
    assert len(by_owner) == 2
    assert by_owner[0]["address"] is not None


async def test_pages_hold_every_entry_once(running_auth: AuthPlatform, people: Team, boss: Person):
    # Not what other modules' tests have left: all of that is more than the largest page.
    since = (await entries(running_auth, log_of(people.org_id), people.owner, limit=500))[-1]["occurred_at"]
    for path, person in ((log_of(people.org_id), people.owner), (MINE, people.member), (MINE, boss)):
        whole = await entries(running_auth, path, person, limit=500, since=since)
        cursor: str | None = None
        pages: list[list[dict[str, Any]]] = []
        while cursor is not None or not pages:
            page = await running_auth.read("GET", path, token=person.access_token, limit=2, cursor=cursor, since=since)
            pages.append(page["entries"])
            cursor = page["next_cursor"]
        assert [entry for page in pages for entry in page] == whole
        assert [len(page) for page in pages[:-1]] == [2] * (len(pages) - 1)


async def test_a_span_of_time_holds_its_beginning_and_not_its_end(running_auth: AuthPlatform, people: Team):
    path, owner = log_of(people.org_id), people.owner
    whole = await entries(running_auth, path, owner)
    moment = whole[1]["occurred_at"]
    since = await entries(running_auth, path, owner, since=moment)
    until = await entries(running_auth, path, owner, until=moment)
    assert since + until == whole
    assert whole[1] in since
    assert await entries(running_auth, path, owner, since=datetime(9999, 12, 31, tzinfo=UTC).isoformat()) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("action", "a\0"), ("action", "Sign In"), ("action", ""), ("user_id", "a\0b"), ("actor", ""),
        ("actor", "x" * 129), ("succeeded", "perhaps"), ("since", "yesterday"), ("since", "2026-01-01T00:00:00"),
        ("since", "0001-01-01T00:00:00+23:59"), ("until", "9999-12-31T23:59:59-23:59"), ("limit", "0"),
        ("limit", "501"), ("limit", "ten"), ("cursor", "x"), ("cursor", "A" * 65), ("cursor", "ä" * 24),
    ],
)  # fmt: skip
async def test_bad_input_names_the_field(running_auth: AuthPlatform, people: Team, name: str, value: str):
    for path in (MINE, log_of(people.org_id)):
        answer = await running_auth.ask("GET", path, token=people.owner.access_token, **{name: value})
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json()["errors"]] == [name]


async def test_a_page_is_found_by_an_index(auth_database_url: str):
    queries = sql.load("auth", "sql/audit.sql")
    connection = await asyncpg.connect(auth_database_url)
    try:
        await connection.execute(
            "INSERT INTO security_events SELECT gen_random_uuid(), 'org' || n % 500, 'user' || n % 500, "
            "'user' || n % 400, 'sign_in', true, NULL, NULL, '{}', now() FROM generate_series(1, 20000) AS n"
        )
        await connection.execute("ANALYZE security_events")
        rest = (new_id(), None, None, None, None, None)
        for query, arguments, index in (
            (queries.audit_of_organization, ("org1", *rest, None, 101), "security_events_org_id"),
            (queries.audit_of_person, ("user1", *rest, 101), "security_events_user_id"),
            (queries.audit_of_all, (*rest, 101), "security_events_pkey"),
        ):
            plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {query}", *arguments))
            assert index in plan, plan
            assert "Seq Scan" not in plan
    finally:
        await connection.close()
