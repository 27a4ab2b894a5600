"""From what auth tells to what metering hears, on the real bus."""

import os
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import asyncpg
from billing_platform import BillingPlatform, billing_platform
from servers import PostgresServer, eventually

from aragora.contracts.events import (
    EntitlementsChanged,
    MemberJoined,
    MemberRemoved,
    OrganizationCreated,
    SubscriptionChanged,
    SubscriptionStarted,
    UsagePeriodClosed,
)
from aragora.contracts.topology import BILLING_ORGANIZATIONS
from standalone.nats import EmbeddedNats
from standalone.service import PythonService


def created(owner: str) -> OrganizationCreated:
    return OrganizationCreated(name="Acme", slug="acme", owner_id=owner)


async def settled(platform: BillingPlatform) -> None:
    """Return when the worker has handled, and acknowledged, all that it was told."""

    async def nothing_waits() -> bool:
        info = await platform.bus.jetstream().consumer_info(BILLING_ORGANIZATIONS.stream, BILLING_ORGANIZATIONS.name)
        acknowledged = info.ack_floor.stream_seq if info.ack_floor else 0
        return not info.num_pending and not info.num_ack_pending and acknowledged >= platform.told

    await eventually(nothing_waits, 20)


async def test_a_new_organization_gets_the_default_plan(running_billing: BillingPlatform, org: str, user: str):
    await running_billing.tell(created(user), org)
    entitled = await running_billing.hears(org, EntitlementsChanged)
    assert (entitled.plan, entitled.plan_version, entitled.plan_name, entitled.seats) == ("free", 1, "Free", 1)
    assert entitled.revision == 1
    assert entitled.features == {"api_access": False, "all_agents": False}
    (limit,) = entitled.limits
    assert (limit.meter.name, limit.limit, limit.per) == ("debates", Decimal(10), "organization")
    assert running_billing.heard_of(org, SubscriptionStarted) == [SubscriptionStarted(plan="free", plan_version=1)]
    outer = next(each for each, event in running_billing.heard if event is entitled)
    assert (outer.correlationid, outer.source) == ("told", "/aragora/billing")
    shown = await running_billing.read("GET", f"/api/subscription/user/{user}/subscription")
    assert (shown["org_id"], shown["plan"], shown["status"]) == (org, "free", "active")


async def test_billings_own_account_on_the_bus_is_enough(
    postgres_server: PostgresServer, billing_template: str, private_nats: Callable[[], Awaitable[EmbeddedNats]]
):
    nats = await private_nats()
    async with billing_platform(
        postgres_server, billing_template, nats.url(), account_url=nats.url("billing")
    ) as platform:
        await platform.tell(created("ann"), "org_a")
        assert (await platform.hears("org_a", EntitlementsChanged)).plan == "free"
        await settled(platform)
        (worker,) = platform.workers
        os.kill(worker.pid, signal.SIGTERM)
        assert await worker.wait() == 0
        log = (platform.folder / "logs" / "billing-worker-0.log").read_text()
        assert '"worker_stopped"' in log
        assert "ermissions" not in log


async def test_redelivery_and_duplicates_change_nothing(running_billing: BillingPlatform, org: str, user: str):
    message = await running_billing.tell(created(user), org)
    for number in range(5):
        subject = f"events.auth.OrganizationCreated.{org}"
        await running_billing.bus.jetstream().publish(subject, message, headers={"Nats-Msg-Id": f"{org}-{number}"})
    await running_billing.tell(created(user), org)
    await running_billing.tell(created(f"{user}_2"), f"{org}_2")
    await settled(running_billing)
    await running_billing.hears(f"{org}_2", EntitlementsChanged)
    assert len(running_billing.heard_of(org, EntitlementsChanged)) == 1
    assert len(running_billing.heard_of(org, SubscriptionStarted)) == 1


async def test_an_organization_that_has_a_plan_already_is_left_alone(running_billing: BillingPlatform, org: str):
    path = f"/api/subscription/organizations/{org}/subscription"
    await running_billing.read("PUT", path, {"plan": "enterprise"})
    await running_billing.tell(created("ann"), org)
    await settled(running_billing)
    assert (await running_billing.read("GET", path))["plan"] == "enterprise"


