"""Users, organizations and subscription tiers, under their documented names.

    from aragora.billing.models import SubscriptionTier, TIER_LIMITS

    limits = TIER_LIMITS[SubscriptionTier.PROFESSIONAL]
    print(limits.debates_per_month)  # 200
    print(limits.api_access)  # True

The tiers are those of the default plan catalog. What an operator sells is what `GET /api/subscription/plans` answers.
"""

from aragora.billing.email_address import normalize_email
from aragora.billing.organization import Organization, generate_slug
from aragora.billing.tiers import TIER_LIMITS, SubscriptionTier, TierLimits
from aragora.billing.user import User

__all__ = [
    "TIER_LIMITS",
    "Organization",
    "SubscriptionTier",
    "TierLimits",
    "User",
    "generate_slug",
    "normalize_email",
]
