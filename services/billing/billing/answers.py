"""The shapes of the answers. Prices and limits are exact decimals, as JSON numbers. null is unlimited, 0 is none."""

from datetime import datetime
from decimal import Decimal
from typing import Generic, Literal, TypeVar

from msgspec import Struct

from billing.projections import Status

_Data = TypeVar("_Data")

Limits = dict[str, Decimal | None]
"""By meter; those that have another name in the guides stand under that one too: `gemini_calls` is `calls:gemini`."""


class Success(Struct, Generic[_Data]):
    """The documented envelope."""

    data: _Data
    success: bool = True


class Overage(Struct):
    """What usage beyond a limit costs: `price_usd` for each `per`, and a part of that for a part."""

    price_usd: Decimal
    per: Decimal


class Plan(Struct):
    """A plan that may be chosen. `id` and `tier` are the same: what to name it by."""

    id: str
    tier: str
    name: str
    version: int
    price_monthly: Decimal
    currency: str
    seats: int | None
    trial_days: int
    is_default: bool
    features: dict[str, bool]
    limits: Limits
    limits_per_user: Limits
    """What every person has of their own, within the limits of the organization."""
    overage: dict[str, Overage]
    """By meter. Where there is one the limit is what is included: nobody is refused there, and what follows is charged.
    """


class PlanVersion(Plan):
    """A version of a plan, whoever may choose it."""

    listed: bool
    source: Literal["catalog", "operator"]
    published_at: datetime


class Pending(Struct):
    """What follows by itself at `at`. `plan` null: the plan was cancelled, and the default plan follows."""

    at: datetime
    plan: str | None
    version: int | None


class Subscription(Struct):
    """What an organization has, and for how long."""

    org_id: str
    plan: str
    tier: str
    plan_name: str
    version: int
    current_version: int
    """The version that is sold now; the organization keeps its own until it is moved."""
    status: Status
    billing_cycle: str
    current_period_start: datetime
    current_period_end: datetime
    trial_ends_at: datetime | None
    comp_until: datetime | None
    cancel_at_period_end: bool
    pending: Pending | None
    price_monthly: Decimal
    currency: str
    seats: int | None
    features: dict[str, bool]
    limits: Limits
    limits_per_user: Limits
