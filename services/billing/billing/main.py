"""Composition root: settings → connections, bus, catalog → the API or the worker."""

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import structlog
from fastapi import FastAPI

from aragora.billing.jwt_auth import JWTConfig
from aragora.chassis import app as chassis_app
from aragora.chassis import bus, inbox
from aragora.chassis.consume import consume_policy, disconnect, drain
from aragora.chassis.relay import Relay
from aragora.chassis.security import parse_service_keys
from aragora.chassis.sql import Pool
from aragora.contracts import topology
from aragora.contracts.plans import Meter
from billing import api, plans_api, subscriptions_api
from billing.due import follow_the_clock
from billing.handlers import Clock, subscribe
from billing.settings import Settings, read_catalog
from billing.subscriptions import publish_catalog

VERSION = "0.1.0"
TITLE = "Aragora Billing"
DESCRIPTION = "Plans, subscriptions, and what they entitle to."
FORGET_FAILURES_AFTER = timedelta(days=35)

log = structlog.get_logger()
routers = (api.router, subscriptions_api.router, plans_api.router)


def create_app(settings: Settings) -> FastAPI:
    """The API of billing alone."""
    return chassis_app.create_app(
        title=TITLE,
        version=VERSION,
        description=DESCRIPTION,
        routers=routers,
        lifespans=[lifespan(settings)],
        service_keys=parse_service_keys(settings.service_keys),
    )


def now_utc() -> datetime:
    """The clock of production."""
    return datetime.now(UTC)


def lifespan(settings: Settings, clock: Clock = now_utc) -> chassis_app.Lifespan:
    """What the API's routes need while it runs. They find it in `app.state.billing_…`."""

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        JWTConfig.from_environment()  # a missing secret shows at the start, not in the first person's request
        async with asyncpg.create_pool(settings.database_url, min_size=1, max_size=10, command_timeout=30) as pool:
            app.state.billing_pool = pool
            app.state.billing_clock = clock
            app.state.billing_meters = await publish(pool, settings, clock)
            app.state.readiness |= {"postgres": lambda: pool.fetchval("SELECT 1")}
            yield

    return running


async def publish(pool: Pool, settings: Settings, clock: Clock) -> Mapping[str, Meter]:
    """Publish what the catalog says anew. Returns its custom meters."""
    catalog = read_catalog(settings.catalog)
    async with pool.acquire() as connection:
        for plan in await publish_catalog(connection, catalog, now=clock()):
            log.info("plan_published", plan=plan.plan, version=plan.version)
    return catalog.meters


async def run_worker(settings: Settings, clock: Clock = now_utc) -> None:
    """Enroll new organizations, settle what is due, publish what billing decided, until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with asyncpg.create_pool(settings.database_url, min_size=1, max_size=4) as pool:
        await publish(pool, settings, clock)
        async with pool.acquire() as connection:
            await inbox.forget_before(connection, clock() - FORGET_FAILURES_AFTER)
        user, password = settings.nats_user, settings.nats_password
        policy = consume_policy(pool)
        broker = bus.connect_bus(settings.nats_url, user, password, topology.BILLING, **policy)
        subscribe(broker, pool, clock)

        async def send(subject: str, payload: bytes, headers: dict[str, str]) -> object:
            return await broker.publish(payload, subject, headers=headers, stream=topology.EVENTS.name, timeout=5)

        await broker.start()
        relay = Relay(pool, send)
        relay.start()
        log.info("worker_ready")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow_the_clock(pool, clock, stop))
            if settings.worker_port is not None:
                checks, port = bus.readiness(pool, broker), settings.worker_port
                tasks.create_task(chassis_app.serve_probes(f"{TITLE} worker", checks, settings.host, port, stop))
            await stop.wait()
        log.info("worker_draining")
        await drain(broker)
        await relay.stop()
        await disconnect(broker)
    log.info("worker_stopped")
