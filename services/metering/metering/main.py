"""Composition root: settings → connections, bus, prices → the API or a worker."""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import structlog
from fastapi import FastAPI
from faststream.nats import NatsBroker

from aragora.billing.jwt_auth import JWTConfig
from aragora.billing.pricebook import PriceBook
from aragora.chassis import app as chassis_app
from aragora.chassis import bus
from aragora.chassis.bus import readiness
from aragora.chassis.consume import consume_policy, disconnect, drain
from aragora.chassis.relay import Relay
from aragora.chassis.security import parse_service_keys
from aragora.chassis.trust import trusting
from aragora.contracts import topology
from metering import api, dashboard_api, dead_letters_api, limits_api
from metering.edge import UsagePublisher
from metering.entitlements import prepare_entitlements_session
from metering.handlers import (
    SESSION_SETTINGS,
    Recorder,
    follow_entitlements,
    follow_erasures,
    prepare_session,
    subscribe,
)
from metering.housekeeping import keep_house
from metering.limit_desk import LANES, LimitDesk
from metering.limits_rpc import LimitsOnTheBus
from metering.log_months import open_due_month
from metering.settings import Settings

VERSION = "0.1.0"
TITLE = "Aragora Metering"
DESCRIPTION = "Records, prices and sums up usage."

log = structlog.get_logger()
routers = (api.router, dashboard_api.router, limits_api.router, dead_letters_api.router)


def create_app(settings: Settings) -> FastAPI:
    """The API of metering alone."""
    return chassis_app.create_app(
        title=TITLE,
        version=VERSION,
        description=DESCRIPTION,
        routers=routers,
        lifespans=[lifespan(settings)],
        service_keys=parse_service_keys(settings.service_keys),
    )


def lifespan(settings: Settings) -> chassis_app.Lifespan:
    """What the API's routes need while it runs. They find it in `app.state.metering_…`."""

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        JWTConfig.from_environment()  # a missing secret shows at the start, not in the first person's request
        broker = connect_bus(settings)

        async def publish(subject: str, payload: bytes, headers: dict[str, str]) -> object:
            return await broker.publish(payload, subject, headers=headers, stream=topology.USAGE.name, timeout=5)

        async with (
            asyncpg.create_pool(settings.database_url, min_size=0, max_size=10, command_timeout=30) as pool,
            asyncpg.create_pool(settings.database_url, min_size=0, max_size=LANES, command_timeout=5) as desk_pool,
        ):
            app.state.metering_bus = await broker.connect()
            prices = PriceBook.load(settings.price_tables)
            desk = LimitDesk(desk_pool, prices)
            on_the_bus = LimitsOnTheBus(broker, desk, fail_open=settings.limits_fail_open)
            await on_the_bus.start()
            app.state.metering_pool = pool
            app.state.metering_publish = publish
            app.state.metering_publisher = UsagePublisher(publish)
            app.state.metering_prices = prices
            app.state.metering_limit_desk = desk
            app.state.metering_limits_fail_open = settings.limits_fail_open
            app.state.readiness |= readiness(pool, broker)
            _leave_to_stay()
            try:
                async with trusting(app, app.state.metering_bus):
                    yield
            finally:
                await on_the_bus.stop()
                await disconnect(broker)

    return running


async def run_worker(settings: Settings) -> None:
    """Record usage from the bus, and publish what metering decided, until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with (
        asyncpg.create_pool(
            settings.database_url, min_size=1, max_size=2, init=prepare_session, server_settings=SESSION_SETTINGS
        ) as pool,
        asyncpg.create_pool(settings.database_url, min_size=1, max_size=4) as side_pool,
        asyncpg.create_pool(
            settings.database_url, min_size=1, max_size=1, init=prepare_entitlements_session
        ) as entitlements_pool,
    ):
        prices = PriceBook.load(settings.price_tables)
        await open_due_month(side_pool, datetime.now(UTC))
        broker = connect_bus(settings, **consume_policy(side_pool))
        subscribe(broker, Recorder(pool, prices))
        follow_entitlements(broker, entitlements_pool, prices)
        follow_erasures(broker, side_pool)

        async def publish(subject: str, payload: bytes, headers: dict[str, str]) -> object:
            return await broker.publish(payload, subject, headers=headers, stream=topology.EVENTS.name, timeout=5)

        _leave_to_stay()
        await broker.start()
        relay = Relay(side_pool, publish)
        relay.start()
        log.info("worker_ready")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep_house(side_pool, stop))
            if settings.worker_port is not None:
                checks, port = readiness(side_pool, broker), settings.worker_port
                tasks.create_task(chassis_app.serve_probes(f"{TITLE} worker", checks, settings.host, port, stop))
            await stop.wait()
        log.info("worker_draining")
        await drain(broker)
        await relay.stop()
        await disconnect(broker)
    log.info("worker_stopped")


def _leave_to_stay() -> None:
    """The price book and the modules stay: the collector need not look at them again, 0.1 s each time."""
    gc.collect()
    gc.freeze()


def connect_bus(settings: Settings, **policy: Any) -> NatsBroker:
    """Metering's connection to the bus, not yet open. It reconnects for ever."""
    user, password = settings.nats_user, settings.nats_password
    return bus.connect_bus(settings.nats_url, user, password, topology.METERING, **policy)
