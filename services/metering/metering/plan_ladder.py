"""The plans that people may choose, as metering knows them: what to tell somebody who is at a limit."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from aragora.billing.rating import trimmed
from aragora.chassis import sql
from aragora.chassis.sql import Connection
from aragora.contracts.plans import Limit as PlanLimit
from metering.limit_answers import Upgrade
from metering.limits import Limit, Standing, resets_at
from metering.reservations import Plan

queries = sql.load("metering", "sql/reservations.sql")

FRESH_FOR = timedelta(seconds=10)
"""How old the ladder may be: a new plan is recommended this much later at the latest."""


class PlanLadder:
    """The current version of every listed plan, the smallest first, and the meters that the catalog declares."""

    def __init__(self) -> None:
        self.declared: frozenset[str] = frozenset()
        self._plans: Sequence[tuple[str, str, int, Decimal, dict[tuple[str, str], Decimal | None]]] = ()
        self._read_at: datetime | None = None

    async def refresh(self, connection: Connection, now: datetime) -> None:
        """Read the plans anew, unless that was a moment ago."""
        if self._read_at is not None and abs(now - self._read_at) < FRESH_FOR:
            return
        self._plans = [
            (row["plan"], row["name"], row["rank"], row["price_usd_per_month"], _amounts(row["limits"]))
            for row in await connection.fetch(queries.listed_plans)
        ]
        self.declared = frozenset(row["name"] for row in await connection.fetch(queries.declared_meters))
        self._read_at = now

    def upgrade(self, plan: Plan, limit: Limit) -> Upgrade | None:
        """The smallest plan above this one that allows more of the meter."""
        rank = next((rank for name, _, rank, _, _ in self._plans if name == plan.plan), -1)
        for name, title, above, price, amounts in self._plans:
            allows = amounts.get((limit.meter, limit.per))
            if above > rank and (allows is None or (limit.amount is not None and allows > limit.amount)):
                return Upgrade(
                    plan=name,
                    name=title,
                    limit=None if allows is None else trimmed(allows),
                    price_usd_per_month=trimmed(price),
                )
        return None

    def message(self, short: Standing, now: datetime) -> str:
        """Which limit is short, and when that ends, in a sentence."""
        demand = short.demand
        whose = "You have" if demand.limit.per == "user" else "Your organization has"
        held = f", and {trimmed(short.held):f} more are held for calls under way" if short.held else ""
        allowed = demand.limit.amount or Decimal(0)
        return (
            f"{whose} used {trimmed(short.used):f} of {trimmed(allowed):f} {demand.limit.meter} this month{held}. "
            f"The limit starts anew on {resets_at(now):%Y-%m-%d} (UTC)."
        )


def _amounts(limits: str) -> dict[tuple[str, str], Any]:
    parsed = [PlanLimit.model_validate(one) for one in msgspec.json.decode(limits)]
    return {(one.meter.name, one.per): one.limit for one in parsed}
