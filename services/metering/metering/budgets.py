"""Budgets: what an organization means to spend in a month, together or by one person. They refuse nothing, they tell.

What is spent is read from the projections, so there is no second count to keep right. `BudgetExceeded` is raised where
that changes, in the same transaction: with the usage (limit_fold.py), and with the budget. Both hold the organization's
row of the month, and are done one after the other: whichever is the later one sees both.
"""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

import asyncpg

from aragora.billing.rating import trimmed
from aragora.chassis import sql, store
from aragora.chassis.sql import Connection
from aragora.contracts.events import BudgetExceeded
from aragora.contracts.usage import MAX_AHEAD
from metering.projections import month_of

queries = sql.load("metering", "sql/budgets.sql")
log_queries = sql.load("metering")
entitlement_queries = sql.load("metering", "sql/entitlements.sql")

MAX_BUDGETS = 50
"""Of one organization: as many are compared with each chunk of its usage."""

Key = tuple[str, str, str]
"""An organization, one of its budgets, a month."""


class TooManyBudgets(Exception):
    """The organization has `MAX_BUDGETS` already: delete one, or change one."""


async def keep_budget(
    connection: Connection, org_id: str, budget_id: str, amount_usd: Decimal, user_id: str | None, now: datetime
) -> None:
    """Make a budget, or change it; if it is exceeded as it is now, say so. In the caller's transaction.

    A new amount, or a new person, holds from this month on: usage of earlier months that comes later had another one.

    Args:
        connection: whose transaction is to be rolled back on an error.
        org_id: whose budget.
        budget_id: which one.
        amount_usd: per calendar month (UTC); 0: none.
        user_id: whose spending, or None for everybody's.
        now: in UTC.

    Raises:
        TooManyBudgets: it would be one too many.
    """
    # Usage may be from a little later than now, and thus from a month that has not begun.
    months = sorted({month_of(now), month_of(now + MAX_AHEAD)})
    await connection.execute(log_queries.share_log)
    await connection.execute(entitlement_queries.hold_months, [org_id], months)
    await connection.execute(queries.forget_exceeded, org_id, budget_id, user_id or "")
    await connection.execute(queries.keep_budget, org_id, budget_id, user_id or "", amount_usd, months[0])
    if await connection.fetchval(queries.count_budgets, org_id) > MAX_BUDGETS:
        raise TooManyBudgets
    await raise_exceeded(connection, [(org_id, budget_id, month) for month in months], now)


async def compare_with_budgets(connection: Connection, now: datetime) -> None:
    """Raise `BudgetExceeded` for budgets that the chunk's usage has exceeded. In the recording transaction."""
    rows = await connection.fetch(queries.exceeded_by_chunk)
    await raise_exceeded(connection, [(row["org_id"], row["budget_id"], row["month"]) for row in rows], now)


async def raise_exceeded(connection: Connection, keys: Iterable[Key], now: datetime) -> None:
    """Raise `BudgetExceeded` for those of the budgets that are exceeded, unless that was said of month and amount.

    Whoever calls holds the organizations' rows of the months.
    """
    columns = list(zip(*keys, strict=True))
    if columns:
        rows = await connection.fetch(queries.note_exceeded, *columns)
        await store.append_each(connection, [_exceeded(row) for row in rows], occurred_at=now)


def _exceeded(row: asyncpg.Record) -> tuple[str, str, BudgetExceeded]:
    event = BudgetExceeded(
        budget_id=row["budget_id"],
        month=row["month"],
        spent_usd=trimmed(row["spent_usd"]),
        budget_usd=trimmed(row["amount_usd"]),
        user_id=row["user_id"] or None,
    )
    return row["org_id"], f"budget/{row['month']}/{row['budget_id']}", event
