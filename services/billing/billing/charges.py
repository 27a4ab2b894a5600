"""What usage beyond a plan costs. Pure.

A month of usage is charged by the prices of one version of a plan. What the whole month costs is exact; what is charged
is that, rounded once, without what was charged for the month before. So late usage is charged too, and however often a
month is closed, the sum of its lines is the rounded cost of the whole month.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from aragora.billing.rating import EXACT
from aragora.contracts.plans import Plan
from billing.money import rounded
from billing.plans import Plans
from billing.stretches import Stretch, name_of_month

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Charge:
    """A line for what was used of one meter, with everything that explains it. Amounts in USD."""

    meter: str
    used: Decimal
    included: Decimal
    charged_quantity: Decimal
    """What went beyond, in the whole month."""
    price_usd: Decimal
    per: Decimal
    exact_usd: Decimal
    """What the whole month costs, not rounded."""
    charged_before_usd: Decimal
    amount_usd: Decimal
    """Of this line: the whole month, rounded, without what was charged before. Below 0 if the total has fallen."""


def charges_for(plan: Plan, totals: Mapping[str, Decimal], charged_before: Mapping[str, Decimal]) -> list[Charge]:
    """What is to be charged for a month with these totals, by meter; a meter with nothing (more) to charge has no line.

    Args:
        plan: the version by whose prices the month is charged.
        totals: of the whole month, by meter. What is absent was not used.
        charged_before: what was charged for this month so far, by meter.
    """
    found = []
    for limit in plan.limits:
        if limit.overage is None or limit.limit is None or limit.per != "organization":
            continue
        meter, overage = limit.meter.name, limit.overage
        used = totals.get(meter, ZERO)
        beyond = max(ZERO, EXACT.subtract(used, limit.limit))
        exact = EXACT.divide(EXACT.multiply(beyond, overage.price_usd), overage.per)
        before = charged_before.get(meter, ZERO)
        amount = rounded(exact) - before
        if amount:
            priced = (overage.price_usd, overage.per)
            found.append(Charge(meter, used, limit.limit, beyond, *priced, exact, before, amount))
    return found


def prices_cost(plan: Plan) -> bool:
    """Whether the plan charges for what usage costs: then usage without a price is missing in what is charged."""
    return any(limit.overage is not None and limit.meter.quantity == "cost_usd" for limit in plan.limits)


def charged_stretch(stretches: Sequence[Stretch], plans: Plans) -> Stretch | None:
    """By which stretch of a month its usage is charged: the last one whose plan prices what goes beyond it.

    So nobody makes the month's usage free by going to a smaller plan, or by cancelling, a day before the month's end.
    What follows something given free of charge is as free, though: nobody is charged for what was used there.
    """
    for stretch in reversed(stretches):
        if stretch.is_free or prices_overage(plans.version(stretch.sold.plan, stretch.sold.version)):
            return stretch
    return stretches[-1] if stretches else None


def prices_overage(plan: Plan) -> bool:
    """Whether the plan has a price for anything that goes beyond it."""
    return any(limit.overage is not None for limit in plan.limits)


def described(charge: Charge, plan_name: str, month: str) -> str:
    """A line's words, for whoever pays: what, when, how much of it, and at what price."""
    late = ", recorded later" if charge.charged_before_usd else ""
    return (
        f"{name_of_month(month)}{late}: {plain(charge.charged_quantity)} {words_of(charge.meter)} beyond the "
        f"{plain(charge.included)} that {plan_name} includes, at {price_in_words(charge.price_usd, charge.per)}"
    )


def price_in_words(price_usd: Decimal, per: Decimal) -> str:
    """`USD 0.50 each`, `USD 2.00 per 1,000,000`."""
    places = max(2, -int(price_usd.normalize().as_tuple().exponent))
    return f"USD {price_usd:,.{places}f} " + ("each" if per == 1 else f"per {plain(per)}")


def words_of(meter: str) -> str:
    """What people call what a meter counts."""
    kind, _, provider = meter.partition(":")
    counted = {"api_calls": "API calls", "cost_usd": "USD of usage"}.get(kind, kind.replace("_", " "))
    return f"{counted} ({provider})" if provider else counted


def plain(number: Decimal) -> str:
    """A number as people read it: 1,234.5, without zeros at its end."""
    text = f"{number:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
