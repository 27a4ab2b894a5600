"""The catalog meets the database: published once, however many start; and what is due is done once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import asyncpg
import pytest
from pydantic import ValidationError

from aragora.chassis import store
from aragora.chassis.sql import Pool
from aragora.contracts.envelope import DomainEvent, envelope
from aragora.contracts.events import EntitlementsChanged, OrganizationCreated, PlanPublished, SubscriptionChanged
from billing.catalog import Catalog
from billing.commands import Assign, Command, Comp, Enroll, Move, NotAnOrganization, Trial
from billing.due import settle_due
from billing.handlers import follow
from billing.projections import subscription_row
from billing.settings import read_catalog
from billing.subscription import Sold, Subscription, evolve
from billing.subscriptions import STREAM, execute, load_plans, publish_catalog

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)
ARAGORA = read_catalog("aragora")


@pytest.fixture
async def pool(billing_database_url: str) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(billing_database_url, min_size=1, max_size=12) as one:
        yield one


async def publish(pool: Pool, catalog: Catalog = ARAGORA) -> list[str]:
    async with pool.acquire() as connection:
        return [f"{one.plan} {one.version}" for one in await publish_catalog(connection, catalog, now=NOW)]


async def do(pool: Pool, org: str, *commands: Command, now: datetime = NOW) -> Subscription:
    async with pool.acquire() as connection:
        known = await load_plans(connection)
        for command in commands:
            state = await execute(connection, org, command, known, now=now)
    return state


async def log_of(pool: Pool, org: str) -> list[DomainEvent]:
    async with pool.acquire() as connection:
        _, events = await store.load(connection, STREAM, org_id=org)
    return events


def with_debates(catalog: Catalog, plan: str, debates: int) -> Catalog:
    """The catalog with another limit."""
    plans = []
    for one in catalog.plans:
        limits = tuple(limit.model_copy(update={"limit": Decimal(debates)}) for limit in one.limits)
        plans.append(one.model_copy(update={"limits": limits}) if one.plan == plan else one)
    return Catalog(catalog.name, tuple(plans), catalog.meters)


async def test_many_starters_publish_once(pool: Pool):
    published = await asyncio.gather(*(publish(pool) for _ in range(8)))
    assert sorted(name for each in published for name in each) == [
        "enterprise 1", "free 1", "professional 1", "starter 1",
    ]  # fmt: skip
    assert await pool.fetchval("SELECT count(*) FROM subscription_plans") == 4
    assert await pool.fetchval("SELECT count(*) FROM outbox WHERE org_id = 'platform'") == 4
    assert await publish(pool) == []


async def test_a_changed_catalog_publishes_one_version_and_subscriptions_keep_theirs(pool: Pool):
    await publish(pool)
    await do(pool, "org_a", Assign("starter"))
    changed = with_debates(ARAGORA, "starter", 60)
    published = await asyncio.gather(*(publish(pool, changed) for _ in range(4)))
    assert [name for each in published for name in each] == ["starter 2"]
    assert await pool.fetchval("SELECT plan_version FROM user_subscriptions WHERE org_id = 'org_a'") == 1
    assert (await do(pool, "org_b", Assign("starter"))).sold == Sold("starter", 2)
    assert (await do(pool, "org_a", Move())).sold == Sold("starter", 2)
    entitled = (await log_of(pool, "org_a"))[-1]
    assert isinstance(entitled, EntitlementsChanged)
    assert [limit.limit for limit in entitled.limits] == [60]


async def test_another_catalog_retires_what_it_does_not_have(pool: Pool):
    await publish(pool)
    await do(pool, "org_a", Assign("professional"))
    assert await publish(pool, read_catalog("alwrity")) == [
        "basic 1", "enterprise 2", "free 2", "pro 1", "professional 2", "starter 2",
    ]  # fmt: skip
    async with pool.acquire() as connection:
        known = await load_plans(connection)
    assert [plan.plan for plan in known.listed] == ["free", "basic", "pro", "enterprise"]
    assert (await do(pool, "org_a", Enroll())).sold == Sold("professional", 1)
    assert await publish(pool, read_catalog("alwrity")) == []
    assert await publish(pool) == ["enterprise 3", "free 3", "professional 3", "starter 3", "basic 2", "pro 2"]


async def test_many_enroll_one_organization_once(pool: Pool):
    await publish(pool)
    await asyncio.gather(*(do(pool, "org_a", Enroll()) for _ in range(10)))
    assert len(await log_of(pool, "org_a")) == 2
    assert await pool.fetchval("SELECT count(*) FROM subscriptions") == 1


async def test_many_workers_settle_what_is_due_once(pool: Pool):
    await publish(pool)
    for number in range(20):
        await do(pool, f"org_{number}", Enroll(), Trial("professional", 3))
    assert await settle_due(pool, NOW + 2 * DAY) == 0
    await asyncio.gather(*(settle_due(pool, NOW + 3 * DAY) for _ in range(4)))
    assert await settle_due(pool, NOW + 3 * DAY) == 0
    for number in range(20):
        *_, ended, entitled = await log_of(pool, f"org_{number}")
        assert isinstance(ended, SubscriptionChanged)
        assert (ended.reason, ended.effective_at) == ("trial_ended", NOW + 3 * DAY)
        assert isinstance(entitled, EntitlementsChanged)
        assert (entitled.plan, entitled.revision) == ("free", 3)


async def test_rows_are_what_the_events_say(pool: Pool):
    await publish(pool)
    await do(pool, "org_a", Enroll(), Assign("starter"), Trial("professional", 30), Comp("enterprise", NOW + 9 * DAY))
    await do(pool, "org_b", Comp("enterprise"))
    await settle_due(pool, NOW + 10 * DAY)
    columns = (
        "org_id, plan, plan_version, status, trial_ends_at, comp_until, pending_plan, pending_version, pending_at, "
        "due_at, revision, payment_reference"
    )
    for row in await pool.fetch(f"SELECT {columns} FROM subscriptions ORDER BY org_id"):
        state = Subscription()
        for event in await log_of(pool, row["org_id"]):
            state = evolve(state, event)
        assert tuple(row) == subscription_row(row["org_id"], state)
    published = await pool.fetch(
        "SELECT data->>'source' AS source FROM events WHERE type = $1", PlanPublished.type_name
    )
    assert [row["source"] for row in published] == ["catalog"] * 4


async def test_the_platform_is_no_organization(pool: Pool):
    await publish(pool)
    with pytest.raises(NotAnOrganization):
        await do(pool, "platform", Enroll())


async def test_a_batch_with_what_cannot_be_read_does_nothing(pool: Pool):
    await publish(pool)
    good = envelope(
        OrganizationCreated(name="A", slug="a", owner_id="ann"), org_id="org_a", occurred_at=NOW, correlation_id="c"
    )
    with pytest.raises(ValidationError):
        await follow(pool, [good.to_json(), b"{}"], NOW)
    assert await log_of(pool, "org_a") == []
    await follow(pool, [good.to_json(), good.to_json()], NOW)
    assert len(await log_of(pool, "org_a")) == 2
