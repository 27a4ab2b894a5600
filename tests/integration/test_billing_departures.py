"""Organizations that are closed and people who are erased: in any order, however often it is said."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

import asyncpg
import pytest
from billing_platform import BillingPlatform

from aragora.contracts.envelope import DomainEvent, envelope
from aragora.contracts.events import (
    PLATFORM,
    EntitlementsChanged,
    MemberJoined,
    MemberRemoved,
    OrganizationCreated,
    OrganizationDeleted,
    SubscriptionCancelled,
    UserErased,
)
from billing import subscriptions
from billing.commands import Assign
from billing.handlers import follow
from billing.settings import read_catalog

NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)


def told(*events: tuple[DomainEvent, str]) -> list[bytes]:
    """The messages, each a minute after the one before."""
    return [
        envelope(event, org_id=org, occurred_at=NOON + timedelta(minutes=minute), correlation_id="told").to_json()
        for minute, (event, org) in enumerate(events)
    ]


def created(owner: str) -> OrganizationCreated:
    return OrganizationCreated(name="Acme", slug="acme", owner_id=owner)


@pytest.fixture
async def pool(billing_database_url: str):
    async with asyncpg.create_pool(billing_database_url, min_size=1, max_size=2) as connections:
        async with connections.acquire() as connection:
            await subscriptions.publish_catalog(connection, read_catalog("aragora"), now=NOON)
        yield connections


async def organizations_of(pool: asyncpg.Pool, user: str) -> list[str]:
    return [row["org_id"] for row in await pool.fetch(subscriptions.queries.organizations_of_user, user)]


async def ended_up_with(pool: asyncpg.Pool, org: str) -> str:
    (row,) = await pool.fetch(subscriptions.queries.subscription_of, org)
    assert row["status"] == "active"
    plan: str = row["plan"]
    return plan


async def assign(pool: asyncpg.Pool, org: str, plan: str) -> None:
    async with pool.acquire() as connection:
        known = await subscriptions.load_plans(connection)
        await subscriptions.execute(connection, org, Assign(plan), known, now=NOON)


async def test_a_closed_organization_is_nobodys(pool: asyncpg.Pool):
    for number, order in enumerate(permutations(range(4))):
        closed, other, ann, bob = (f"{name}_{number}" for name in ("closed", "other", "ann", "bob"))
        messages = told(
            (created(ann), closed), (MemberJoined(user_id=bob, role="admin"), closed),
            (OrganizationDeleted(), closed), (created(ann), other),
        )  # fmt: skip
        for each in order:
            await follow(pool, [messages[each]], NOON)
        await follow(pool, messages, NOON)
        assert (await organizations_of(pool, ann), await organizations_of(pool, bob)) == ([other], []), order
        assert (await ended_up_with(pool, closed), await ended_up_with(pool, other)) == ("free", "free")


async def test_its_plan_ends_at_once(pool: asyncpg.Pool):
    await follow(pool, told((created("ann"), "org_a"), (created("ann"), "org_b")), NOON)
    for org in ("org_a", "org_b"):
        await assign(pool, org, "enterprise")
    (deleted,) = told((OrganizationDeleted(), "org_a"))
    for _ in range(3):
        await follow(pool, [deleted], NOON)
    assert (await ended_up_with(pool, "org_a"), await ended_up_with(pool, "org_b")) == ("free", "enterprise")
    async with pool.acquire() as connection:
        said = await connection.fetch("SELECT type, data::text FROM events WHERE org_id = 'org_a' ORDER BY position")
    assert [row["type"].split(".")[2] for row in said[-3:]] == [
        "SubscriptionCancelled", "SubscriptionChanged", "EntitlementsChanged",
    ]  # fmt: skip
    assert SubscriptionCancelled.model_validate_json(said[-3]["data"]).at_period_end is False


async def test_closing_what_billing_never_heard_of_does_nothing(pool: asyncpg.Pool):
    await follow(pool, told((OrganizationDeleted(), "org_nobody_knows")), NOON)
    assert await pool.fetchval("SELECT count(*) FROM subscriptions") == 0


async def test_an_erased_person_does_not_come_back(pool: asyncpg.Pool):
    await follow(pool, told((MemberJoined(user_id="bob", role="owner"), "org_a")), NOON)
    for number, order in enumerate(permutations(range(4))):
        org_a, org_b, ann = (f"{name}_{number}" for name in ("org_a", "org_b", "ann"))
        messages = told(
            (created(ann), org_a), (MemberJoined(user_id=ann, role="admin"), org_b),
            (MemberRemoved(user_id=ann), org_b), (UserErased(user_id=ann, org_ids=(org_a, org_b)), PLATFORM),
        )  # fmt: skip
        for each in order:
            await follow(pool, [messages[each]], NOON)
        await follow(pool, messages[::-1], NOON)
        assert await ended_up_with(pool, org_a) == "free"
        rows = await pool.fetch("SELECT org_id, user_id FROM organization_members")
        assert [tuple(row) for row in rows] == [("org_a", "bob")], order


async def test_on_the_bus(running_billing: BillingPlatform, org: str, user: str):
    path = f"/api/subscription/user/{user}/subscription"
    await running_billing.tell(created(user), org)
    await running_billing.hears(org, EntitlementsChanged)
    await running_billing.read("PUT", f"/api/subscription/organizations/{org}/subscription", {"plan": "starter"})
    await running_billing.tell(OrganizationDeleted(), org)
    assert (await running_billing.hears(org, EntitlementsChanged, 3)).plan == "free"
    answer = await running_billing.ask("GET", path)
    assert (answer.status_code, "no member of any" in answer.json()["detail"]) == (404, True)
