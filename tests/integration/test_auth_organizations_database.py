"""What organizations leave in the database, and what happens at once or at other times than now."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from servers import eventually

from aragora.chassis import store
from aragora.chassis.sealing import Sealer
from aragora.chassis.sql import Pool
from aragora.chassis.store import VersionConflict
from aragora.contracts.ids import new_id
from auth import commands, domain, housekeeping, invitations, messages, organizations, privacy
from auth.acts import Act, Caller, acting
from auth.commands import Actor
from auth.domain import Organization
from auth.revocations import hold_user

NOW = datetime(2026, 12, 15, 12, tzinfo=UTC)
SEALER = Sealer("tests-seal-with-this-key-of-forty-bytes!", "auth")


class World:
    """A database with people in it, and a clock that stands where it is put."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.now = NOW

    def act(self) -> AbstractAsyncContextManager[Act]:
        return acting(self.pool, lambda: self.now, Caller())

    async def person(self) -> str:
        user_id = str(new_id())
        await self.pool.execute(
            "INSERT INTO users (user_id, email, created_at) VALUES ($1, $2, $3)", user_id, address(user_id), NOW
        )
        return user_id

    async def organization(self, owner: str, name: str | None = "Acme") -> str:
        async with self.act() as act:
            org_id = await organizations.create(act, owner, name)
        await self.pool.execute(
            "INSERT INTO entitlements (org_id, revision, plan_name, api_access) VALUES ($1, 1, 'Test', false)", org_id
        )
        return org_id

    async def invite(self, org_id: str, by: str, whom: str, role: str = "member") -> str:
        async with self.act() as act:
            invitation_id = await invitations.invite(act, org_id, Actor(by), address(whom), role)  # type: ignore[arg-type]  # a role
        return messages.token_of(SEALER, "invitation", invitation_id)

    async def accept(self, secret: str, whom: str) -> str:
        async with self.act() as act:
            return await invitations.accept(act, SEALER, secret, whom, address(whom))

    async def leave_all(self, user_id: str) -> tuple[str, ...]:
        async with self.act() as act:
            return await organizations.leave_all(act, user_id)

    async def execute(self, org_id: str, command: commands.Command) -> Organization:
        async with self.act() as act:
            return await organizations.execute(act, org_id, command)

    async def blocked(self, sessions: int = 1) -> bool:
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return await self.pool.fetchval(waiting) >= sessions


def address(user_id: str) -> str:
    return f"{user_id}@example.com"


@pytest.fixture
async def world(auth_database_url: str) -> AsyncIterator[World]:
    async with asyncpg.create_pool(auth_database_url, min_size=1, max_size=8) as pool:
        yield World(pool)


async def test_an_invitation_expires_with_its_letter(world: World):
    ann, bea = await world.person(), await world.person()
    org_id = await world.organization(ann)
    secret = await world.invite(org_id, ann, bea)
    world.now = NOW + messages.LIFETIMES["invitation"]
    with pytest.raises(messages.InvalidMessageToken):
        await world.accept(secret, bea)
    fresh = await world.invite(org_id, ann, bea)
    assert await world.accept(fresh, bea) == org_id


async def test_the_rows_are_those_that_the_events_say(world: World):
    ann, bea, cem, dan = [await world.person() for _ in range(4)]
    org_id = await world.organization(ann)
    for whom, role in ((bea, "admin"), (cem, "member")):
        await world.accept(await world.invite(org_id, ann, whom, role), whom)
    await world.invite(org_id, bea, dan)
    await world.execute(org_id, commands.TransferOwnership(Actor(ann), cem))
    await world.execute(org_id, commands.Remove(Actor(cem), bea))
    await world.accept(await world.invite(org_id, ann, dan), dan)
    await world.execute(org_id, commands.Rename(Actor("ops", is_operator=True), "Ace", "ace"))
    async with world.pool.acquire() as connection:
        _, events = await store.load(connection, "organization", org_id=org_id)
    state = Organization()
    for event in events:
        state = domain.evolve(state, event)
    rows = await world.pool.fetch("SELECT user_id, role FROM members WHERE left_at IS NULL")
    assert {row["user_id"]: row["role"] for row in rows} == state.members == {ann: "admin", cem: "owner", dan: "member"}
    (row,) = await world.pool.fetch("SELECT name, slug FROM organizations")
    assert (row["name"], row["slug"]) == (state.name, state.slug) == ("Ace", "ace")
    statuses = await world.pool.fetch("SELECT status FROM invitations ORDER BY invitation_id")
    assert [one["status"] for one in statuses] == ["accepted", "accepted", "withdrawn", "accepted"]
    noted = await world.pool.fetch("SELECT action FROM security_events ORDER BY event_id")
    assert [one["action"] for one in noted] == [
        "organization_created", "member_invited", "member_joined", "member_invited", "member_joined", "member_invited",
        "ownership_transferred", "member_removed", "member_invited", "member_joined", "organization_renamed",
    ]  # fmt: skip
    assert "@" not in str(await world.pool.fetch("SELECT data::text FROM events"))


