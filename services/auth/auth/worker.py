"""Composition root of the worker: settings → connections, bus → what is heard, written, forgotten and published."""

import asyncio
import signal
from datetime import UTC, datetime

import structlog
from faststream.nats import NatsBroker

from aragora.chassis import bus
from aragora.chassis.consume import consume_policy, disconnect, drain
from aragora.chassis.database import open_pool
from aragora.chassis.metrics import announce, keep_reading
from aragora.chassis.relay import Publish, Relay
from aragora.contracts import topology
from auth.acts import Clock
from auth.handlers import subscribe
from auth.housekeeping import keep_house
from auth.settings import Settings

log = structlog.get_logger()


def now_utc() -> datetime:
    """The clock of production, in whole milliseconds: as fine as tokens say when they were issued."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def publisher(broker: NatsBroker) -> Publish:
    """How the relay publishes."""

    async def publish(subject: str, payload: bytes, headers: dict[str, str]) -> object:
        return await broker.publish(payload, subject, headers=headers, stream=topology.EVENTS.name, timeout=5)

    return publish


async def run_worker(settings: Settings, clock: Clock = now_utc) -> None:
    """Follow billing, write the letters that were asked for, clean up, publish what was decided, until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with open_pool(settings.database_url, min_size=1, max_size=5) as pool:
        user, password = settings.nats_user, settings.nats_password
        broker = bus.connect_bus(settings.nats_url, user, password, topology.AUTH, **consume_policy(pool))
        subscribe(broker, pool)
        await broker.start()
        await announce("auth", broker)
        relay = Relay(pool, publisher(broker))
        relay.start()
        log.info("worker_ready")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep_house(pool, clock, stop))
            if settings.worker_port is not None:
                from aragora.chassis.app import serve_probes  # noqa: PLC0415 - a web framework, for those who ask for it

                checks, port = bus.readiness(pool, broker), settings.worker_port
                tasks.create_task(serve_probes("Aragora Auth worker", checks, settings.host, port, stop))
                tasks.create_task(keep_reading("auth", pool, broker, stop))
            await stop.wait()
        log.info("worker_draining")
        await drain(broker)
        await relay.stop()
        await disconnect(broker)
    log.info("worker_stopped")
