"""What every service says about itself at `/metrics`. docs/observability.md has the meaning of each.

What happens is counted where it happens. What is waiting is read by a worker, from its database and from the bus, every
few seconds: the cost does not depend on who asks for the metrics, nor how often. A gauge that could not be read the
last time is absent, and a timestamp says since when: nothing stays at a value that was good once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING

import structlog
from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Metric, disable_created_metrics
from prometheus_client.registry import Collector

from aragora.chassis import sql
from aragora.chassis.sql import Connection, Pool
from aragora.contracts.envelope import event_types
from aragora.contracts.topology import CONSUMERS

if TYPE_CHECKING:  # commands that count begin without a broker
    from faststream.nats import NatsBroker

READ_EVERY_SECONDS = 10.0
READ_WITHIN_SECONDS = 5.0
"""A reading has so long, and its connection as long again to come back: a server that is silent holds up nobody."""
MAX_OUTBOX_COUNTED = 100_000
MAX_LETTERS_COUNTED = 10_000

Read = Callable[[Connection], Awaitable[None]]
"""Sets the gauges of a service from its database."""

disable_created_metrics()  # type: ignore[no-untyped-call]  # when each counter began is a second series for each that there is

service_ready = Gauge("service_ready", "1: this check of /readyz passed when it was last asked", ["check"])
published = Counter("relay_published_events_total", "Domain events that left the outbox for the bus", ["event"])
relay_failures = Counter("relay_failures_total", "Times that publishing was interrupted")
handler_seconds = Histogram(
    "bus_handler_seconds", "Time to handle a batch of messages", ["consumer"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)  # fmt: skip
deliveries_failed = Counter("bus_deliveries_failed_total", "Deliveries that failed", ["consumer", "outcome"])
_build = Gauge("build_info", "Always 1", ["component", "version"])
_connected = Gauge("bus_connected", "1: connected to NATS", ["component"])
_succeeded = Gauge(
    "reading_succeeded_timestamp_seconds", "When a reading last succeeded; 0: never yet", ["component", "reading"]
)


def waiting(name: str, meaning: str, labels: Sequence[str] = ()) -> Gauge:
    """A gauge for `keep_reading`, which shows it as long as it can be read."""
    return Gauge(name, meaning, labels, registry=None)


_pending = waiting("bus_consumer_pending_messages", "Messages not delivered yet", ["stream", "consumer"])
_unacknowledged = waiting(
    "bus_consumer_unacknowledged_messages", "Messages delivered, not done", ["stream", "consumer"]
)
_outbox_events = waiting("outbox_events", "Events committed, not on the bus yet", ["component"])
_outbox_seconds = waiting("outbox_oldest_seconds", "How long the first of them has waited", ["component"])
_letters = waiting("dead_letters_open", "Dead letters that nobody has settled", ["component"])

queries = sql.load("aragora.chassis")
_log = structlog.get_logger(__name__)


async def announce(component: str, broker: "NatsBroker") -> None:
    """Say which service runs here, in which version, whether it is connected, and which events it may publish."""
    client = await broker.connect()
    _build.labels(component, version("aragora-chassis")).set(1)
    _connected.labels(component).set_function(lambda: client.is_connected)
    for _, service, event, _ in (type_name.split(".") for type_name in event_types()):
        if service == component:
            published.labels(event)


async def keep_reading(
    component: str,
    pool: Pool,
    broker: "NatsBroker",
    stop: asyncio.Event,
    read: Read | None = None,
    gauges: Sequence[Gauge] = (),
) -> None:
    """Read what waits, until `stop` is set.

    Args:
        component: the service; its consumers on the bus are those that begin with its name.
        pool: its database.
        broker: its connection to the bus.
        stop: ends the reading.
        read: sets the service's own gauges.
        gauges: these; made with `waiting`.
    """
    consumers = [each for each in CONSUMERS if each.name.startswith(f"{component}-")]

    async def read_database() -> None:
        async with pool.acquire(timeout=READ_WITHIN_SECONDS) as connection:
            row = await connection.fetchrow(queries.read_waiting, MAX_OUTBOX_COUNTED, MAX_LETTERS_COUNTED)
            for gauge, value in zip((_outbox_events, _outbox_seconds, _letters), row or (), strict=True):
                gauge.labels(component).set(value)
            if read is not None:
                await read(connection)

    async def read_bus() -> None:
        bus = (await broker.connect()).jetstream()
        for each in consumers:
            info = await bus.consumer_info(each.stream, each.name)
            _pending.labels(each.stream, each.name).set(info.num_pending or 0)
            _unacknowledged.labels(each.stream, each.name).set(info.num_ack_pending or 0)

    database = _Reading((_outbox_events, _outbox_seconds, _letters, *gauges), read_database)
    readings = {"database": database, "bus": _Reading((_pending, _unacknowledged), read_bus)}
    for name in readings:
        _succeeded.labels(component, name)
    try:
        for reading in readings.values():
            REGISTRY.register(reading)
        while not stop.is_set():
            for name, reading in readings.items():
                if await reading.succeeds(name):
                    _succeeded.labels(component, name).set_to_current_time()
            with suppress(TimeoutError):
                async with asyncio.timeout(READ_EVERY_SECONDS):
                    await stop.wait()
    finally:
        for reading in readings.values():
            REGISTRY.unregister(reading)


class _Reading(Collector):
    """Gauges that are there as long as they can be read."""

    def __init__(self, gauges: Sequence[Gauge], read: Callable[[], Awaitable[None]]) -> None:
        self._gauges = gauges
        self._read = read
        self._is_good = False

    async def succeeds(self, name: str) -> bool:
        try:
            async with asyncio.timeout(READ_WITHIN_SECONDS):
                await self._read()
            self._is_good = True
        except Exception as error:  # noqa: BLE001  whatever it is: it cannot be read, and the worker goes on
            self._is_good = False
            _log.warning("not_read", reading=name, reason=repr(error))
        return self._is_good

    def collect(self) -> Iterator[Metric]:
        for gauge in self._gauges if self._is_good else ():
            yield from gauge.collect()
