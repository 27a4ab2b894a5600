"""Composition root of the worker: settings → connections, bus, catalog → what is due, heard and published."""

import asyncio
import signal
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from faststream.nats import NatsBroker

from aragora.chassis import bus, inbox
from aragora.chassis.consume import consume_policy, disconnect, drain
from aragora.chassis.database import open_pool
from aragora.chassis.metrics import announce, keep_reading
from aragora.chassis.relay import Relay
from aragora.chassis.sql import Pool
from aragora.contracts import topology
from aragora.contracts.plans import Meter
from billing import metrics, stripe_following
from billing.collecting import follow_payments
from billing.due import follow_the_clock
from billing.handlers import Clock, subscribe
from billing.payments import paying_with
from billing.settings import Settings, read_catalog
from billing.stripe_kinds import KINDS
from billing.subscriptions import publish_catalog, queries

FORGET_AFTER = timedelta(days=35)
"""Of failed deliveries, and of people who were erased: the bus delivers nothing any more from before that. Of webhooks
that were followed: Stripe's own list of events, which is read again, reaches back 30 days."""

log = structlog.get_logger()


def now_utc() -> datetime:
    """The clock of production."""
    return datetime.now(UTC)


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
    async with open_pool(settings.database_url, min_size=1, max_size=6) as pool:
        await publish(pool, settings, clock)
        async with pool.acquire() as connection:
            await inbox.forget_before(connection, clock() - FORGET_AFTER)
            await connection.execute(queries.forget_erased, clock() - FORGET_AFTER)
            await connection.execute(stripe_following.queries.forget_events, clock() - FORGET_AFTER)
        broker = connect_bus(settings, **consume_policy(pool))
        subscribe(broker, pool, clock)

        async def send(subject: str, payload: bytes, headers: dict[str, str]) -> object:
            return await broker.publish(payload, subject, headers=headers, stream=topology.EVENTS.name, timeout=5)

        await broker.start()
        await announce("billing", broker)
        relay = Relay(pool, send)
        relay.start()
        log.info("worker_ready")
        async with paying_with(settings, pool, KINDS) as payments, asyncio.TaskGroup() as tasks:
            tasks.create_task(follow_the_clock(pool, clock, stop))
            tasks.create_task(follow_payments(payments, clock, stop))
            if settings.worker_port is not None:
                from aragora.chassis.app import serve_probes  # noqa: PLC0415 - a web framework, for those who ask for it

                checks, port = bus.readiness(pool, broker), settings.worker_port
                tasks.create_task(serve_probes("Aragora Billing worker", checks, settings.host, port, stop))
                tasks.create_task(keep_reading("billing", pool, broker, stop, metrics.read, metrics.gauges))
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
