"""The plans that people may choose, as metering knows them: what to tell somebody who is at a limit."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from aragora.billing.rating import trimmed
from aragora.chassis import sql
from aragora.chassis.sql import Connection
from aragora.contracts.plans import Limit as PlanLimit
from metering.limit_answers import Upgrade, overage_price
from metering.limits import Limit, Standing, resets_at
from metering.reservations import Plan

queries = sql.load("metering", "sql/reservations.sql")

FRESH_FOR = timedelta(seconds=10)
"""How old the ladder may be: a new plan is recommended this much later at the latest."""


class PlanLadder:
    """The current version of every listed plan, the smallest first, and the meters that the catalog declares."""

    def __init__(self) -> None:
        self.declared: frozenset[str] = frozenset()
        self._plans: Sequence[tuple[str, str, int, Decimal, dict[tuple[str, str], PlanLimit]]] = ()
        self._read_at: datetime | None = None

    async def refresh(self, connection: Connection, now: datetime) -> None:
        """Read the plans anew, unless that was a moment ago."""
        if self._read_at is not None and abs(now - self._read_at) < FRESH_FOR:
            return
        self._plans = [
            (row["plan"], row["name"], row["rank"], row["price_usd_per_month"], _limits(row["limits"]))
            for row in await connection.fetch(queries.listed_plans)
        ]
        self.declared = frozenset(row["name"] for row in await connection.fetch(queries.declared_meters))
        self._read_at = now

    def upgrade(self, plan: Plan, limit: Limit) -> Upgrade | None:
        """The smallest plan above this one that allows more of the meter, or charges for more of it."""
        rank = next((rank for name, _, rank, _, _ in self._plans if name == plan.plan), -1)
        for name, title, above, price, limits in self._plans:
            found = limits.get((limit.meter, limit.per))
            allows, overage = (None, None) if found is None else (found.limit, found.overage)
            is_more = allows is None or overage is not None or (limit.amount is not None and allows > limit.amount)
            if above > rank and is_more:
                return Upgrade(
                    plan=name,
                    name=title,
                    limit=None if allows is None else trimmed(allows),
                    overage=overage_price(overage),
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


def _limits(limits: str) -> dict[tuple[str, str], PlanLimit]:
    parsed = [PlanLimit.model_validate(one) for one in msgspec.json.decode(limits)]
    return {(one.meter.name, one.per): one for one in parsed}
