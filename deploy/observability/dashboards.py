"""Grafana's dashboards, as code: `python deploy/observability/dashboards.py` writes grafana/dashboards anew.

Every panel has a unit and says what it shows. What docs/observability.md calls *read* is taken by `max by`.
"""

# ruff: noqa: INP001  a script, not a package

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

FOLDER = Path(__file__).parent / "grafana/dashboards"
DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT = 24, 8
"""Of Grafana's grid, and of a panel on it."""

EVENTS_ACCEPTED = "sum(rate(metering_published_events_total[$__rate_interval]))"
MESSAGES_MADE = "sum(rate(metering_published_messages_total[$__rate_interval]))"
MAX_CONNECTIONS = 'max by (pod) (cnpg_pg_settings_setting{name="max_connections"})'
PROCESS = "{{service}} {{role}} {{instance}}"
Query = tuple[str, str]
"""An expression of PromQL, and the legend of what it finds."""


@dataclass(frozen=True)
class Panel:
    """One picture. `unit` is Grafana's name of one: `s`, `reqps`, `percentunit`, `short` for a plain number."""

    title: str
    unit: str
    description: str
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat", "table"] = "timeseries"
    columns: int = 8


@dataclass(frozen=True)
class Dashboard:
    """A page: rows of panels, each with a heading."""

    uid: str
    title: str
    description: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]


def rate(counter: str, *by: str, where: str = "") -> Query:
    """How often it happens, per second."""
    names = ", ".join(by)
    legend = " ".join(f"{{{{{name}}}}}" for name in by) or counter
    return f"sum by ({names}) (rate({counter}{{{where}}}[$__rate_interval]))", legend


def published(events: str) -> Query:
    """How often a service publishes events of these names (a regular expression), per second."""
    return rate("relay_published_events_total", "event", where=f'event=~"{events}"')


def quantile(histogram: str, *by: str, share: str = "0.95", where: str = "") -> Query:
    """What all but a share of the observations stay below."""
    buckets = f"sum by ({', '.join(('le', *by))}) (rate({histogram}_bucket{{{where}}}[$__rate_interval]))"
    legend = " ".join([*(f"{{{{{name}}}}}" for name in by), f"p{share[2:].ljust(2, '0')}"])
    return f"histogram_quantile({share}, {buckets})", legend


def worst(gauge: str, *by: str) -> Query:
    """The highest of what all processes say."""
    return f"max by ({', '.join(by)}) ({gauge})", " ".join(f"{{{{{name}}}}}" for name in by)


OVERVIEW = Dashboard(
    "aragora-overview", "Aragora: overview", "Whether the platform does its work, and where to look if not.",
    (
        ("Now", (
            Panel("Alerts that fire", "short", "Each has a heading in docs/operations.md that says what to do.",
                  (('count by (severity, service, alertname) (ALERTS{alertstate="firing"})', ""),), "table", 12),
            Panel("Processes that answer", "short", "By service and role; a red 0 is one that is away.",
                  (('sum by (service, role) (up{job="aragora"})', "{{service}} {{role}}"),), "stat", 12),
            Panel("Ready", "short", "1: at least one process passed the check of /readyz when it was last asked.",
                  (worst("service_ready", "service", "role", "check"),)),
            Panel("Connected to NATS", "short", "1: at least one process is.",
                  (worst("bus_connected", "service", "role"),)),
            Panel("Versions", "short", "Processes by what they run; two versions are an upgrade on its way.",
                  (("count by (component, version) (build_info)", ""),), "table"),
        )),
        ("Requests", (
            Panel("Requests", "reqps", "Without probes and scrapes.",
                  (("service:http_requests:rate5m", "{{service}}"),)),
            Panel("Answered with 5xx", "percentunit", "Of all requests, over five minutes. Above 5 % ApiErrors fires.",
                  (("service:http_errors:ratio5m", "{{service}}"),)),
            Panel("Time to answer, p99", "s", "Without streams of alerts, which last as long as somebody looks.",
                  (("service:http_request_seconds:p99_5m", "{{service}}"),)),
        )),
        ("What waits", (
            Panel("Messages that wait on the bus", "short", "Not delivered yet, or delivered and not done.",
                  (("consumer:bus_waiting_messages:max", "{{consumer}}"),)),
            Panel("Oldest event in the outbox", "s",
                  "Committed, and not on the bus yet. Above three minutes OutboxNotDraining fires.",
                  (worst("outbox_oldest_seconds", "service"),)),
            Panel("Open dead letters", "short",
                  "What came and was not recorded, until somebody retries or discards it.",
                  (("service:dead_letters_open:max", "{{service}}"),)),
        )),
        ("Signing in", (
            Panel("Passwords tried", "ops", "For signing in, or to confirm something.",
                  (rate("auth_sign_ins_total", "outcome"),)),
            Panel("Locked and revoked", "ops", "Accounts locked, tokens and keys revoked, as auth published it.",
                  (published("AccountLocked|.*Revoked"),
                   rate("auth_refresh_reused_total"))),
            Panel("Questions about API keys", "ops", "Each process remembers an answer for half a minute.",
                  (rate("auth_key_questions_total", "outcome"),)),
        )),
        ("Processes", (
            Panel("CPU", "percentunit", "Of one core. A process uses one at most.",
                  (('rate(process_cpu_seconds_total{job="aragora"}[$__rate_interval])', PROCESS),), columns=12),
            Panel("Memory", "bytes", "Resident.",
                  (('process_resident_memory_bytes{job="aragora"}', PROCESS),), columns=12),
        )),
    ),
)  # fmt: skip

