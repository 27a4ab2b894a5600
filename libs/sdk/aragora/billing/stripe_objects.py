"""What the SDK shows of Stripe's objects, and how it is read from them (API version 2026-10-28)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aragora.billing.tiers import SubscriptionTier


@dataclass(frozen=True, slots=True)
class CheckoutSession:
    """A page of Stripe's on which a customer subscribes. Send the person to `url`; it can be used for 24 hours."""

    id: str
    url: str


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription as Stripe has it at this moment.

    `status` is Stripe's word: `active`, `past_due`, `canceled`, … The period is the one that has been invoiced.
    `price_id` is the price of the plan, and `tier` the one whose `STRIPE_PRICE_…` that is: None if it is nobody's.
    `item_id` is the item of the plan: None if there are several and it is not clear which one it is.
    """

    id: str
    status: str
    current_period_start: datetime
    current_period_end: datetime
    cancel_at_period_end: bool
    price_id: str
    tier: SubscriptionTier | None
    customer_id: str
    item_id: str | None
    metadata: dict[str, str] = field(repr=False)


def read_subscription(subscription: Mapping[str, Any], tiers: Mapping[str, SubscriptionTier]) -> Subscription:
    """The parts of Stripe's subscription object that the SDK shows.

    Args:
        subscription: the object in plain JSON values.
        tiers: the tier of each price id that is one's.

    Raises:
        LookupError, TypeError: this is no subscription of the API version that the SDK speaks.
    """
    items: list[Mapping[str, Any]] = subscription["items"]["data"]
    plans = [item for item in items if item["price"]["id"] in tiers] or items
    plan = plans[0]
    price_id = plan["price"]["id"]
    return Subscription(
        id=subscription["id"],
        status=subscription["status"],
        # A period belongs to the item since API version 2025-03-31: a subscription may hold items of several intervals.
        current_period_start=datetime.fromtimestamp(plan["current_period_start"], UTC),
        current_period_end=datetime.fromtimestamp(plan["current_period_end"], UTC),
        cancel_at_period_end=subscription["cancel_at_period_end"],
        price_id=price_id,
        tier=tiers.get(price_id),
        customer_id=subscription["customer"],
        item_id=plan["id"] if len(plans) == 1 else None,
        metadata=dict(subscription["metadata"]),
    )
