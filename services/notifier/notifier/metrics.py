"""What the notifier counts about itself (docs/observability.md), after the commit."""

from collections.abc import Callable
from datetime import datetime

from prometheus_client import Counter, Histogram

from aragora.chassis import sql
from aragora.chassis.metrics import waiting
from aragora.chassis.sql import Connection
from notifier.kinds import KINDS

MAX_COUNTED = 10_000

alerts = Counter("notifier_alerts_total", "New alerts", ["kind"])
deliveries = Counter("notifier_deliveries_total", "Attempts to tell somebody", ["channel", "outcome"])
delivery_seconds = Histogram(
    "notifier_delivery_seconds", "Time that an attempt took", ["channel"],
    buckets=[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 60],
)  # fmt: skip
endpoints_disabled = Counter("notifier_endpoints_disabled_total", "Webhook endpoints that were disabled")
_queue_messages = waiting("notifier_queue_messages", "What is due and was not done yet", ["queue"])
_queue_seconds = waiting("notifier_queue_oldest_seconds", "How long the first of it has been due", ["queue"])
gauges = (_queue_messages, _queue_seconds)

queries = sql.load("notifier", "sql/queues.sql")

for _kind in KINDS.values():
    if _kind.in_app:
        alerts.labels(_kind.name)
deliveries.labels("email", "away")
for _channel in ("email", "webhook", "operator"):
    delivery_seconds.labels(_channel)
    for _outcome in ("delivered", "retried", "given_up"):
        deliveries.labels(_channel, _outcome)


async def read_queues(connection: Connection, clock: Callable[[], datetime]) -> None:
    """Read what is due."""
    for row in await connection.fetch(queries.read_queues, clock(), MAX_COUNTED):
        _queue_messages.labels(row["queue"]).set(row["messages"])
        _queue_seconds.labels(row["queue"]).set(row["seconds"])
