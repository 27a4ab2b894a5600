"""What metering counts about itself. The names are part of the product: dashboards and alerts are built on them."""

from prometheus_client import Counter, Histogram

_events = Counter("metering_events_total", "Usage events by what became of them", ["outcome"])
_chunk_events = Histogram(
    "metering_chunk_events", "Events per recording transaction", buckets=[1, 10, 100, 1e3, 5e3, 1e4, 2e4]
)
_chunk_seconds = Histogram("metering_chunk_seconds", "Time to decode, rate and commit a chunk")
published_messages = Counter("metering_published_messages_total", "Bus messages that the edge made of accepted events")
published_events = Counter("metering_published_events_total", "Usage events accepted at the edge")

limit_batch = Histogram(
    "metering_limit_batch_questions", "Questions about limits per batch", buckets=[1, 4, 16, 64, 256]
)
limits_exceeded = Counter("metering_limits_exceeded_total", "Reservations refused because a limit was short")
limits_undecided = Counter(
    "metering_limits_undecided_total",
    "Questions about limits that could not be decided, by what was answered",
    ["answer"],
)


def recorded(*, new: int, repeated: int, refused: int, seconds: float) -> None:
    """One chunk was committed."""
    _events.labels("recorded").inc(new)
    _events.labels("repeated").inc(repeated)
    _events.labels("refused").inc(refused)
    _chunk_events.observe(new + repeated + refused)
    _chunk_seconds.observe(seconds)
