"""What can go wrong with a platform, for as long as the `with` lasts. Each is something that somebody is to hear of."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from people import DEBATE
from servers import eventually
from usage import cloudevent, message, native
from watched_platform import WatchedPlatform, going_on, lasting

from aragora.contracts.ids import new_id
from aragora.contracts.topology import usage_partition, usage_subject
from standalone.stripe_simulator.faults import Fault

PAGES = {"success_url": "https://app.example.com/success", "cancel_url": "https://app.example.com/cancel"}
FREE_DEBATES = 10
MANY = 1_000_000


def now() -> str:
    return datetime.now(UTC).isoformat()


def reservation(org_id: str) -> dict[str, Any]:
    return {"org_id": org_id, "operations": [DEBATE], "ttl_seconds": 60}


@asynccontextmanager
async def a_worker_dies(world: WatchedPlatform) -> AsyncIterator[None]:
    async with world.without("auth-worker"):
        yield


@asynccontextmanager
async def postgres_stops(world: WatchedPlatform) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        metering = await stack.enter_async_context(world.client("metering"))
        await stack.enter_async_context(world.without("postgres"))
        ask = going_on(lambda: metering.post("/api/usage/reservations", json=reservation("acme")), at_once=8)
        send = going_on(lambda: metering.post("/api/usage/events", json=native(occurred_at=now())))
        await stack.enter_async_context(ask)
        await stack.enter_async_context(send)
        yield


@asynccontextmanager
async def nats_stops(world: WatchedPlatform) -> AsyncIterator[None]:
    async with world.without("nats"):
        await world.site.register()
        yield


@asynccontextmanager
async def recording_hangs(world: WatchedPlatform) -> AsyncIterator[None]:
    """Somebody has locked the sums, and usage keeps coming: of one organization, so on one lane."""
    async with world.publisher() as bus, world.locked("metering", "usage_daily"):

        async def publish() -> None:
            for _ in range(100):
                usage = cloudevent(org_id="acme", occurred_at=now())
                await bus.publish(usage_subject(usage_partition("acme")), message(usage))

        async with going_on(publish):
            yield


@asynccontextmanager
async def recording_is_slow(world: WatchedPlatform) -> AsyncIterator[None]:
    async def somebody_is_in_the_way() -> None:
        async with world.locked("metering", "usage_daily"):
            await lasting(6)

    async with world.client("metering") as metering:
        send = going_on(lambda: metering.post("/api/usage/events", json=native(occurred_at=now())))
        async with going_on(somebody_is_in_the_way, every_seconds=0.2), send:
            yield


@asynccontextmanager
async def nonsense_is_published(world: WatchedPlatform) -> AsyncIterator[None]:
    async with world.publisher() as bus:
        nonsense = [cloudevent(occurred_at=now(), tokens_in="many") for _ in range(60)]
        await bus.publish(usage_subject(0), message(*nonsense))
        await bus.flush()
    yield


@asynccontextmanager
async def one_organization_is_locked(world: WatchedPlatform) -> AsyncIterator[None]:
    owner = await world.site.register()
    await world.site.give_plan(owner, owner.org_id)

    async def lock() -> None:
        async with world.database("metering") as session, session.transaction():
            await session.execute("SELECT org_id FROM entitlements WHERE org_id = $1 FOR UPDATE", owner.org_id)
            await lasting(1)

    async with world.client("metering") as metering:
        body = reservation(owner.org_id)
        ask = going_on(lambda: metering.post("/api/usage/reservations", json=body), every_seconds=0.2)
        async with going_on(lock, every_seconds=0.2), ask:
            yield


@asynccontextmanager
async def sums_cannot_be_read(world: WatchedPlatform) -> AsyncIterator[None]:
    async def lock() -> None:
        async with world.locked("metering", "usage_daily", "ACCESS EXCLUSIVE"):
            await lasting(5)

    async with world.client("metering") as metering:
        look = going_on(lambda: metering.get("/api/usage/organizations/acme/summary"), at_once=4, every_seconds=0.5)
        async with going_on(lock), look:
            yield


@asynccontextmanager
async def a_model_is_new(world: WatchedPlatform) -> AsyncIterator[None]:
    async with world.client("metering") as metering:
        usage = native(occurred_at=now(), provider="nobody-knows", model="brand-new-1")
        assert (await metering.post("/api/usage/events", json=usage)).status_code == 202
    yield


@asynccontextmanager
async def whoever_closes_months_hangs(world: WatchedPlatform) -> AsyncIterator[None]:
    async with world.database("metering") as session:
        await session.execute("SELECT pg_advisory_lock(hashtextextended('aragora.closing_periods', 0))")
        await session.execute("DELETE FROM closing_months")
        await session.execute("INSERT INTO closing_months (month, begun_at) VALUES ('2026-01', now())")
        yield


@asynccontextmanager
async def stripe_is_away(world: WatchedPlatform) -> AsyncIterator[None]:
    """It told of something just before."""
    owner = await world.site.register()
    world.stripe.faults.ordered.append(Fault(times=MANY, status=500))
    await tell(world)
    checkout = {"plan": "professional", **PAGES}
    path = "/api/billing/checkout"
    async with going_on(lambda: world.site.ask("billing", "POST", path, owner.access_token, checkout)):
        yield
    world.stripe.faults.ordered.clear()


@asynccontextmanager
async def webhooks_are_forged(world: WatchedPlatform) -> AsyncIterator[None]:
    async def forge() -> None:
        assert await tell(world, forged=True) == 400

    async with going_on(forge):
        yield


@asynccontextmanager
async def stripe_tells_of_live_payments_in_test_mode(world: WatchedPlatform) -> AsyncIterator[None]:
    await tell(world, livemode=True)
    yield


async def tell(world: WatchedPlatform, *, livemode: bool = False, forged: bool = False) -> int:
    """Post a webhook of a subscription that nobody here knows. Returns the status of the answer."""
    event = {
        "id": f"evt_{new_id().hex}", "object": "event", "type": "customer.subscription.updated", "livemode": livemode,
        "created": int(datetime.now(UTC).timestamp()), "api_version": None,
        "data": {"object": {"id": "sub_somebodys", "object": "subscription", "customer": "cus_somebody"}},
    }  # fmt: skip
    body, headers = world.stripe.signed(event)
    if forged:
        headers = {name: value.replace("v1=", "v1=0") for name, value in headers.items()}
    url = f"{world.site.urls['billing']}/api/webhooks/stripe"
    return (await world.site.client.post(url, content=body, headers=headers)).status_code


@asynccontextmanager
async def the_mail_server_refuses(world: WatchedPlatform) -> AsyncIterator[None]:
    password, world.mail.password = world.mail.password, "changed yesterday"
    async with going_on(world.site.register):
        yield
    world.mail.password = password


@asynccontextmanager
async def nobody_says_who_is_to_be_told(world: WatchedPlatform) -> AsyncIterator[None]:
    """An organization reaches its limits while auth is down, who alone knows its people."""
    async with world.client("billing") as billing, world.client("metering") as metering:
        path = "/api/subscription/organizations/abandoned/subscription"
        assert (await billing.put(path, json={"plan": "free"})).is_success
        await eventually(lambda: _is_known(world, "abandoned"), 30)
        async with world.without("auth-api"):
            await _use_up(metering, "abandoned")
            yield


@asynccontextmanager
async def every_endpoint_is_gone(world: WatchedPlatform) -> AsyncIterator[None]:
    owner = await world.site.register()
    await eventually(lambda: _is_known(world, owner.org_id), 30)
    world.endpoint.status = 410
    for number in range(7):
        body = {"url": f"{world.endpoint.url}/{number}"}
        answer = await world.site.ask("notifier", "POST", "/api/notifications/endpoints", owner.access_token, body)
        assert answer.is_success, answer.text
    async with world.client("metering") as metering:
        await _use_up(metering, owner.org_id)
    yield


async def _is_known(world: WatchedPlatform, org_id: str) -> bool:
    async with world.client("metering") as metering:
        body = {"org_id": org_id, "operations": [DEBATE]}
        return (await metering.post("/api/usage/limits/check", json=body)).is_success


async def _use_up(metering: Any, org_id: str) -> None:
    """All debates of the free plan."""
    debates = [DEBATE | {"id": str(new_id()), "org_id": org_id, "occurred_at": now()} for _ in range(FREE_DEBATES)]
    assert (await metering.post("/api/usage/events", json=debates)).status_code == 202


@asynccontextmanager
async def passwords_are_guessed(world: WatchedPlatform) -> AsyncIterator[None]:
    people = await asyncio.gather(*(world.site.register() for _ in range(16)))
    for _ in range(5):
        guesses = [{"email": person.email, "password": "correct-horse-1"} for person in people]
        await asyncio.gather(*(world.site.ask("auth", "POST", "/api/auth/login", None, guess) for guess in guesses))
    yield


@asynccontextmanager
async def a_session_is_stolen(world: WatchedPlatform) -> AsyncIterator[None]:
    person = await world.site.register()
    stolen = {"refresh_token": person.refresh_token}
    new = await world.site.read("POST", "/api/auth/refresh", None, stolen)
    await world.site.read("POST", "/api/auth/refresh", None, {"refresh_token": new["refresh_token"]})
    await world.site.ask("auth", "POST", "/api/auth/refresh", None, stolen)
    yield
