"""Aragora's subscription tiers: what each allows, and what it costs.

Made from the plan catalog, services/billing/billing/catalogs/aragora.toml, by `make api-docs`: change it there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType


class SubscriptionTier(StrEnum):
    """The tiers, the lowest first."""

    FREE = "free"
    STARTER = "starter"
    PROFESSIONAL = "professional"
    ENTERPRISE = "enterprise"


@dataclass(frozen=True, slots=True)
class TierLimits:
    """What a tier allows an organization in a calendar month (UTC), and its price. None: unlimited. 0: none."""

    debates_per_month: int | None
    users_per_org: int | None
    api_access: bool
    all_agents: bool
    price_usd_per_month: Decimal


TIER_LIMITS: Mapping[SubscriptionTier, TierLimits] = MappingProxyType(
    {
        SubscriptionTier.FREE: TierLimits(
            debates_per_month=10,
            users_per_org=1,
            api_access=False,
            all_agents=False,
            price_usd_per_month=Decimal(0),
        ),
        SubscriptionTier.STARTER: TierLimits(
            debates_per_month=50,
            users_per_org=2,
            api_access=False,
            all_agents=False,
            price_usd_per_month=Decimal(99),
        ),
        SubscriptionTier.PROFESSIONAL: TierLimits(
            debates_per_month=200,
            users_per_org=10,
            api_access=True,
            all_agents=True,
            price_usd_per_month=Decimal(299),
        ),
        SubscriptionTier.ENTERPRISE: TierLimits(
            debates_per_month=None,
            users_per_org=None,
            api_access=True,
            all_agents=True,
            price_usd_per_month=Decimal(999),
        ),
    }
)
"""What each tier allows."""
