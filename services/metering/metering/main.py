"""Composition root: settings → connections, bus, prices → the API or a worker."""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import structlog
from fastapi import FastAPI
from faststream.nats import NatsBroker
from faststream.security import SASLPlaintext

from aragora.billing.jwt_auth import JWTConfig
from aragora.billing.pricebook import PriceBook
from aragora.chassis import app as chassis_app
from aragora.chassis import inbox
from aragora.chassis.app import Check
from aragora.chassis.consume import consume_policy, disconnect, drain
from aragora.chassis.relay import Relay
from aragora.chassis.security import parse_service_keys
from aragora.chassis.sql import Pool
from aragora.contracts import topology
from metering import api, dead_letters_api
from metering.edge import UsagePublisher
from metering.handlers import SESSION_SETTINGS, Recorder, prepare_session, subscribe
from metering.log_months import open_due_month
from metering.settings import Settings

VERSION = "0.1.0"
TITLE = "Aragora Metering"
DESCRIPTION = "Records, prices and sums up usage."
HOUSEKEEPING_SECONDS = 60.0
FORGET_FAILURES_AFTER = timedelta(days=35)

log = structlog.get_logger()
routers = (api.router, dead_letters_api.router)


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

        async with asyncpg.create_pool(settings.database_url, min_size=2, max_size=10, command_timeout=30) as pool:
            await broker.connect()
            app.state.metering_pool = pool
            app.state.metering_publish = publish
            app.state.metering_publisher = UsagePublisher(publish)
            app.state.metering_prices = PriceBook.load(settings.price_tables)
            app.state.readiness |= readiness(pool, broker)
            try:
                yield
            finally:
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
        asyncpg.create_pool(settings.database_url, min_size=1, max_size=2) as side_pool,
    ):
        prices = PriceBook.load(settings.price_tables)
        await open_due_month(side_pool, datetime.now(UTC))
        broker = connect_bus(settings, **consume_policy(side_pool))
        subscribe(broker, Recorder(pool, prices))

        async def publish(subject: str, payload: bytes, headers: dict[str, str]) -> object:
            return await broker.publish(payload, subject, headers=headers, stream=topology.EVENTS.name, timeout=5)

        gc.collect()
        gc.freeze()  # the price book and the modules stay: the collector need not look at them again
        await broker.start()
        relay = Relay(side_pool, publish)
        relay.start()
        log.info("worker_ready")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_keep_house(side_pool, stop))
            if settings.worker_port is not None:
                tasks.create_task(_serve_probes(settings, settings.worker_port, readiness(side_pool, broker), stop))
            await stop.wait()
        log.info("worker_draining")
        await drain(broker)
        await relay.stop()
        await disconnect(broker)
    log.info("worker_stopped")


def connect_bus(settings: Settings, **policy: Any) -> NatsBroker:
    """Metering's connection to the bus, not yet open. It reconnects for ever."""
    security = None
    if settings.nats_user is not None:
        security = SASLPlaintext(username=settings.nats_user, password=settings.nats_password or "")
    return NatsBroker(
        settings.nats_url,
        security=security,
        inbox_prefix=topology.METERING.inbox_prefix,
        max_reconnect_attempts=-1,
        reconnect_time_wait=1,
        logger=None,
        error_cb=_log_bus_error,
        graceful_timeout=20,
        **policy,
    )


async def _log_bus_error(error: Exception) -> None:
    log.warning("bus_error", error=str(error) or type(error).__name__)


def readiness(pool: Pool, broker: NatsBroker) -> dict[str, Check]:
    """What must answer before metering can do its work."""

    async def postgres() -> object:
        return await pool.fetchval("SELECT 1")

    async def bus() -> object:
        if not await broker.ping(timeout=1):
            raise ConnectionError("not connected to NATS")
        return None

    return {"postgres": postgres, "nats": bus}


async def _keep_house(pool: Pool, stop: asyncio.Event) -> None:
    """Once a minute: open the month that is due, and forget old failures of deliveries."""
    while not stop.is_set():
        try:
            async with asyncio.timeout(HOUSEKEEPING_SECONDS):
                await stop.wait()
        except TimeoutError:
            now = datetime.now(UTC)
            try:
                await open_due_month(pool, now)
                async with pool.acquire() as connection:
                    await inbox.forget_before(connection, now - FORGET_FAILURES_AFTER)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
                # Recording goes on in the month that is open; a minute later this is tried again.
                log.warning("housekeeping_failed", error=str(error))


async def _serve_probes(settings: Settings, port: int, checks: dict[str, Check], stop: asyncio.Event) -> None:
    probes = chassis_app.create_app(title="Aragora Metering worker", version=VERSION, routers=[], readiness=checks)
    serving = asyncio.create_task(chassis_app.serve(probes, settings.host, port))
    told = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, told}, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    # A signal ends it too, unless it came before it was listened to.
    await asyncio.wait({serving}, timeout=1)
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving
