"""The shapes of the answers. Costs are exact decimals: JSON numbers with all their digits where the seeds' documented
shapes have numbers, strings everywhere else.
"""

from datetime import date, datetime
from decimal import Decimal
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from msgspec import Struct

from metering.limit_answers import OveragePrice

_Data = TypeVar("_Data")
UsageStatus: TypeAlias = Literal["active", "warning", "limit_reached"]
"""`warning`: 80 % or more of any limit is used; `limit_reached`: 100 % or more of one without an overage price."""


class Accepted(Struct):
    """Every event is on disk. `ids` are in the order of the request."""

    accepted: int
    ids: list[str]


class Success(Struct, Generic[_Data]):
    """The documented envelope."""

    data: _Data
    success: bool = True


class ProviderUsage(Struct):
    calls: int
    tokens: int
    cost: Decimal


class Totals(Struct):
    total_calls: int
    total_tokens: int
    total_cost: Decimal
    total_debates: int
    total_events: int
    unpriced_events: int
    """Events that no price was known for; they are not in `total_cost`."""
    provider_breakdown: dict[str, ProviderUsage]


class LimitUsage(Struct):
    """A limit of the current month. `limit` null: unlimited, and then nothing is counted against it; 0: none."""

    meter: str
    per: Literal["organization", "user"]
    """Whose it is: everybody's together, or the asked-for person's own."""
    limit: Decimal | None
    used: Decimal | None
    held: Decimal | None
    """By open reservations."""
    remaining: Decimal | None
    percent: Decimal | None
    """Used of the limit, rounded down to two places: 100 means reached."""
    overage: OveragePrice | None
    """With a price, the limit refuses nobody: it is what the plan includes, and more is charged."""
    resets_at: datetime


class UserUsage(Totals):
    """An organization's month, with the asked-for person's own share in `user`.

    Only the current month has limits. Without a plan, and in other months, `plan` is null and the limits are empty.
    """

    org_id: str
    user_id: str
    billing_period: str
    plan: str | None
    usage_status: UsageStatus
    usage_percentages: dict[str, Decimal]
    """By meter, in the documented names: `gemini_calls`, `gemini_tokens`, `cost`. Where a meter has a limit for the
    organization and one for each person, that which is nearer. Unlimited meters have none."""
    limits: list[LimitUsage]
    error_rate_percent: Decimal
    avg_response_time_ms: Decimal | None
    user: Totals


class PlanLimits(Struct):
    """The plan that limits an organization, null without one. Amounts by documented name; null: unlimited, 0: none."""

    plan: str | None
    plan_name: str | None
    limits: dict[str, Decimal | None]
    limits_per_user: dict[str, Decimal | None]
    """What every person has of their own, within the limits of the organization."""


class Projections(Struct):
    """What the month comes to, if it goes on as it began. The first day counts as a whole one from its first moment."""

    projected_monthly_cost: Decimal
    """USD, rounded up to whole cents."""
    projected_usage_percentage: Decimal | None
    """Of the organization's cost limit; null if it has none."""


class DashboardSummary(Struct):
    """The month in four figures."""

    total_api_calls_this_month: int
    total_cost_this_month: Decimal
    usage_status: UsageStatus
    unread_alerts: int | None
    """null: not known just now."""


class Dashboard(Struct):
    """The current month of a person's organization, on one page."""

    current_usage: UserUsage
    limits: PlanLimits
    projections: Projections
    summary: DashboardSummary


class ProviderTrend(Struct):
    calls: list[int]
    tokens: list[int]
    cost: list[Decimal]


class Trends(Struct):
    """Parallel lists, one entry per month, the oldest first."""

    org_id: str
    periods: list[str]
    total_calls: list[int]
    total_tokens: list[int]
    total_cost: list[Decimal]
    provider_trends: dict[str, ProviderTrend]


class ModelPrice(Struct):
    """What one model costs, in USD. A null price means that the model is not charged that way."""

    provider: str
    model_name: str
    cost_per_input_token: Decimal | None
    cost_per_output_token: Decimal | None
    cost_per_request: Decimal | None
    cost_per_search: Decimal | None
    cost_per_image: Decimal | None
    cost_per_page: Decimal | None
    effective_date: datetime | None
    """null: since ever."""
    source: str


class Sums(Struct, omit_defaults=False):
    """What a group of events adds up to."""

    events: int
    debates: int
    api_calls: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    tokens_cache_write: int
    tokens_reasoning: int
    requests: int
    searches: int
    images: int
    pages: int
    seconds: Decimal
    cost_usd: Decimal
    unpriced_events: int
    failed_events: int


class Summary(Struct):
    """An organization's usage from `start_date` to `end_date`, whole UTC days, both included."""

    org_id: str
    start_date: date
    end_date: date
    total_events: int
    total_debates: int
    total_api_calls: int
    total_tokens: int
    total_cost: Decimal
    unpriced_events: int
    by_provider: dict[str, Sums]
    by_model: dict[str, dict[str, Sums]]
    by_user: dict[str, Sums]
    by_day: dict[str, Sums]
    by_event_type: dict[str, Sums]


class LoggedEvent(Struct):
    """One event of the log, with what it cost and why."""

    id: str
    org_id: str
    user_id: str | None
    event_type: str
    provider: str | None
    model: str | None
    occurred_at: datetime
    recorded_at: datetime
    tokens_in: int
    tokens_out: int
    tokens_cached: int | None
    tokens_cache_write: int | None
    tokens_reasoning: int | None
    tokens_audio_in: int | None
    tokens_audio_out: int | None
    requests: int | None
    searches: int | None
    images: int | None
    pages: int | None
    seconds: Decimal | None
    cost_usd: Decimal | None
    """null: unpriced, and `unpriced_reason` says why."""
    price_source: str | None
    unpriced_reason: str | None
    reservation_id: str | None
    endpoint: str | None
    method: str | None
    status: int | None
    response_time_ms: int | None
    metadata: Any


class EventPage(Struct):
    """`next_cursor` is null on the last page."""

    events: list[LoggedEvent]
    next_cursor: str | None


class ClosedPeriod(Struct):
    """What an organization used in a calendar month (UTC), as it was recorded by `closed_at`."""

    month: str
    sequence: int
    """1: nothing came late. Each time that something did, one more."""
    closed_at: datetime
    totals: dict[str, Decimal]
    """By meter: the built-in ones and those of the plan. What is absent was not used."""
    events: int
    unpriced_events: int
    """Events that no price was known for; they are not in the total of `cost_usd`."""
    digest: str
    """Of ids, times and quantities of the events: the same events have the same one."""


class ClosedPeriods(Struct):
    periods: list[ClosedPeriod]


class DeadLetter(Struct):
    id: str
    status: str
    reason: str
    field: str | None
    org_id: str | None
    subject: str
    source_stream: str | None
    source_sequence: int | None
    attempts: int
    first_seen_at: datetime
    resolved_at: datetime | None
    resolved_by: str | None
    payload: str
    """The message as it came; bytes that are not UTF-8 are shown as �."""


class DeadLetterPage(Struct):
    dead_letters: list[DeadLetter]
    next_cursor: str | None
