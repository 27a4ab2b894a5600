"""Whose key is it? What the database says, whatever else happens to key, person, organization and plan."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from aragora.billing.api_keys import digest_of
from aragora.chassis.sql import Pool
from aragora.contracts.envelope import envelope
from aragora.contracts.events import EntitlementsChanged
from aragora.contracts.ids import new_id
from auth import keys
from auth.acts import Caller, acting
from auth.handlers import follow

NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)


@pytest.fixture
async def pool(auth_database_url: str) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(auth_database_url, min_size=1, max_size=8) as opened:
        yield opened


async def organization(pool: Pool, *, role: str = "owner") -> tuple[str, str]:
    """An organization with one member: (org_id, user_id)."""
    org_id, user_id = str(new_id()), str(new_id())
    await pool.execute(
        "INSERT INTO users (user_id, email, created_at) VALUES ($1, $2, $3)", user_id, f"{user_id}@example.com", NOON
    )
    await pool.execute(
        "INSERT INTO organizations (org_id, name, slug, created_at) VALUES ($1, 'An organization', $1, $2)",
        org_id, NOON,
    )  # fmt: skip
    await join(pool, org_id, user_id, role)
    return org_id, user_id


async def join(pool: Pool, org_id: str, user_id: str, role: str) -> None:
    await pool.execute(
        "INSERT INTO members (org_id, user_id, role, joined_at) VALUES ($1, $2, $3, $4)", org_id, user_id, role, NOON
    )


def said(org_id: str, revision: int = 1, **fields: Any) -> bytes:
    """What billing says of an organization's plan, as it is on the bus."""
    given = {"plan": "pro", "plan_version": 1, "plan_name": "Pro", "features": {"api_access": True}, "seats": 3}
    event = EntitlementsChanged(revision=revision, limits=(), **given | fields)
    return envelope(event, org_id=org_id, occurred_at=NOON, correlation_id="c").to_json()


async def issue(pool: Pool, org_id: str, user_id: str, expires_at: datetime | None = None, now: datetime = NOON) -> str:
    async with acting(pool, lambda: now, Caller(user_id)) as act:
        _, text = await keys.issue(act, org_id, user_id, "deploy", ["usage.write"], expires_at)
    return text


async def verdict(pool: Pool, text: str, now: datetime = NOON) -> Any:
    async with pool.acquire() as connection:
        return await keys.verify(connection, digest_of(text), now)


async def test_a_key_is_known_by_its_digest_only(pool: Pool):
    org_id, user_id = await organization(pool)
    await follow(pool, [said(org_id)])
    text = await issue(pool, org_id, user_id)
    holder = (await verdict(pool, text)).holder
    assert (holder.user_id, holder.org_id, holder.scopes, holder.expires_at) == (
        user_id, org_id, ("usage.write",), None,
    )  # fmt: skip
    assert await verdict(pool, text[:-1]) == keys.UNKNOWN
    for table in ("api_keys", "events", "security_events", "outbox"):
        rows = await pool.fetch(f"SELECT t::text AS row FROM {table} AS t")
        assert rows
        assert not [row for row in rows if text in row["row"] or text[12:] in row["row"]]


async def test_a_key_ends_with_its_expiry_its_maker_and_its_organization(pool: Pool):
    org_id, user_id = await organization(pool)
    await follow(pool, [said(org_id)])
    text = await issue(pool, org_id, user_id, NOON + timedelta(hours=1))
    last = NOON + timedelta(minutes=59, seconds=59)
    assert (await verdict(pool, text, last)).holder
    assert await verdict(pool, text, NOON + timedelta(hours=1)) == keys.UNKNOWN
    for ends, goes_on in (
        ("UPDATE members SET left_at = now()", "UPDATE members SET left_at = NULL"),
        ("UPDATE organizations SET deleted_at = now()", "UPDATE organizations SET deleted_at = NULL"),
        ("UPDATE api_keys SET revoked_at = now()", "UPDATE api_keys SET revoked_at = NULL"),
    ):
        await pool.execute(ends)
        assert await verdict(pool, text) == keys.UNKNOWN
        await pool.execute(goes_on)
        assert (await verdict(pool, text)).holder


async def test_a_plan_without_api_access_refuses_and_one_that_is_not_known_too(pool: Pool):
    org_id, user_id = await organization(pool)
    with pytest.raises(keys.PlanUnknown):
        await issue(pool, org_id, user_id)
    await follow(pool, [said(org_id, 2)])
    text = await issue(pool, org_id, user_id)
    await follow(pool, [said(org_id, 3, features={"api_access": False})])
    assert (await verdict(pool, text)).refused == "plan"
    with pytest.raises(keys.NoApiAccess):
        await issue(pool, org_id, user_id)
    await follow(pool, [said(org_id, 4, features={})])
    assert (await verdict(pool, text)).refused == "plan"
    await pool.execute("DELETE FROM entitlements")
    assert (await verdict(pool, text)).refused == "plan"


