"""From usage events to rows. Pure.

What one event counts as (`debates`, `api_calls`) and costs is decided here, once, and written into its row of the log;
everything after that is addition (sql/fold.sql). That is why the projections can be rebuilt from the log by sums alone.
"""

from collections.abc import Iterable
from datetime import date, datetime
from typing import Any

from aragora.billing.pricebook import PriceBook
from aragora.contracts.usage import UsageRecorded

COLUMNS = (
    "org_id", "id", "occurred_at", "event_type", "user_id", "provider", "model",
    "tokens_in", "tokens_out", "tokens_cached", "tokens_cache_write", "tokens_reasoning",
    "tokens_audio_in", "tokens_audio_out", "requests", "searches", "images", "pages",
    "seconds", "cost_usd", "price_source", "unpriced_reason", "debates", "api_calls",
    "reservation_id", "endpoint", "method", "status", "response_time_ms", "metadata",
)  # fmt: skip
"""The columns of a row, in the order in which `log_rows` gives them. `seconds` and `cost_usd` are decimals in text."""


def is_debate(event_type: str | None) -> bool:
    """Whether usage of this type counts as a debate."""
    return event_type == "debate"


def is_api_call(event_type: str | None, provider: str | None) -> bool:
    """Whether usage counts as API calls: if it names a provider, or is of type `api_call`."""
    return provider is not None or event_type == "api_call"


def debates_of(event: UsageRecorded) -> int:
    """Debates that an event counts as: one, if it is of type `debate`."""
    return 1 if is_debate(event.data.event_type) else 0


def api_calls_of(event: UsageRecorded) -> int:
    """API calls that an event counts as: its `requests`, or one, if it is an API call; else none."""
    usage = event.data
    if not is_api_call(usage.event_type, usage.provider):
        return 0
    return 1 if usage.requests is None else usage.requests


def log_rows(events: Iterable[UsageRecorded], prices: PriceBook) -> list[tuple[Any, ...]]:
    """Each event as a row of the log: what it says, what it counts as and what it costs."""
    rate = prices.rate
    rows = []
    for event in events:
        u = event.data
        cost_usd, source, reason = rate(u, event.time)
        rows.append((
            event.subject, event.id, event.time, u.event_type, u.user_id, u.provider, u.model,
            u.tokens_in, u.tokens_out, u.tokens_cached or None, u.tokens_cache_write or None,
            u.tokens_reasoning or None, u.tokens_audio_in or None, u.tokens_audio_out or None,
            u.requests, u.searches, u.images, u.pages,
            u.seconds, None if cost_usd is None else str(cost_usd), source or None, reason,
            debates_of(event), api_calls_of(event),
            u.reservation_id, u.endpoint, u.method, u.status, u.response_time_ms,
            bytes(u.metadata).decode() if u.metadata else None,
        ))  # fmt: skip
    return rows


def month_of(moment: date | datetime) -> str:
    """The calendar month, YYYY-MM. A datetime must be in UTC."""
    return f"{moment.year:04d}-{moment.month:02d}"
