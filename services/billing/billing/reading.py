"""From plans and rows to answers. Pure."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

from aragora.contracts.plans import Limit, Plan
from billing import answers
from billing.plans import Plans
from billing.projections import Row, plan_of
from billing.subscription import period_of

CURRENCY = "USD"
_DOCUMENTED = {"cost_usd": "monthly_cost", "debates": "debates_per_month"}


def documented_name(meter: str) -> str | None:
    """What the guides call the limit on a meter, if they do: `gemini_calls` for `calls:gemini`."""
    kind, _, provider = meter.partition(":")
    return f"{provider}_{kind}" if provider and kind in ("calls", "tokens") else _DOCUMENTED.get(meter)


def limits_of(limits: Iterable[Limit], per: Literal["organization", "user"]) -> answers.Limits:
    """The limits of an organization or of each person, by meter and by documented name."""
    found: answers.Limits = {}
    for limit in limits:
        if limit.per == per:
            for name in (limit.meter.name, documented_name(limit.meter.name)):
                if name is not None:
                    found[name] = limit.limit
    return found


def plan_answer(plan: Plan) -> answers.Plan:
    """A plan as people see it."""
    return answers.Plan(**_shown(plan))


def plan_version(row: Row) -> answers.PlanVersion:
    """A version of a plan, from a row of `all_plans`."""
    return answers.PlanVersion(
        **_shown(plan_of(row)), listed=row["listed"], source=row["source"], published_at=row["published_at"]
    )


def subscription(row: Row, plans: Plans, now: datetime) -> answers.Subscription:
    """An organization's subscription, from a row of `subscription_of`."""
    plan = plans.version(row["plan"], row["plan_version"])
    start, end = period_of(now)
    pending = None
    if row["pending_at"] is not None:
        pending = answers.Pending(row["pending_at"], row["pending_plan"], row["pending_version"])
    return answers.Subscription(
        org_id=row["org_id"],
        plan=plan.plan,
        plan_name=plan.name,
        current_version=plans.current(plan.plan).version,
        status=row["status"],
        billing_cycle="monthly",
        current_period_start=start,
        current_period_end=end,
        trial_ends_at=row["trial_ends_at"],
        comp_until=row["comp_until"],
        cancel_at_period_end=pending is not None and pending.plan is None,
        pending=pending,
        **{name: value for name, value in _shown(plan).items() if name in answers.Subscription.__struct_fields__},
    )


def _shown(plan: Plan) -> dict[str, Any]:
    return {
        "id": plan.plan,
        "tier": plan.plan,
        "name": plan.name,
        "version": plan.version,
        "price_monthly": plan.price_usd_per_month,
        "currency": CURRENCY,
        "seats": plan.seats,
        "trial_days": plan.trial_days,
        "is_default": plan.is_default,
        "features": plan.features,
        "limits": limits_of(plan.limits, "organization"),
        "limits_per_user": limits_of(plan.limits, "user"),
        "overage": {
            one.meter.name: answers.Overage(one.overage.price_usd, one.overage.per)
            for one in plan.limits
            if one.overage
        },
    }
