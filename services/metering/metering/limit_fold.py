"""What recorded usage does to limits: counts against them, says when a threshold is reached, settles reservations.

Part of the recording transaction (handlers.py), after the month's rows: they are what a plan change waits for, so that
no usage falls between the old limits and the new.
"""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Literal, TypeAlias

import asyncpg

from aragora.chassis import sql, store
from aragora.chassis.sql import Connection
from aragora.contracts.events import LimitReached
from metering.budgets import compare_with_budgets
from metering.limits import resets_at

queries = sql.load("metering", "sql/limit_sums.sql")

Threshold: TypeAlias = Literal[80, 90, 100]
THRESHOLDS_PERCENT: tuple[Threshold, ...] = (80, 90, 100)
_KEY = ("org_id", "month", "user_id", "meter")
_FOLDS = {
    ("sum", "organization"): queries.fold_limit_sums,
    ("count", "organization"): queries.fold_limit_sums,
    ("sum", "user"): queries.fold_limit_user_sums,
    ("count", "user"): queries.fold_limit_user_sums,
    ("max", "organization"): queries.fold_limit_peaks,
    ("max", "user"): queries.fold_limit_peaks,
    ("unique_users", "organization"): queries.fold_limit_users,
}
"""Which statement folds a limit, by its meter's aggregation and by whom it is for."""
_BUDGET = ("budget", "")
"""Stands among them for a budget, of which nothing is folded."""


def counted_from(now: datetime) -> date:
    """The first day whose usage is counted against limits: that of the month before the current one."""
    return (now.date().replace(day=1) - timedelta(days=1)).replace(day=1)


async def count_against_limits(connection: Connection, now: datetime) -> None:
    """Add the chunk's usage to what is used of limits, and raise `LimitReached` for thresholds that it reached.

    Raise `BudgetExceeded` too, where there are budgets (budgets.py).
    """
    await connection.execute(queries.count_from, counted_from(now).isoformat())
    kinds = sorted((row["aggregation"], row["per"]) for row in await connection.fetch(queries.limit_kinds))
    for fold in dict.fromkeys(_FOLDS[kind] for kind in kinds if kind in _FOLDS):
        await raise_reached(connection, await connection.fetch(fold), now)
    if _BUDGET in kinds:
        await compare_with_budgets(connection, now)


async def raise_reached(connection: Connection, rows: Sequence[asyncpg.Record], now: datetime) -> None:
    """Raise `LimitReached` for each threshold between the one last raised and the one reached now, and note it.

    `rows`: organization, month, user, meter, what is used, the limit's amount, the last threshold. Whoever calls holds
    the rows of `limit_usage`.
    """
    if not rows:
        return
    reached = [(row, _thresholds(row)) for row in rows]
    await connection.execute(
        queries.note_reached,
        *zip(
            *(
                (row["org_id"], row["month"], row["user_id"], row["meter"], thresholds[-1])
                for row, thresholds in reached
            ),
            strict=True,
        ),
    )
    await store.append_each(
        connection,
        [
            (row["org_id"], f"limit/{row['month']}/{row['meter']}/{row['user_id']}", _event(row, threshold))
            for row, thresholds in reached
            for threshold in thresholds
        ],
        occurred_at=now,
    )


def _thresholds(row: asyncpg.Record) -> list[Threshold]:
    used, amount, before = row["used"], row["amount"], row["reached_percent"]
    return [percent for percent in THRESHOLDS_PERCENT if percent > before and used * 100 >= amount * percent]


def _event(row: asyncpg.Record, threshold: Threshold) -> LimitReached:
    return LimitReached(
        meter=row["meter"],
        threshold_percent=threshold,
        month=row["month"],
        used=row["used"],
        limit=row["amount"],
        resets_at=resets_at(datetime.fromisoformat(f"{row['month']}-01T00:00:00+00:00")),
        user_id=row["user_id"] or None,
    )


async def settle_reservations(connection: Connection, reservation_ids: Iterable[object], now: datetime) -> int:
    """Give back what the reservations held that the chunk's usage names; how many. Those that have ended stay so."""
    if not any(reservation_ids):
        return 0
    await connection.execute(queries.hold_gates_of_settled)
    settled: int = await connection.fetchval(queries.settle, now)
    return settled
