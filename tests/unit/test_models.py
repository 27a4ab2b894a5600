"""The documented example of the tiers, as it is written there."""

import dataclasses
from decimal import Decimal

import pytest

from aragora.billing.models import TIER_LIMITS, SubscriptionTier

DOCUMENTED = {
    SubscriptionTier.FREE: (10, 1, False, 0),
    SubscriptionTier.STARTER: (50, 2, False, 99),
    SubscriptionTier.PROFESSIONAL: (200, 10, True, 299),
    SubscriptionTier.ENTERPRISE: (None, None, True, 999),
}


def test_the_documented_example(capsys: pytest.CaptureFixture[str]):
    limits = TIER_LIMITS[SubscriptionTier.PROFESSIONAL]
    print(limits.debates_per_month)
    print(limits.api_access)
    print(limits.all_agents)
    assert capsys.readouterr().out == "200\nTrue\nTrue\n"


@pytest.mark.parametrize("tier", SubscriptionTier)
def test_every_tier_has_the_documented_numbers(tier: SubscriptionTier):
    limits = TIER_LIMITS[tier]
    debates, users, api_access, price = DOCUMENTED[tier]
    assert (limits.debates_per_month, limits.users_per_org, limits.api_access) == (debates, users, api_access)
    assert limits.price_usd_per_month == Decimal(price)


def test_a_tier_is_named_as_in_requests():
    assert SubscriptionTier("professional") is SubscriptionTier.PROFESSIONAL
    assert str(SubscriptionTier.FREE) == "free"
    assert list(TIER_LIMITS) == list(SubscriptionTier)


def test_nobody_changes_the_limits_by_mistake():
    with pytest.raises(TypeError):
        TIER_LIMITS[SubscriptionTier.FREE] = TIER_LIMITS[SubscriptionTier.ENTERPRISE]  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        TIER_LIMITS[SubscriptionTier.FREE].debates_per_month = None  # type: ignore[misc]
