"""From rows to answers. Pure."""

import base64
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from aragora.billing.prices.tables import ALWAYS, PriceRow
from aragora.billing.rating import EXACT, trimmed
from metering import answers
from metering.forecast import projected_cost_usd
from metering.limit_answers import OveragePrice
from metering.limits import resets_at
from metering.projections import month_of

if TYPE_CHECKING:
    import asyncpg

Row: TypeAlias = "asyncpg.Record"

NO_PROVIDER = "none"
"""How usage without a provider (a debate, say) is called in a breakdown by provider."""
WARNING_PERCENT = 80
"""From here on of any limit, a month's usage is a warning: the first threshold of `LimitReached`."""


def last_day(first: date) -> date:
    """The last day of the month that begins on this day."""
    return (first + timedelta(days=32)).replace(day=1) - timedelta(days=1)


def months_before(first: date, count: int) -> list[date]:
    """The first days of `count` months, the last of which begins on `first`."""
    months = [first]
    while len(months) < count:
        months.append((months[-1] - timedelta(days=1)).replace(day=1))
    return months[::-1]


def user_usage(
    org_id: str, user_id: str, first: date, rows: Sequence[Row], limit_rows: Sequence[Row], now: datetime
) -> answers.UserUsage:
    """One month of an organization, from rows of `usage_by_provider`, and of `limit_uses` if it is the current one."""
    events = sum(int(row["events"]) for row in rows)
    timed = sum(int(row["timed_events"]) for row in rows)
    failed = sum(int(row["failed_events"]) for row in rows)
    milliseconds = sum((row["response_time_ms"] for row in rows), Decimal(0))
    limits = [_limit_usage(row, now) for row in limit_rows if row["meter"] is not None]
    return answers.UserUsage(
        org_id=org_id,
        user_id=user_id,
        billing_period=month_of(first),
        plan=limit_rows[0]["plan"] if limit_rows else None,
        usage_status=_usage_status(limits),
        usage_percentages=_usage_percentages(limits),
        limits=limits,
        error_rate_percent=_rounded(Decimal(100 * failed) / events) if events else Decimal(0),
        avg_response_time_ms=_rounded(milliseconds / timed) if timed else None,
        user=answers.Totals(**_totals(rows, "user_")),
        **_totals(rows, ""),
    )


def dashboard(
    usage: answers.UserUsage, limit_rows: Sequence[Row], first: date, now: datetime, unread_alerts: int | None
) -> answers.Dashboard:
    """The current month on one page, from its usage and the rows of `limit_uses`."""
    projected = projected_cost_usd(usage.total_cost, first, now)
    budget = next((one.limit for one in usage.limits if (one.meter, one.per) == ("cost_usd", "organization")), None)
    return answers.Dashboard(
        current_usage=usage,
        limits=answers.PlanLimits(
            plan=usage.plan,
            plan_name=limit_rows[0]["plan_name"] if limit_rows else None,
            limits=_amounts(usage.limits, "organization"),
            limits_per_user=_amounts(usage.limits, "user"),
        ),
        projections=answers.Projections(trimmed(projected), percent_of(projected, budget)),
        summary=answers.DashboardSummary(
            total_api_calls_this_month=usage.total_calls,
            total_cost_this_month=usage.total_cost,
            usage_status=usage.usage_status,
            unread_alerts=unread_alerts,
        ),
    )


def documented_name(meter: str, cost: str) -> str:
    """What the guides call a meter: `gemini_calls` for `calls:gemini`, and `cost` for `cost_usd`."""
    kind, _, provider = meter.partition(":")
    if provider and kind in ("calls", "tokens"):
        return f"{provider}_{kind}"
    return cost if meter == "cost_usd" else meter


def percent_of(used: Decimal, amount: Decimal | None) -> Decimal | None:
    """How much of an amount is used, in percent, rounded down to two places: 100 means reached. None: unlimited."""
    if amount is None:
        return None
    if amount == 0:
        return Decimal(100 if used > 0 else 0)
    hundredths = EXACT.divide_int(EXACT.multiply(used, Decimal(10_000)), amount)
    return trimmed(EXACT.scaleb(hundredths, -2))