METERING = Dashboard(
    "aragora-metering", "Aragora: metering", "Usage on its way to the log, and limits.",
    (
        ("Recording", (
            Panel("Usage events", "ops", "By what became of them: repeated is known already, refused a dead letter.",
                  (rate("metering_events_total", "outcome"),)),
            Panel("From the bus to the log", "s",
                  "How old the oldest message of a chunk was at its commit. Above one minute UsageRecordedLate fires.",
                  (quantile("metering_recorded_lag_seconds", share="0.5"), quantile("metering_recorded_lag_seconds"))),
            Panel("Messages that wait", "short", "In the lanes of the workers.",
                  (('consumer:bus_waiting_messages:max{stream="USAGE"}', "{{consumer}}"),)),
            Panel("Time per chunk", "s", "To decode, rate, fold and commit it: one transaction.",
                  (quantile("metering_chunk_seconds", share="0.5"), quantile("metering_chunk_seconds"))),
            Panel("Events per chunk", "short",
                  "Larger chunks are cheaper per event; small ones mean that there is time.",
                  (quantile("metering_chunk_events", share="0.5"), quantile("metering_chunk_events"))),
            Panel("Without a price", "ops", "Recorded with a null cost, so not charged.",
                  (rate("metering_unpriced_events_total"),)),
        )),
        ("The edge", (
            Panel("Accepted over HTTP", "ops", "Events that the API put on the bus.",
                  (rate("metering_published_events_total"),), columns=12),
            Panel("Events per message", "short", "How well the edge groups: each message is one flush to disk.",
                  ((f"{EVENTS_ACCEPTED} / {MESSAGES_MADE}", "events"),), columns=12),
        )),
        ("Limits", (
            Panel("Time to answer", "s",
                  "How long the first question of a batch waited. Past two seconds it is undecided.",
                  (quantile("metering_limit_batch_seconds", share="0.5"),
                   quantile("metering_limit_batch_seconds", share="0.99"))),
            Panel("Questions per batch", "short", "What came while the batch before was being decided.",
                  (quantile("metering_limit_batch_questions", share="0.5"),
                   quantile("metering_limit_batch_questions"))),
            Panel("Reservations", "ops", "By what became of them, and those refused because a limit was short.",
                  (rate("metering_reservations_total", "outcome"), rate("metering_limits_exceeded_total"))),
            Panel("Undecided", "ops", "By what was answered. Above ten in five minutes LimitsUndecided fires.",
                  (rate("metering_limits_undecided_total", "answer"),)),
            Panel("Told of limits and budgets", "ops",
                  "80, 90 and 100 % of a limit, budgets that were passed, unusual days.",
                  (published("LimitReached|BudgetExceeded|UsageAnomalySeen"),)),
            Panel("A month that is not closed", "s", "Since when it should be. Above six hours MonthNotClosed fires.",
                  (worst("metering_period_close_overdue_seconds", "service"),)),
            Panel("Housekeeping that failed", "ops",
                  "By task: ending reservations, closing months, looking for unusual days.",
                  (rate("metering_housekeeping_failures_total", "task"),)),
        )),
    ),
)  # fmt: skip

