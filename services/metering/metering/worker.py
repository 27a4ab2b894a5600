"""Composition root of the worker: settings → connections, bus, prices → what is recorded, published, kept in order."""

import asyncio
import gc
import signal
from datetime import UTC, datetime
from functools import partial
from typing import Any

import structlog
from faststream.nats import NatsBroker

from aragora.billing.pricebook import PriceBook
from aragora.chassis import bus
from aragora.chassis.bus import readiness
from aragora.chassis.consume import consume_policy, disconnect, drain
from aragora.chassis.database import open_pool
from aragora.chassis.metrics import announce, keep_reading
from aragora.chassis.relay import Relay
from aragora.contracts import topology
from metering import metrics, periods
from metering.entitlements import prepare_entitlements_session
from metering.handlers import (
    SESSION_SETTINGS,
    Recorder,
    follow_entitlements,
    follow_erasures,
    prepare_session,
    subscribe,
)
from metering.housekeeping import close_months, keep_house, watch_days
from metering.log_months import open_due_month
from metering.settings import Settings

log = structlog.get_logger()


async def run_worker(settings: Settings) -> None:
    """Record usage from the bus, and publish what metering decided, until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with (
        open_pool(
            settings.database_url, min_size=1, max_size=2, init=prepare_session, server_settings=SESSION_SETTINGS
        ) as pool,
        open_pool(settings.database_url, min_size=1, max_size=4) as side_pool,
        open_pool(
            settings.database_url, min_size=1, max_size=1, init=prepare_entitlements_session
        ) as entitlements_pool,
        open_pool(
            settings.database_url, min_size=0, max_size=1, init=periods.prepare_closing_session,
            server_settings=periods.SESSION_SETTINGS,
        ) as periods_pool,
    ):  # fmt: skip
        prices = PriceBook.load(settings.price_tables)
        await open_due_month(side_pool, datetime.now(UTC))
        broker = connect_bus(settings, **consume_policy(side_pool))
        subscribe(broker, Recorder(pool, prices))
        follow_entitlements(broker, entitlements_pool, prices)
        follow_erasures(broker, side_pool)

        async def publish(subject: str, payload: bytes, headers: dict[str, str]) -> object:
            return await broker.publish(payload, subject, headers=headers, stream=topology.EVENTS.name, timeout=5)

        leave_to_stay()
        await broker.start()
        await announce("metering", broker)
        relay = Relay(side_pool, publish)
        relay.start()
        log.info("worker_ready")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep_house(side_pool, stop))
            tasks.create_task(watch_days(side_pool, stop))
            tasks.create_task(close_months(periods_pool, stop, settings.period_close_days))
            if settings.worker_port is not None:
                from aragora.chassis.app import serve_probes  # noqa: PLC0415 - a web framework, for those who ask for it

                checks, port = readiness(side_pool, broker), settings.worker_port
                tasks.create_task(serve_probes("Aragora Metering worker", checks, settings.host, port, stop))
                read = partial(metrics.read_overdue, close_days=settings.period_close_days)
                gauges = [metrics.close_overdue]
                tasks.create_task(keep_reading("metering", side_pool, broker, stop, read, gauges))
            await stop.wait()
        log.info("worker_draining")
        await drain(broker)
        await relay.stop()
        await disconnect(broker)
    log.info("worker_stopped")


def leave_to_stay() -> None:
    """The price book and the modules stay: the collector need not look at them again, 0.1 s each time."""
    gc.collect()
    gc.freeze()


def connect_bus(settings: Settings, **policy: Any) -> NatsBroker:
    """Metering's connection to the bus, not yet open. It reconnects for ever."""
    user, password = settings.nats_user, settings.nats_password
    return bus.connect_bus(settings.nats_url, user, password, topology.METERING, **policy)