def _limit_usage(row: Row, now: datetime) -> answers.LimitUsage:
    amount, used, held = row["amount"], row["used"], row["held"]
    if amount is None:
        used = held = remaining = None
    else:
        remaining = trimmed(max(EXACT.subtract(EXACT.subtract(amount, used), held), Decimal(0)))
    return answers.LimitUsage(
        meter=row["meter"],
        per=row["per"],
        limit=_trimmed(amount),
        used=_trimmed(used),
        held=_trimmed(held),
        remaining=remaining,
        percent=None if used is None else percent_of(used, amount),
        overage=None
        if row["overage_price_usd"] is None
        else OveragePrice(price_usd=trimmed(row["overage_price_usd"]), per=trimmed(row["overage_per"])),
        resets_at=resets_at(now),
    )


def _usage_percentages(limits: Iterable[answers.LimitUsage]) -> dict[str, Decimal]:
    nearest: dict[str, Decimal] = {}
    for limit in limits:
        if limit.percent is not None:
            name = documented_name(limit.meter, "cost")
            nearest[name] = max(limit.percent, nearest.get(name, limit.percent))
    return nearest


def _usage_status(limits: Iterable[answers.LimitUsage]) -> answers.UsageStatus:
    nearest = [(limit.percent, limit.overage is None) for limit in limits if limit.percent is not None]
    if any(percent >= 100 and refuses for percent, refuses in nearest):
        return "limit_reached"
    return "warning" if any(percent >= WARNING_PERCENT for percent, _ in nearest) else "active"


def _amounts(limits: Iterable[answers.LimitUsage], per: str) -> dict[str, Decimal | None]:
    return {documented_name(limit.meter, "monthly_cost"): limit.limit for limit in limits if limit.per == per}


def _trimmed(amount: Decimal | None) -> Decimal | None:
    return None if amount is None else trimmed(amount)


def _totals(rows: Sequence[Row], prefix: str) -> dict[str, Any]:
    counted = [row for row in rows if row[f"{prefix}events"]]
    return {
        "total_calls": sum(int(row[f"{prefix}calls"]) for row in counted),
        "total_tokens": sum(int(row[f"{prefix}tokens"]) for row in counted),
        "total_cost": _sum(row[f"{prefix}cost"] for row in counted),
        "total_debates": sum(int(row[f"{prefix}debates"]) for row in counted),
        "total_events": sum(int(row[f"{prefix}events"]) for row in counted),
        "unpriced_events": sum(int(row[f"{prefix}unpriced_events"]) for row in counted),
        "provider_breakdown": {
            row["provider"] or NO_PROVIDER: answers.ProviderUsage(
                int(row[f"{prefix}calls"]), int(row[f"{prefix}tokens"]), trimmed(row[f"{prefix}cost"])
            )
            for row in counted
        },
    }


def trends(org_id: str, firsts: Sequence[date], rows: Iterable[Row]) -> answers.Trends:
    """Months side by side, from rows of `usage_by_month`. A month without usage is a zero."""
    periods = [month_of(first) for first in firsts]
    position = {period: index for index, period in enumerate(periods)}
    providers: dict[str, answers.ProviderTrend] = {}
    for row in rows:
        zeros = answers.ProviderTrend([0] * len(periods), [0] * len(periods), [Decimal(0)] * len(periods))
        trend = providers.setdefault(row["provider"] or NO_PROVIDER, zeros)
        index = position[row["month"]]
        trend.calls[index], trend.tokens[index] = int(row["calls"]), int(row["tokens"])
        trend.cost[index] = trimmed(row["cost"])
    months = range(len(periods))
    return answers.Trends(
        org_id=org_id,
        periods=periods,
        total_calls=[sum(trend.calls[month] for trend in providers.values()) for month in months],
        total_tokens=[sum(trend.tokens[month] for trend in providers.values()) for month in months],
        total_cost=[_sum(trend.cost[month] for trend in providers.values()) for month in months],
        provider_trends=providers,
    )


_CUT_ALL, _CUT_PROVIDER, _CUT_MODEL, _CUT_USER, _CUT_DAY, _CUT_EVENT_TYPE = (
    0b11111,
    0b01111,
    0b00111,
    0b11011,
    0b11101,
    0b11110,
)
"""Postgres' grouping(provider, model, user_id, day, event_type): a bit is set where the column is not grouped by."""