BILLING = Dashboard(
    "aragora-billing", "Aragora: billing and Stripe", "What Stripe says, what it is asked, and who paid.",
    (
        ("What Stripe says", (
            Panel("Webhooks", "ops", "Lost: never came, and found in Stripe's own list.",
                  (rate("billing_stripe_webhooks_total", "outcome"),)),
            Panel("What became of them", "ops", "Postponed is tried again; unresolved, an operator must look.",
                  (rate("billing_stripe_events_total", "outcome"),)),
            Panel("Waiting", "short", "Kept, and not followed yet.",
                  (worst("billing_stripe_events_waiting", "service"),), columns=4),
            Panel("Waiting since", "s", "The oldest. Above a quarter of an hour StripeEventsWaiting fires.",
                  (worst("billing_stripe_events_oldest_seconds", "service"),), columns=4),
        )),
        ("What Stripe is asked", (
            Panel("Calls", "ops", "Refused: it will not do it; away: no answer, too many requests, its own failure.",
                  (rate("billing_stripe_calls_total", "outcome"),)),
            Panel("Time per call, p95", "s", "By operation.", (quantile("billing_stripe_call_seconds", "operation"),)),
            Panel("To be asked", "short", "Intents without an answer.",
                  (worst("billing_intents_pending", "service"),), columns=4),
            Panel("To be asked since", "s", "The oldest. Above a quarter of an hour StripeIntentsStuck fires.",
                  (worst("billing_intents_oldest_seconds", "service"),), columns=4),
        )),
        ("Who paid", (
            Panel("Payments", "ops", "As billing published it.",
                  (published("Payment(Succeeded|Failed|Recovered|Refunded|Disputed)"),)),
            Panel("Subscriptions", "ops", "Begun, changed, ended; grace periods that ran out.",
                  (published("Subscription.*|GracePeriodExpired"),)),
            Panel("For an operator", "ops", "What nobody else can settle.",
                  (published("BillingAttentionNeeded"),)),
        )),
    ),
)  # fmt: skip

NOTIFIER = Dashboard(
    "aragora-notifier", "Aragora: notifier", "Who was told, and who waits to be.",
    (
        ("Telling", (
            Panel("New alerts", "ops", "By kind, as people see them in the product.",
                  (rate("notifier_alerts_total", "kind"),)),
            Panel("Attempts", "ops", "Retried is tried again; given up goes to the operator's webhook or to the log.",
                  (rate("notifier_deliveries_total", "channel", "outcome"),)),
            Panel("Time per attempt, p95", "s", "How long mail servers and endpoints take.",
                  (quantile("notifier_delivery_seconds", "channel"),)),
        )),
        ("Waiting", (
            Panel("Due and not done", "short", "Counted up to 10,000.", (worst("notifier_queue_messages", "queue"),)),
            Panel("Due since", "s",
                  "The oldest. Above ten minutes NotificationsWaiting fires, except for endpoints that fail.",
                  (worst("notifier_queue_oldest_seconds", "queue"),)),
            Panel("Endpoints disabled", "ops", "They failed for days, or are gone.",
                  (rate("notifier_endpoints_disabled_total"),)),
        )),
    ),
)  # fmt: skip

