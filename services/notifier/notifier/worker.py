"""Composition root of the worker: settings → connections, bus → what is heard, sent, forgotten and published."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import structlog

from aragora.chassis import bus
from aragora.chassis.consume import consume_policy, disconnect, drain
from aragora.chassis.database import open_pool
from aragora.chassis.metrics import announce, keep_reading
from aragora.chassis.relay import Relay
from aragora.chassis.sealing import Sealer
from aragora.contracts import topology
from notifier import metrics
from notifier.addressing import address_alerts
from notifier.bus_connection import connect_bus, now_utc
from notifier.directory import Directory
from notifier.handlers import Clock, subscribe
from notifier.housekeeping import keep_house
from notifier.lanes import deliver_webhooks
from notifier.mailing import send_mail
from notifier.operator_endpoint import operator_endpoint
from notifier.sending import Sender
from notifier.settings import SERVICE, Settings
from notifier.smtp import Post

SESSION_SETTINGS = {
    "application_name": "notifier-worker",
    # Queues are short and what was delivered is long: every look goes through an index, and through the right one,
    # whatever a plan says that was made when the table was empty a minute ago.
    "plan_cache_mode": "force_custom_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
log = structlog.get_logger()


async def run_worker(settings: Settings, clock: Clock = now_utc) -> None:
    """Hear what people must know of, and tell them, until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with working(settings, clock, stop):
        await stop.wait()
    log.info("worker_stopped")


@asynccontextmanager
async def working(settings: Settings, clock: Clock, stop: asyncio.Event) -> AsyncIterator[None]:
    """Everything that the worker does, while the block runs. `stop` is set when a task of it fails, and at the end."""
    sealer = Sealer(settings.sealing_keys, SERVICE)
    database = open_pool(
        settings.database_url, min_size=1, max_size=12, command_timeout=60, server_settings=SESSION_SETTINGS
    )
    async with database as pool:
        async with pool.acquire() as connection, connection.transaction():
            await operator_endpoint(connection, settings, sealer, clock())
        broker = connect_bus(settings, **consume_policy(pool))
        subscribe(broker, pool, clock)

        async def send(subject: str, payload: bytes, headers: dict[str, str]) -> object:
            return await broker.publish(payload, subject, headers=headers, stream=topology.EVENTS.name, timeout=5)

        await broker.start()
        await announce(SERVICE, broker)
        directory = Directory(pool, await broker.connect(), sealer)
        relay = Relay(pool, send)
        relay.start()
        async with Sender(settings.networks) as sender, Post(settings) as post, asyncio.TaskGroup() as tasks:
            for work in (
                address_alerts(pool, directory, clock, settings.digest_hour, stop),
                send_mail(pool, post, directory, sealer, settings, clock, stop),
                deliver_webhooks(pool, sender, sealer, clock, stop),
                keep_house(pool, clock, stop),
            ):
                tasks.create_task(work)
            if settings.worker_port is not None:
                from aragora.chassis.app import serve_probes  # noqa: PLC0415 - a web framework, for those who ask for it

                checks, port = bus.readiness(pool, broker), settings.worker_port
                tasks.create_task(serve_probes("Aragora Notifier worker", checks, settings.host, port, stop))
                read = partial(metrics.read_queues, clock=clock)
                tasks.create_task(keep_reading(SERVICE, pool, broker, stop, read, metrics.gauges))
            log.info("worker_ready")
            try:
                yield
            finally:
                stop.set()
                log.info("worker_draining")
                await drain(broker)
        await relay.stop()
        await disconnect(broker)
