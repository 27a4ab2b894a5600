"""Closing months: what an organization used in a month is said once it is over, and once more when usage came late.

Some days after a month's end it *begins to close*: every organization with usage in it is listed in `periods_to_close`,
and from that moment on whoever records usage of that month, or an earlier one, notes it there too (sql/fold.sql). What
is listed is closed in batches. One transaction sees one moment of the log: totals, number and digest are of the same
events, whatever is being recorded meanwhile, and the event is appended in it. What was noted anew since stays listed.

So a crash repeats at most a batch of which nothing was said, and nothing is said of what did not change.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import msgspec
import structlog

from aragora.billing.rating import trimmed
from aragora.chassis import sql, store
from aragora.chassis.sql import Connection, Pool
from aragora.contracts.events import UsagePeriodClosed
from aragora.contracts.plans import METER_NAME, built_in_meter, names_of_provider
from metering.limit_fold import queries as limit_sums
from metering.log_months import next_month
from metering.projections import month_of

queries = sql.load("metering", "sql/periods.sql")
log_queries = sql.load("metering")
fold = sql.load("metering", "sql/fold.sql")

log = structlog.get_logger()

ADJUSTMENT_INTERVAL = timedelta(hours=1)
"""At most one event per organization and month in so long a time: late usage comes in crowds."""
PERIODS_AT_ONCE = 200
"""Organizations' months per transaction: what is in memory and lost by a crash is bounded by it."""
SESSION_SETTINGS = {
    "application_name": "metering-periods",
    # As for the worker: the log is looked into by its index, whatever the planner believes of the temporary tables.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "work_mem": "64MB",
}
_BUILT_IN = ("debates", "api_calls", "tokens", "images", "searches", "cost_usd")
_BY_PROVIDER = ("calls", "tokens")

Key = tuple[str, str]
"""An organization and a month."""


@dataclass(slots=True)
class Said:
    """What is said of an organization's month: as it was last, or as it is now."""

    totals: dict[str, Decimal] = field(default_factory=dict)
    events: int = 0
    unpriced_events: int = 0
    digest: str = ""


async def prepare_closing_session(connection: Connection) -> None:
    """Bind the fold to the months that are closed, and the sums of limits to all that may be charged."""
    for statement in (
        queries.make_periods_in_hand,
        queries.make_meters_in_hand,
        queries.bind_usage_to_fold,
        log_queries.make_days_to_fold,
        fold.daily_sums,
        queries.bind_limits_to_count,
        limit_sums.limit_sums,
        limit_sums.limit_peaks,
        limit_sums.limit_sightings,
    ):
        await connection.execute(statement)


async def close_due(pool: Pool, now: datetime, close_days: int, stop: asyncio.Event | None = None) -> int:
    """Close every month that is due, and close anew those with late usage. Any number of workers may do so at once.

    Args:
        pool: connections made with `SESSION_SETTINGS` and `prepare_closing_session`.
        now: in UTC.
        close_days: after its end a month stays open for so many days.
        stop: once it is set, no further batch is begun.

    Returns:
        How many `UsagePeriodClosed` were raised.

    Raises:
        asyncpg.PostgresError, OSError, VersionConflict: the last batch was not closed; do it again.
    """
    raised = 0
    async with pool.acquire() as connection:
        if not await connection.fetchval(queries.hold_closing):
            return 0
        try:
            await _begin_due_month(connection, latest_due(now, close_days), now)
            after: Key | None = ("", "")
            while after is not None and not (stop and stop.is_set()):
                after, count = await _close_batch(connection, after, now)
                raised += count
        finally:
            if not connection.is_closed():
                await connection.execute(queries.release_closing)
    if raised:
        log.info("usage_periods_closed", periods=raised)
    return raised


def latest_due(now: datetime, close_days: int) -> str:
    """The latest month that ended `close_days` ago or earlier."""
    return month_of((now - timedelta(days=close_days)).replace(day=1) - timedelta(days=1))


async def overdue_seconds(connection: Connection, now: datetime, close_days: int) -> int:
    """How long ago a month should have begun to close that has not; 0: none."""
    latest = await connection.fetchrow(queries.latest_closing_month)
    if latest is None:
        awaited = date.fromisoformat(f"{latest_due(now, close_days)}-01")
    else:
        awaited = date.fromisoformat(f"{latest['month']}-01")
        if latest["listed_at"] is not None:
            awaited = next_month(awaited)
    due_at = datetime.combine(next_month(awaited), time(tzinfo=UTC)) + timedelta(days=close_days)
    return max(0, int((now - due_at).total_seconds()))