async def test_whoever_is_erased_leaves_everything_or_hears_what_is_in_the_way(world: World):
    ann, bea = await world.person(), await world.person()
    alone, left, shared, owned = [await world.organization(ann, name) for name in ("Alone", "Left", "Shared", None)]
    for org_id in (left, shared, owned):
        await world.accept(await world.invite(org_id, ann, bea, "owner" if org_id != owned else "member"), bea)
    await world.execute(left, commands.Leave(ann))
    with pytest.raises(commands.LastOwner, match=r"my-organization-[0-9a-f]{8}: transfer") as refused:
        await world.leave_all(ann)
    assert refused.value.slug.startswith("my-organization-")
    assert await world.pool.fetchval("SELECT count(*) FROM members WHERE user_id = $1 AND left_at IS NULL", ann) == 3
    await world.execute(owned, commands.TransferOwnership(Actor(ann), bea))
    assert await world.leave_all(ann) == tuple(sorted([alone, left, shared, owned]))
    deleted = await world.pool.fetch("SELECT org_id FROM organizations WHERE deleted_at IS NOT NULL")
    assert [row["org_id"] for row in deleted] == [alone]
    assert await world.leave_all(ann) == tuple(sorted([alone, left, shared, owned]))
    async with world.pool.acquire() as connection:
        assert await organizations.first_organization(connection, ann) is None
        assert await organizations.membership_of(connection, bea, owned) == "owner"
        assert await organizations.membership_of(connection, ann, owned) is None


async def test_who_joins_while_being_erased_is_noticed(world: World):
    ann, bea = await world.person(), await world.person()
    org_id, _ = await world.organization(ann), await world.organization(bea, "Other")
    secret = await world.invite(org_id, ann, bea)
    async with world.act() as joining:
        await invitations.accept(joining, SEALER, secret, bea, address(bea))
        leaving = asyncio.create_task(world.leave_all(bea))
        await eventually(world.blocked)
    with pytest.raises(VersionConflict):
        await leaving
    assert len(await world.leave_all(bea)) == 2
    await world.pool.execute("UPDATE users SET email = NULL, erased_at = $2 WHERE user_id = $1", bea, NOW)
    with pytest.raises(commands.AccountErased):
        await world.organization(bea)


async def test_who_asks_for_a_letter_while_being_erased_gets_none(world: World):
    ann = await world.person()
    await world.organization(ann)
    asked = "INSERT INTO reset_requests (request_id, email, requested_at) VALUES ($1, $2, $3)"

    async def erase() -> None:
        async with world.act() as act:
            await privacy.erase(act, ann)

    await world.pool.execute(asked, str(new_id()), address(ann), NOW)
    async with world.act() as act:
        await hold_user(act, ann)
        erasing = asyncio.create_task(erase())
        await eventually(world.blocked)
        await world.pool.execute(asked, str(new_id()), address(ann), NOW)
        writing = asyncio.create_task(housekeeping.write_reset_letters(world.pool, lambda: NOW))
        await eventually(lambda: world.blocked(2))
    await asyncio.gather(erasing, writing)
    assert await world.pool.fetchval("SELECT erased_at FROM users") == NOW
    for table in ("messages", "reset_requests"):
        assert await world.pool.fetch(f"SELECT t::text FROM {table} AS t") == []


async def test_owners_who_leave_at_once_do_not_all_leave(world: World):
    people = [await world.person() for _ in range(6)]
    org_id = await world.organization(people[0])
    for person in people[1:]:
        await world.accept(await world.invite(org_id, people[0], person, "owner"), person)
    leaving = (world.execute(org_id, commands.Leave(person)) for person in people)
    ended = await asyncio.gather(*leaving, return_exceptions=True)
    assert [type(one) for one in ended if isinstance(one, BaseException)] == [commands.LastOwner]
    removing = [world.execute(org_id, commands.Leave(person)) for person in people]
    assert all(isinstance(one, commands.Refused) for one in await asyncio.gather(*removing, return_exceptions=True))
    rows = await world.pool.fetch("SELECT role FROM members WHERE left_at IS NULL")
    assert [row["role"] for row in rows] == ["owner"]


async def test_letters_of_what_is_deleted_are_not_sent(world: World):
    ann, bea = await world.person(), await world.person()
    org_id = await world.organization(ann)
    secret = await world.invite(org_id, ann, bea)
    world.now = NOW + timedelta(minutes=1)
    await world.execute(org_id, commands.Delete(Actor(ann), "acme"))
    assert await world.pool.fetch("SELECT message_id FROM messages WHERE used_at IS NULL") == []
    with pytest.raises(messages.InvalidMessageToken):
        await world.accept(secret, bea)
