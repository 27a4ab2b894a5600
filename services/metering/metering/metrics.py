"""What metering counts about itself (docs/observability.md): per chunk and per batch, after the commit."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Literal

from prometheus_client import Counter, Histogram

from aragora.chassis.metrics import waiting
from aragora.chassis.sql import Connection
from metering import periods
from metering.reservations import Ledger

_events = Counter("metering_events_total", "Usage events by what became of them", ["outcome"])
_unpriced = Counter("metering_unpriced_events_total", "Usage events recorded without a cost")
_chunk_events = Histogram(
    "metering_chunk_events", "Events per recording transaction", buckets=[1, 10, 100, 1e3, 5e3, 1e4, 2e4]
)
_chunk_seconds = Histogram("metering_chunk_seconds", "Time to decode, rate and commit a chunk")
_lag_seconds = Histogram(
    "metering_recorded_lag_seconds", "Age of a chunk's oldest message when it was committed",
    buckets=[0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800],
)  # fmt: skip
published_messages = Counter("metering_published_messages_total", "Bus messages that the edge made of accepted events")
published_events = Counter("metering_published_events_total", "Usage events accepted at the edge")

limit_batch = Histogram(
    "metering_limit_batch_questions", "Questions about limits per batch", buckets=[1, 4, 16, 64, 256]
)
limit_batch_seconds = Histogram(
    "metering_limit_batch_seconds", "How long the first question of a batch waited for its answer",
    buckets=[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4],
)  # fmt: skip
limits_exceeded = Counter("metering_limits_exceeded_total", "Reservations refused because a limit was short")
limits_undecided = Counter(
    "metering_limits_undecided_total",
    "Questions about limits that could not be decided, by what was answered",
    ["answer"],
)
_reservations = Counter("metering_reservations_total", "Reservations by what became of them", ["outcome"])
housekeeping_failures = Counter("metering_housekeeping_failures_total", "Times that housekeeping failed", ["task"])
close_overdue = waiting("metering_period_close_overdue_seconds", "How long ago a month should have been closed")

for _counter, _values in (
    (_events, ("recorded", "repeated", "refused")),
    (limits_undecided, ("refused", "allowed")),
    (housekeeping_failures, ("reservations", "months", "anomalies")),
    (_reservations, ("granted", "released", "settled", "expired")),
):
    for _value in _values:
        _counter.labels(_value)


def recorded(*, new: int, repeated: int, refused: int, unpriced: int, seconds: float) -> None:
    """One chunk was committed."""
    _events.labels("recorded").inc(new)
    _events.labels("repeated").inc(repeated)
    _events.labels("refused").inc(refused)
    _unpriced.inc(unpriced)
    _chunk_events.observe(new + repeated + refused)
    _chunk_seconds.observe(seconds)


def lagged(oldest: datetime, now: datetime) -> None:
    """One chunk was committed; its oldest message came to the bus at that moment."""
    _lag_seconds.observe(max(0, (now - oldest).total_seconds()))


def reserved(outcome: Literal["granted", "released", "settled", "expired"], count: int) -> None:
    """So many reservations came to this."""
    _reservations.labels(outcome).inc(count)


def decided(ledgers: Collection[Ledger], expired: int) -> None:
    """A batch of questions was decided, and so many reservations were found to be past their time."""
    reserved("granted", sum(len(ledger.opened) for ledger in ledgers))
    reserved("released", sum(len(ledger.released) for ledger in ledgers))
    reserved("expired", expired)


async def read_overdue(connection: Connection, close_days: int) -> None:
    """Read how long ago a month should have been closed."""
    close_overdue.set(await periods.overdue_seconds(connection, datetime.now(UTC), close_days))