async def _begin_due_month(connection: Connection, month: str, now: datetime) -> None:
    latest = await connection.fetchrow(queries.latest_closing_month)
    if latest is None or latest["month"] < month:
        async with connection.transaction():
            await connection.execute(log_queries.hold_log)
            await connection.execute(queries.begin_closing, month, now)
    elif latest["listed_at"] is not None:
        return
    else:
        month = latest["month"]
    # In a transaction after that one: it sees all that was recorded before the month began to close.
    async with connection.transaction():
        await connection.execute(queries.list_periods, month)
        await connection.execute(queries.end_listing, month, now)


async def _close_batch(connection: Connection, after: Key, now: datetime) -> tuple[Key | None, int]:
    """Close the periods after this one; the last of them, None if there are no more, and how many were closed."""
    async with connection.transaction(isolation="repeatable_read"):
        due = await connection.fetch(queries.due_periods, *after, now - ADJUSTMENT_INTERVAL, PERIODS_AT_ONCE)
        if not due:
            return None, 0
        found = await _said_now(connection, [(row["org_id"], row["month"]) for row in due])
        news = [
            (row["org_id"], row["month"], (row["sequence"] or 0) + 1, said)
            for row in due
            if (said := found.get((row["org_id"], row["month"]))) is not None and said != _said_before(row)
        ]
        await _say(connection, news, now)
    noted = [(row["org_id"], row["month"], row["noted"]) for row in due]
    await connection.execute(queries.forget_noted, *zip(*noted, strict=True))
    return (noted[-1][:2] if len(due) == PERIODS_AT_ONCE else None), len(news)


async def _said_now(connection: Connection, periods: Sequence[Key]) -> dict[Key, Said]:
    """What is to be said of these, as this transaction sees the log. One without usage is absent."""
    await connection.execute(queries.take_in_hand, *zip(*periods, strict=True))
    await connection.execute(limit_sums.count_from, f"{min(month for _, month in periods)}-01")
    await connection.execute(fold.sum_days)
    await _take_meters(connection, {org_id for org_id, _ in periods})
    found: dict[Key, Said] = {}
    for row in await connection.fetch(queries.period_digests):
        said = Said(events=row["events"], unpriced_events=row["unpriced_events"], digest=row["digest"])
        found[row["org_id"], row["month"]] = said
    totals = await connection.fetch(queries.period_totals)
    if await connection.fetchval(queries.has_peaks):
        totals += await connection.fetch(queries.period_peaks)
    for row in totals:
        found[row["org_id"], row["month"]].totals[row["meter"]] = trimmed(Decimal(row["used"]))
    return found


async def _take_meters(connection: Connection, org_ids: set[str]) -> None:
    await connection.execute(queries.take_plan_meters)
    await connection.execute(queries.take_catalog_meters)
    used = [(row["org_id"], row["provider"]) for row in await connection.fetch(queries.providers_in_hand)]
    wanted = {(org_id, name) for org_id in org_ids for name in _BUILT_IN}
    # Of a provider that goes by several names, the meter has the first of them.
    named = {(org_id, names_of_provider(provider)[0]) for org_id, provider in used}
    wanted |= {(org_id, f"{kind}:{provider}") for org_id, provider in named for kind in _BY_PROVIDER}
    meters = [(org_id, built_in_meter(name)) for org_id, name in sorted(wanted) if METER_NAME.match(name)]
    rows = [(org, one.name, one.quantity, ",".join(one.providers) if one.providers else None) for org, one in meters]
    await connection.execute(queries.take_built_in_meters, *zip(*rows, strict=True))


def _said_before(row: asyncpg.Record) -> Said | None:
    if row["sequence"] is None:
        return None
    return Said(read_totals(row["totals"]), row["events"], row["unpriced_events"], row["digest"])


def read_totals(text: str) -> dict[str, Decimal]:
    """The totals of a closed period as they are stored."""
    return msgspec.json.decode(text, type=dict[str, Decimal])


async def _say(connection: Connection, news: Sequence[tuple[str, str, int, Said]], now: datetime) -> None:
    if not news:
        return
    rows: list[tuple[Any, ...]] = [
        (org_id, month, sequence, _written(said.totals), said.events, said.unpriced_events, said.digest)
        for org_id, month, sequence, said in news
    ]
    await connection.execute(queries.keep_closed, now, *zip(*rows, strict=True))
    events = [(org_id, f"period/{month}", _event(month, sequence, said, now)) for org_id, month, sequence, said in news]
    await store.append_each(connection, events, occurred_at=now)


def _event(month: str, sequence: int, said: Said, now: datetime) -> UsagePeriodClosed:
    return UsagePeriodClosed(
        month=month,
        sequence=sequence,
        closed_at=now,
        totals=dict(sorted(said.totals.items())),
        events=said.events,
        unpriced_events=said.unpriced_events,
        digest=said.digest,
    )


def _written(totals: dict[str, Decimal]) -> str:
    return msgspec.json.encode({meter: f"{total:f}" for meter, total in totals.items()}).decode()
