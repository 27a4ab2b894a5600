"""What is done to plans and subscriptions: decide, append, project, in one transaction each."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from aragora.chassis import sql, store
from aragora.chassis.sql import Connection
from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events import PLATFORM, PlanPublished
from aragora.contracts.plans import Plan
from billing import domain, plans, projections, subscription
from billing.catalog import Catalog
from billing.commands import Command, NotAnOrganization
from billing.plans import History, Plans
from billing.subscription import Subscription

STREAM = "subscription"
"""The stream of an organization's subscription."""

queries = sql.load("billing")


async def load_plans(conn: Connection) -> Plans:
    """Every plan, every version."""
    return projections.plans_of(await conn.fetch(queries.all_plans))


async def execute(
    conn: Connection,
    org_id: str,
    command: Command,
    known: Plans,
    *,
    now: datetime,
    causation_id: str | None = None,
) -> Subscription:
    """Do what is asked; returns the subscription after it.

    Raises:
        Refused, UnknownPlan: nothing was done.
        VersionConflict: others changed the subscription again and again; nothing was done.
    """
    if org_id == PLATFORM:
        raise NotAnOrganization(f"{PLATFORM!r} stands for the platform and has no subscription; name an organization.")
    async with conn.transaction():
        state, recorded = await store.decide_and_append(
            conn,
            STREAM,
            lambda state: domain.decide(state, command, known, now),
            subscription.evolve,
            Subscription(),
            org_id=org_id,
            occurred_at=now,
            causation_id=causation_id,
        )
        if recorded:
            await conn.execute(queries.save_subscription, *projections.subscription_row(org_id, state))
    return state


async def announce(conn: Connection, org_id: str, known: Plans, *, now: datetime) -> None:
    """Say once more what an organization may do, with the revision that it has."""

    def again(state: Subscription) -> list[DomainEvent]:
        if state.entitled is None:
            return []
        return [domain.entitlements(known.version(state.entitled.plan, state.entitled.version), state.revision)]

    await store.decide_and_append(
        conn, STREAM, again, subscription.evolve, Subscription(), org_id=org_id, occurred_at=now
    )


async def publish(
    conn: Connection, plan: str, decide: Callable[[History], Sequence[DomainEvent]], *, now: datetime
) -> list[Plan]:
    """Publish a plan's next version, if `decide` says so. Returns what was published."""
    async with conn.transaction():
        _, recorded = await store.decide_and_append(
            conn, f"plan/{plan}", decide, plans.evolve, History(), org_id=PLATFORM, occurred_at=now
        )
        published = [each.event for each in recorded if isinstance(each.event, PlanPublished)]
        for event in published:
            await conn.execute(queries.save_plan, *projections.plan_row(event, now))
    return [event.plan for event in published]


async def publish_catalog(conn: Connection, catalog: Catalog, *, now: datetime) -> list[Plan]:
    """Publish what the catalog says anew, and retire what it no longer has. Returns what was published.

    Any number of starters may do so at once: a version is published once.
    """
    wanted = {plan.plan: partial(plans.publish_from_catalog, wanted=plan) for plan in catalog.plans}
    async with conn.transaction():
        published = [plan for each in sorted(wanted) for plan in await publish(conn, each, wanted[each], now=now)]
        gone = {row["plan"] for row in await conn.fetch(queries.catalog_plans)} - wanted.keys()
        for each in sorted(gone):
            published += await publish(conn, each, plans.withdraw_from_catalog, now=now)
    return published
