"""The subscription tiers of Aragora, under their documented names.

    from aragora.billing.models import SubscriptionTier, TIER_LIMITS

    limits = TIER_LIMITS[SubscriptionTier.PROFESSIONAL]
    print(limits.debates_per_month)  # 200
    print(limits.api_access)  # True

They are those of the default plan catalog. What an operator sells is what `GET /api/subscription/plans` answers.
"""

from aragora.billing.tiers import TIER_LIMITS, SubscriptionTier, TierLimits

__all__ = ["TIER_LIMITS", "SubscriptionTier", "TierLimits"]