async def test_the_highest_revision_counts_in_whatever_order_they_come(pool: Pool):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    orgs = [(await organization(pool))[0] for _ in range(3)]
    bodies = [
        said(org_id, revision, seats=revision if revision % 4 else None, features={"api_access": revision % 2 == 0})
        for org_id in orgs
        for revision in range(1, 9)
    ] * 2
    draw.shuffle(bodies)
    while bodies:
        cut = draw.randint(1, 7)
        await follow(pool, bodies[:cut])
        del bodies[:cut]
    rows = await pool.fetch("SELECT org_id, revision, seats, api_access FROM entitlements ORDER BY org_id")
    assert [tuple(row) for row in rows] == [(org_id, 8, None, True) for org_id in sorted(orgs)]


async def test_a_batch_with_what_is_no_event_changes_nothing(pool: Pool):
    org_id, _ = await organization(pool)
    with pytest.raises(ValueError, match="JSON"):
        await follow(pool, [said(org_id), b"{"])
    assert await pool.fetch("SELECT org_id FROM entitlements") == []
    await follow(pool, [])


async def test_only_owners_and_admins_make_keys(pool: Pool):
    org_id, owner = await organization(pool)
    await follow(pool, [said(org_id)])
    other_org, stranger = await organization(pool)
    admin = (await organization(pool))[1]
    member = (await organization(pool))[1]
    await join(pool, org_id, admin, "admin")
    await join(pool, org_id, member, "member")
    await issue(pool, org_id, owner)
    await issue(pool, org_id, admin)
    for org, who in ((org_id, member), (org_id, stranger), (str(new_id()), owner), (other_org, owner)):
        with pytest.raises(keys.NotAnAdministrator):
            await issue(pool, org, who)


async def test_the_hundredth_key_is_the_last_however_many_ask_at_once(pool: Pool):
    org_id, user_id = await organization(pool)
    await follow(pool, [said(org_id)])
    for _ in range(keys.MAX_LIVE_KEYS - 3):
        await issue(pool, org_id, user_id, NOON + timedelta(hours=1))
    asked = await asyncio.gather(*(issue(pool, org_id, user_id) for _ in range(12)), return_exceptions=True)
    assert sum(isinstance(one, str) for one in asked) == 3
    assert sum(isinstance(one, keys.TooManyKeys) for one in asked) == 9
    await issue(pool, org_id, user_id, now=NOON + timedelta(hours=1))  # those that expired do not count


async def test_use_is_noted_once_a_minute_and_never_waits(pool: Pool):
    org_id, user_id = await organization(pool)
    await follow(pool, [said(org_id)])
    text = await issue(pool, org_id, user_id)

    async def last_used() -> datetime | None:
        used: datetime | None = await pool.fetchval("SELECT last_used_at FROM api_keys")
        return used

    for seconds, expected in ((0, 0), (1, 0), (59, 0), (60, 60), (61, 60)):
        await verdict(pool, text, NOON + timedelta(seconds=seconds))
        assert await last_used() == NOON + timedelta(seconds=expected)
    later = NOON + timedelta(minutes=5)
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT 1 FROM api_keys FOR UPDATE")  # somebody has the row, such as who revokes it
        async with asyncio.timeout(5):
            assert (await verdict(pool, text, later)).holder
    assert await last_used() == NOON + timedelta(seconds=60)
    await asyncio.gather(*(verdict(pool, text, later) for _ in range(20)))
    assert await last_used() == later


async def test_revoking_says_so_once_for_each_key(pool: Pool):
    org_id, user_id = await organization(pool)
    other_org, _ = await organization(pool)
    await join(pool, other_org, user_id, "admin")
    await follow(pool, [said(org_id), said(other_org)])
    texts = [await issue(pool, org, user_id) for org in (org_id, org_id, other_org)]

    async def revoke_all(**whose: str | None) -> int:
        async with acting(pool, lambda: NOON, Caller(user_id)) as act:
            return await keys.revoke_all(act, reason="left", **whose)

    with pytest.raises(ValueError, match="name an organization or a person"):
        await revoke_all()
    found = await asyncio.gather(*(revoke_all(org_id=org_id, user_id=user_id) for _ in range(4)))
    assert sorted(found) == [0, 0, 0, 2]
    assert [bool((await verdict(pool, text)).holder) for text in texts] == [False, False, True]
    assert await revoke_all(user_id=user_id) == 1
    assert await revoke_all(org_id=other_org) == 0
    rows = await pool.fetch("SELECT org_id FROM events WHERE type LIKE '%ApiKeyRevoked%' ORDER BY org_id")
    assert [row["org_id"] for row in rows] == sorted([org_id, org_id, other_org])
    noted = await pool.fetchval("SELECT count(*) FROM security_events WHERE action = 'api_key_revoked'")
    assert noted == 3