def summary(org_id: str, first: date, last: date, rows: Iterable[Row]) -> answers.Summary:
    """An organization's totals and their cuts, from rows of `summarize`."""
    cuts: dict[int, list[Row]] = {}
    for row in rows:
        cuts.setdefault(row["cut"], []).append(row)
    total = cuts[_CUT_ALL][0]
    by_model: dict[str, dict[str, answers.Sums]] = {}
    for row in cuts.get(_CUT_MODEL, ()):
        by_model.setdefault(row["provider"] or NO_PROVIDER, {})[row["model"] or NO_PROVIDER] = _sums(row)
    return answers.Summary(
        org_id=org_id,
        start_date=first,
        end_date=last,
        total_events=int(total["events"] or 0),
        total_debates=int(total["debates"] or 0),
        total_api_calls=int(total["api_calls"] or 0),
        total_tokens=int((total["tokens_in"] or 0) + (total["tokens_out"] or 0)),
        total_cost=trimmed(total["cost_usd"] or Decimal(0)),
        unpriced_events=int(total["unpriced_events"] or 0),
        by_provider={row["provider"] or NO_PROVIDER: _sums(row) for row in cuts.get(_CUT_PROVIDER, ())},
        by_model=by_model,
        by_user={row["user_id"] or NO_PROVIDER: _sums(row) for row in cuts.get(_CUT_USER, ())},
        by_day={row["day"].isoformat(): _sums(row) for row in cuts.get(_CUT_DAY, ())},
        by_event_type={row["event_type"]: _sums(row) for row in cuts.get(_CUT_EVENT_TYPE, ())},
    )


def _sums(row: Row) -> answers.Sums:
    sums: dict[str, Any] = {name: int(row[name]) for name in answers.Sums.__struct_fields__}
    return answers.Sums(**sums | {"seconds": trimmed(row["seconds"]), "cost_usd": trimmed(row["cost_usd"])})


def model_price(row: PriceRow) -> answers.ModelPrice:
    """One row of the price book, per token rather than per million of them."""
    rates = row.rates
    return answers.ModelPrice(
        provider=row.provider,
        model_name=row.model,
        cost_per_input_token=_per_token(rates.input_per_1m),
        cost_per_output_token=_per_token(rates.output_per_1m),
        cost_per_request=rates.per_request,
        cost_per_search=rates.per_search,
        cost_per_image=rates.per_image,
        cost_per_page=rates.per_page,
        effective_date=None if row.valid_from == ALWAYS else row.valid_from,
        source=row.source,
    )


def logged_event(row: Row) -> answers.LoggedEvent:
    """A row of the log as people see it."""
    values = dict(row)
    values["metadata"] = msgspec.Raw(row["metadata"].encode()) if row["metadata"] else None
    values["cost_usd"] = None if row["cost_usd"] is None else trimmed(row["cost_usd"])
    return answers.LoggedEvent(**values)


def cursor_after(row: Row) -> str:
    """Where the page after this row begins."""
    return base64.urlsafe_b64encode(f"{row['occurred_at'].isoformat()} {row['id']}".encode()).decode()


def read_cursor(cursor: str) -> tuple[datetime, str]:
    """What `cursor_after` wrote.

    Raises:
        ValueError: it did not write this.
    """
    moment, _, event_id = base64.urlsafe_b64decode(cursor.encode()).decode().partition(" ")
    occurred_at = datetime.fromisoformat(moment)
    if occurred_at.utcoffset() != timedelta(0) or not event_id or "\x00" in event_id:
        raise ValueError("not a cursor")
    return occurred_at.astimezone(UTC), event_id


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    total = Decimal(0)
    for amount in amounts:
        total = EXACT.add(total, amount)
    return trimmed(total)


def _per_token(per_1m: Decimal | None) -> Decimal | None:
    return None if per_1m is None else trimmed(per_1m.scaleb(-6))


def _rounded(value: Decimal) -> Decimal:
    # For people to look at, not for anybody to add up.
    return value.quantize(Decimal("0.01"))
