"""Composition root: settings → connections, bus, catalog → the API or the worker."""

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import structlog
from fastapi import FastAPI
from faststream.nats import NatsBroker

from aragora.billing.jwt_auth import JWTConfig
from aragora.chassis import app as chassis_app
from aragora.chassis import bus, inbox
from aragora.chassis.consume import consume_policy, disconnect, drain
from aragora.chassis.relay import Relay
from aragora.chassis.security import parse_service_keys
from aragora.chassis.sql import Pool
from aragora.chassis.trust import trusting
from aragora.contracts import topology
from aragora.contracts.plans import Meter
from billing import api, plans_api, subscriptions_api
from billing.due import follow_the_clock
from billing.handlers import Clock, subscribe
from billing.settings import Settings, read_catalog
from billing.subscriptions import publish_catalog, queries

VERSION = "0.1.0"
TITLE = "Aragora Billing"
DESCRIPTION = "Plans, subscriptions, and what they entitle to."
FORGET_AFTER = timedelta(days=35)
"""Of failed deliveries, and of people who were erased: the bus delivers nothing any more from before that."""

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
        broker = connect_bus(settings)
        async with asyncpg.create_pool(settings.database_url, min_size=1, max_size=10, command_timeout=30) as pool:
            app.state.billing_pool = pool
            app.state.billing_clock = clock
            app.state.billing_meters = await publish(pool, settings, clock)
            app.state.readiness |= bus.readiness(pool, broker)
            try:
                async with trusting(app, await broker.connect()):
                    yield
            finally:
                await disconnect(broker)

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
            await inbox.forget_before(connection, clock() - FORGET_AFTER)
            await connection.execute(queries.forget_erased, clock() - FORGET_AFTER)
        broker = connect_bus(settings, **consume_policy(pool))
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


def connect_bus(settings: Settings, **policy: Any) -> NatsBroker:
    """Billing's connection to the bus, not yet open. It reconnects for ever."""
    user, password = settings.nats_user, settings.nats_password
    return bus.connect_bus(settings.nats_url, user, password, topology.BILLING, **policy)
