"""What billing counts about itself (docs/observability.md). Payments are counted by the events that tell of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import Counter, Histogram

from aragora.chassis.metrics import waiting
from aragora.chassis.sql import Connection, load

webhooks = Counter("billing_stripe_webhooks_total", "Stripe's webhooks", ["outcome"])
events = Counter("billing_stripe_events_total", "Webhooks that were kept, by what became of them", ["outcome"])
_calls = Counter("billing_stripe_calls_total", "Calls of Stripe's API", ["operation", "outcome"])
_call_seconds = Histogram(
    "billing_stripe_call_seconds", "Time that calls of Stripe's API took", ["operation"],
    buckets=[0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20],
)  # fmt: skip
_events_waiting = waiting("billing_stripe_events_waiting", "Webhooks kept, not followed yet")
_events_seconds = waiting("billing_stripe_events_oldest_seconds", "How long the first of them has waited")
_intents_pending = waiting("billing_intents_pending", "What is to be asked of Stripe, not answered yet")
_intents_seconds = waiting("billing_intents_oldest_seconds", "How long the first of it has waited")
gauges = (_events_waiting, _events_seconds, _intents_pending, _intents_seconds)

for _outcome in ("kept", "repeated", "refused", "lost"):
    webhooks.labels(_outcome)
for _outcome in ("handled", "postponed", "unresolved"):
    events.labels(_outcome)

queries = load("billing", "sql/stripe.sql")


@contextmanager
def asking(operation: str, *, refusal: type[Exception]) -> Iterator[None]:
    """Count one call of Stripe's API, and how long it takes. `refusal`: Stripe will not do it; others: it is away."""
    outcome, started_at = "away", perf_counter()
    try:
        yield
        outcome = "answered"
    except refusal:
        outcome = "refused"
        raise
    finally:
        _calls.labels(operation, outcome).inc()
        _call_seconds.labels(operation).observe(perf_counter() - started_at)


async def read(connection: Connection) -> None:
    """Read what waits for Stripe, or for us."""
    row = await connection.fetchrow(queries.read_waiting)
    for gauge, value in zip(gauges, row or (), strict=True):
        gauge.set(value)