async def test_members_come_and_go_in_any_order(running_billing: BillingPlatform, org: str, user: str):
    morning = datetime(2026, 6, 1, 8, tzinfo=UTC)
    path = f"/api/subscription/user/{user}/subscription"
    assert (await running_billing.ask("GET", path)).status_code == 404
    await running_billing.tell(MemberRemoved(user_id=user), org, morning + timedelta(hours=1))
    await running_billing.tell(MemberJoined(user_id=user, role="member"), org, morning)
    await settled(running_billing)
    assert (await running_billing.ask("GET", path)).status_code == 404
    await running_billing.tell(MemberJoined(user_id=user, role="admin"), org, morning + timedelta(hours=2))
    await settled(running_billing)
    answer = await running_billing.ask("GET", path)
    assert (answer.status_code, "has no subscription" in answer.json()["detail"]) == (404, True)
    await running_billing.tell(created("ann"), org, morning - timedelta(hours=1))
    await settled(running_billing)
    assert (await running_billing.read("GET", path))["org_id"] == org
    await running_billing.tell(created(user), f"{org}_2")
    await settled(running_billing)
    answer = await running_billing.ask("GET", path)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "org_id")
    assert (await running_billing.read("GET", path, org_id=f"{org}_2"))["org_id"] == f"{org}_2"


async def test_what_cannot_be_read_holds_up_nobody(running_billing: BillingPlatform, org: str, user: str):
    await running_billing.bus.jetstream().publish(f"events.auth.OrganizationCreated.{org}", b"{}")
    await running_billing.tell(created(user), f"{org}_2")
    await running_billing.hears(f"{org}_2", EntitlementsChanged)
    connection = await asyncpg.connect(running_billing.settings["DATABASE_URL"])
    try:
        await eventually(lambda: connection.fetchval("SELECT count(*) FROM failed_deliveries"), 10)
    finally:
        await connection.close()


async def test_a_comp_ends_by_itself_at_its_moment(running_billing: BillingPlatform, org: str):
    path = f"/api/subscription/organizations/{org}/subscription"
    await running_billing.read("PUT", path, {"plan": "starter"})
    until = datetime.now(UTC) + timedelta(seconds=3)  # later than billing has the request, also where all is slow
    shown = await running_billing.read("POST", f"{path}/comp", {"plan": "enterprise", "until": until.isoformat()})
    assert (shown["plan"], shown["status"], shown["comp_until"]) == (
        "enterprise", "comped", until.isoformat().replace("+00:00", "Z"),
    )  # fmt: skip
    entitled = await running_billing.hears(org, EntitlementsChanged, 3)
    assert (entitled.plan, entitled.revision) == ("starter", 3)
    ended = running_billing.heard_of(org, SubscriptionChanged)[-1]
    assert (ended.reason, ended.effective_at) == ("comp_ended", until)
    assert datetime.now(UTC) - until < timedelta(seconds=10)
    shown = await running_billing.read("GET", path)
    assert (shown["plan"], shown["status"], shown["comp_until"]) == ("starter", "active", None)


async def test_everything_is_said_once_more(running_billing: BillingPlatform, org: str):
    path = f"/api/subscription/organizations/{org}/subscription"
    await running_billing.read("PUT", path, {"plan": "professional"})
    first = await running_billing.hears(org, EntitlementsChanged)
    announce = PythonService("announce", running_billing.folder, ["billing", "announce"], running_billing.settings)
    assert "Announced 4 plans" in await announce.run_once()
    assert await running_billing.hears(org, EntitlementsChanged, 2) == first
    assert len(running_billing.heard_of(org, SubscriptionStarted)) == 1
    changed = await running_billing.read("PUT", path, {"plan": "starter"})
    assert changed["plan"] == "starter"
    assert (await running_billing.hears(org, EntitlementsChanged, 3)).revision == first.revision + 1


async def test_a_closed_month_is_heard_once(running_billing: BillingPlatform, org: str):
    await running_billing.read("PUT", f"/api/subscription/organizations/{org}/subscription", {"plan": "starter"})
    closed = UsagePeriodClosed(
        month=f"{datetime.now(UTC):%Y-%m}", sequence=1, closed_at=datetime.now(UTC), totals={"debates": Decimal(99)},
        events=99, unpriced_events=0, digest="0" * 64,
    )  # fmt: skip
    for _ in range(2):
        await running_billing.tell(closed, org)

    async def charged() -> list[dict[str, object]]:
        shown: list[dict[str, object]] = await running_billing.read("GET", "/api/billing/usage-charges", org_id=org)
        return shown

    await eventually(charged, 20, what="the closed month")
    assert [month["reason"] for month in await charged()] == ["Starter has no price for what goes beyond it."]