BUS_AND_POSTGRES = Dashboard(
    "aragora-bus-and-postgres", "Aragora: bus and Postgres",
    "Consumers and outboxes; below, what NATS and Postgres say of themselves.",
    (
        ("Consumers", (
            Panel("Not delivered yet", "short", "The lag.", (worst("bus_consumer_pending_messages", "consumer"),)),
            Panel("Delivered and not done", "short", "In the hands of a worker, or waiting to come again.",
                  (worst("bus_consumer_unacknowledged_messages", "consumer"),)),
            Panel("Batches finished", "ops", "Well or not.", (rate("bus_handler_seconds_count", "consumer"),)),
            Panel("Time per batch, p95", "s", "Of the handlers.", (quantile("bus_handler_seconds", "consumer"),)),
            Panel("Deliveries that failed", "ops",
                  "Transient: a server was away; retried: the message is to blame; dead: for the last time.",
                  (rate("bus_deliveries_failed_total", "consumer", "outcome"),)),
            Panel("Readings", "s", "Since the last one that succeeded. Above three minutes ReadingsBlind fires.",
                  (("time() - max by (service, reading) (reading_succeeded_timestamp_seconds)",
                    "{{service}} {{reading}}"),)),
        )),
        ("Outboxes", (
            Panel("Published", "ops", "Events that left the outboxes, by type.",
                  (rate("relay_published_events_total", "event"),)),
            Panel("In the outbox", "short", "Committed, and not on the bus yet.", (worst("outbox_events", "service"),)),
            Panel("Interrupted", "ops", "Times that publishing failed; it is tried again.",
                  (rate("relay_failures_total", "service"),)),
        )),
        ("NATS (prometheus-nats-exporter)", (
            Panel("Storage used", "percentunit", "Of what JetStream may take on a server.",
                  (("jetstream_server_total_message_bytes / (jetstream_server_max_storage > 0)", "{{server_name}}"),)),
            Panel("Streams", "bytes", "What each holds.", (worst("jetstream_stream_total_bytes", "stream_name"),)),
            Panel("Routes", "short", "Connections to the other servers of the cluster.",
                  (("gnatsd_varz_routes", "{{server_id}}"),)),
        )),
        ("Postgres (CloudNativePG)", (
            Panel("Behind the primary", "s", "Replication lag.", (("cnpg_pg_replication_lag", "{{pod}}"),)),
            Panel("Connections", "percentunit", "Of those that the server may have.",
                  ((f"sum by (pod) (cnpg_backends_total) / {MAX_CONNECTIONS}", "{{pod}}"),)),
            Panel("Not archived", "short", "Segments of the write-ahead log that wait for the object store.",
                  (('max by (pod) (cnpg_collector_pg_wal_archive_status{value="ready"})', "{{pod}}"),)),
        )),
    ),
)  # fmt: skip

DASHBOARDS = (OVERVIEW, METERING, BILLING, NOTIFIER, BUS_AND_POSTGRES)


def rendered(dashboard: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    variable = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["aragora"],
        "links": [{"type": "dashboards", "title": "Aragora", "tags": ["aragora"], "asDropdown": True}],
        "schemaVersion": 39,
        "editable": False,
        "timezone": "utc",
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [variable]},
        "panels": [{"id": number, **panel} for number, panel in enumerate(_placed(dashboard), 1)],
    }


def _placed(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    y = 0
    for heading, panels in dashboard.rows:
        yield {"type": "row", "title": heading, "collapsed": False, "panels": [], "gridPos": _at(0, y, WIDTH, 1)}
        x, y = 0, y + 1
        for panel in panels:
            if x + panel.columns > WIDTH:
                x, y = 0, y + HEIGHT
            yield _drawn(panel, _at(x, y, panel.columns, HEIGHT))
            x += panel.columns
        y += HEIGHT


def _at(x: int, y: int, w: int, h: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": w, "h": h}


def _drawn(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    options: dict[str, Any] = {}
    if panel.kind == "timeseries":
        defaults["custom"] = {"fillOpacity": 10, "showPoints": "never"}
        options = {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    if panel.kind == "stat":
        steps = [{"color": "red", "value": None}, {"color": "green", "value": 1}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATA_SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": list(_targets(panel.queries, is_table=panel.kind == "table")),
    }


def _targets(queries: Sequence[Query], *, is_table: bool) -> Iterator[dict[str, Any]]:
    for letter, (expression, legend) in zip("ABCDEFGH", queries, strict=False):
        kind = {"format": "table", "instant": True} if is_table else {"range": True}
        yield {"refId": letter, "datasource": DATA_SOURCE, "expr": expression, "legendFormat": legend, **kind}


def text_of(dashboard: Dashboard) -> str:
    """The file that is committed."""
    return json.dumps(rendered(dashboard), indent=2) + "\n"


if __name__ == "__main__":
    for each in DASHBOARDS:
        (FOLDER / f"{each.uid}.json").write_text(text_of(each), encoding="utf-8")
