"""From events and states to rows, and from rows to plans. Pure."""

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from aragora.contracts.events import PlanPublished
from aragora.contracts.plans import Plan
from billing.plans import Plans
from billing.subscription import Subscription

if TYPE_CHECKING:
    import asyncpg

Row: TypeAlias = "asyncpg.Record"
Status = Literal["active", "trialing", "comped", "canceling"]

_PLAN_COLUMNS = (
    "plan", "version", "name", "rank", "price_usd_per_month", "seats", "trial_days", "listed", "is_default",
)  # fmt: skip


def plan_row(event: PlanPublished, published_at: datetime) -> tuple[Any, ...]:
    """The arguments of `save_plan`."""
    plan = event.plan
    limits = [limit.model_dump(mode="json") for limit in plan.limits]
    return (
        plan.plan, plan.version, plan.name, plan.rank, plan.price_usd_per_month, plan.seats,
        msgspec.json.encode(plan.features).decode(), msgspec.json.encode(limits).decode(),
        plan.trial_days, plan.listed, plan.is_default, event.source, published_at,
    )  # fmt: skip


def plan_of(row: Row) -> Plan:
    """The plan in a row of `all_plans`."""
    columns = {name: row[name] for name in _PLAN_COLUMNS}
    nested = {name: msgspec.json.decode(row[name]) for name in ("features", "limits")}
    return Plan.model_validate(columns | nested)


def plans_of(rows: Iterable[Row]) -> Plans:
    """All plans, from the rows of `all_plans`."""
    return Plans(plan_of(row) for row in rows)


def status_of(state: Subscription) -> Status:
    """What people are told. A pending change to another plan leaves it as it is."""
    if state.pending is not None and state.pending.sold is None:
        return "canceling"
    if state.trial_ends_at is not None:
        return "trialing"
    return "comped" if state.comped else "active"


def subscription_row(org_id: str, state: Subscription) -> tuple[Any, ...]:
    """The arguments of `save_subscription`."""
    sold, pending = state.sold, state.pending
    if sold is None:
        raise ValueError(f"{org_id} has no subscription to save")
    then = pending.sold if pending else None
    return (
        org_id, sold.plan, sold.version, status_of(state), state.trial_ends_at, state.comp_until,
        then.plan if then else None, then.version if then else None, pending.at if pending else None,
        state.due_at, state.revision, state.paid_by,
    )  # fmt: skip
