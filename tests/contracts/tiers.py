"""The SDK's tiers, written from the plan catalog: `aragora.billing.tiers`."""

from decimal import Decimal

from aragora.contracts.plans import Plan
from billing.catalog import Catalog
from billing.reading import documented_name

_HEAD = '''"""Aragora's subscription tiers: what each allows, and what it costs.

Made from the plan catalog, services/billing/billing/catalogs/aragora.toml, by `make api-docs`: change it there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType


class SubscriptionTier(StrEnum):
    """The tiers, the lowest first."""

{members}


@dataclass(frozen=True, slots=True)
class TierLimits:
    """What a tier allows an organization in a calendar month (UTC), and its price. None: unlimited. 0: none."""

{fields}


TIER_LIMITS: Mapping[SubscriptionTier, TierLimits] = MappingProxyType(
    {{
{tiers}
    }}
)
"""What each tier allows."""
'''


def tiers_module(catalog: Catalog) -> str:
    """The text of the module. A limit is a field of its documented name, a feature one of its own."""
    plans = [plan for plan in catalog.plans if plan.listed]
    meters = sorted({limit.meter.name for plan in plans for limit in plan.limits})
    features = list(dict.fromkeys(feature for plan in plans for feature in plan.features))
    types = {
        **{documented_name(meter) or meter: "int | None" for meter in meters},
        "users_per_org": "int | None",
        **dict.fromkeys(features, "bool"),
        "price_usd_per_month": "Decimal",
    }
    return _HEAD.format(
        members="\n".join(f'    {plan.plan.upper()} = "{plan.plan}"' for plan in plans),
        fields="\n".join(f"    {name}: {kind}" for name, kind in types.items()),
        tiers="\n".join(_tier(plan, meters, features) for plan in plans),
    )


def _tier(plan: Plan, meters: list[str], features: list[str]) -> str:
    limits = {limit.meter.name: limit.limit for limit in plan.limits if limit.per == "organization"}
    values = {
        **{documented_name(meter) or meter: _count(limits.get(meter)) for meter in meters},
        "users_per_org": repr(plan.seats),
        **{feature: repr(plan.features.get(feature, False)) for feature in features},
        "price_usd_per_month": _money(plan.price_usd_per_month),
    }
    fields = "".join(f"            {name}={value},\n" for name, value in values.items())
    return f"        SubscriptionTier.{plan.plan.upper()}: TierLimits(\n{fields}        ),"


def _count(limit: Decimal | None) -> str:
    return "None" if limit is None else str(int(limit))


def _money(price: Decimal) -> str:
    return f"Decimal({int(price)})" if price == int(price) else f'Decimal("{price}")'
