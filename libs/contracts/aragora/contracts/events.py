"""Domain events: facts with rules, published by the service that decided them.

Each type and version has one canonical example in `examples/`, which must decode for
ever, and a JSON Schema in `schemas/`.
"""

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field

from aragora.contracts.envelope import DomainEvent
from aragora.contracts.plans import Limit, Plan

UsdAmount = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
Quantity = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
Month = Annotated[str, Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])$", description="A calendar month in UTC, YYYY-MM")]
Name = Annotated[str, Field(min_length=1, max_length=128)]
PlanId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
PlanVersion = Annotated[int, Field(ge=1)]

PLATFORM = "platform"
"""Stands for the organization in events that concern none, such as `PlanPublished`. It is nobody's id."""


# auth: who you are


class OrganizationCreated(DomainEvent):
    """An organization exists from now on. It gets the default plan."""

    type_name: ClassVar[str] = "aragora.auth.OrganizationCreated.v1"

    name: str
    slug: str
    owner_id: Name


class MemberJoined(DomainEvent):
    """A person belongs to the organization from now on. The owner does from its creation, without this event."""

    type_name: ClassVar[str] = "aragora.auth.MemberJoined.v1"

    user_id: Name
    role: Literal["owner", "admin", "member"]


class MemberRemoved(DomainEvent):
    """A person left the organization, or was made to."""

    type_name: ClassVar[str] = "aragora.auth.MemberRemoved.v1"

    user_id: Name


# metering: what was used


class LimitReached(DomainEvent):
    """A limit's threshold was crossed; raised once per limit, threshold and month.

    It is raised again in the same month only if the plan changed, the limit was no longer reached, and it is crossed
    once more.
    """

    type_name: ClassVar[str] = "aragora.metering.LimitReached.v1"

    meter: str
    """What is counted, such as `debates`, `calls:gemini`, `tokens:openai` or `cost_usd`."""
    threshold_percent: Literal[80, 90, 100]
    month: Month
    used: UsdAmount
    limit: UsdAmount
    resets_at: AwareDatetime
    user_id: str | None = None
    """Set when the limit is one person's rather than the organization's."""


class ReservationExpired(DomainEvent):
    """Nobody settled, extended or released a reservation in time: what it held is free again."""

    type_name: ClassVar[str] = "aragora.metering.ReservationExpired.v1"

    reservation_id: Name
    user_id: str | None
    reserved_at: AwareDatetime
    expired_at: AwareDatetime
    held: dict[str, Quantity]
    """What the organization's meters held for it, by meter."""


class UnpricedUsageSeen(DomainEvent):
    """Usage arrived that no price is known for; raised once per organization, month, provider and model.

    The usage is recorded with a null cost: it is neither charged nor lost until somebody gives it a price.
    """

    type_name: ClassVar[str] = "aragora.metering.UnpricedUsageSeen.v1"

    month: Month
    provider: str | None
    model: str | None
    reason: str
    first_event_id: str


# billing: what is owed


class PlanPublished(DomainEvent):
    """A version of a plan is on sale; its organization is `platform`. Whoever has an earlier version keeps it."""

    type_name: ClassVar[str] = "aragora.billing.PlanPublished.v1"

    plan: Plan
    source: Literal["catalog", "operator"]


class SubscriptionStarted(DomainEvent):
    """An organization has a plan from now on."""

    type_name: ClassVar[str] = "aragora.billing.SubscriptionStarted.v1"

    plan: PlanId
    plan_version: PlanVersion


class SubscriptionChanged(DomainEvent):
    """Another plan was chosen. It takes effect now, or at the end of the period that is paid for.

    In the latter case a second event, with the reason `period_ended`, says that it has.
    """

    type_name: ClassVar[str] = "aragora.billing.SubscriptionChanged.v1"

    from_plan: PlanId
    from_version: PlanVersion
    plan: PlanId
    plan_version: PlanVersion
    effective_at: AwareDatetime
    at_period_end: bool = False
    """Whether it is still to come: at `effective_at`."""
    reason: Literal[
        "chosen", "operator", "comp", "cancelled", "trial_ended", "comp_ended", "period_ended", "version_moved"
    ]
    trial_ends_at: AwareDatetime | None = None
    comp_until: AwareDatetime | None = None
    """Free of charge until then, by an operator's decision; null with the reason `comp`: until further notice."""


class SubscriptionCancelled(DomainEvent):
    """The plan ends: now, or at the end of the period that is paid for. The default plan follows."""

    type_name: ClassVar[str] = "aragora.billing.SubscriptionCancelled.v1"

    plan: PlanId
    plan_version: PlanVersion
    ends_at: AwareDatetime
    at_period_end: bool


class SubscriptionResumed(DomainEvent):
    """A cancellation, or a change at the end of the period, that had not yet taken effect was taken back."""

    type_name: ClassVar[str] = "aragora.billing.SubscriptionResumed.v1"

    plan: PlanId
    plan_version: PlanVersion


class EntitlementsChanged(DomainEvent):
    """What an organization may do from now on: the whole of it, so that the latest one says everything."""

    type_name: ClassVar[str] = "aragora.billing.EntitlementsChanged.v1"

    revision: Annotated[int, Field(ge=1)]
    """Grows with every change of the organization's entitlements. An event with a lower one comes late: ignore it."""
    plan: PlanId
    plan_version: PlanVersion
    plan_name: str
    features: dict[str, bool]
    seats: Annotated[int, Field(ge=0)] | None
    limits: tuple[Limit, ...]


class PaymentFailed(DomainEvent):
    """A charge for an organization's plan did not go through; it keeps its plan until `grace_ends_at`."""

    type_name: ClassVar[str] = "aragora.billing.PaymentFailed.v1"

    invoice_id: str
    attempt: Annotated[int, Field(ge=1)]
    amount: UsdAmount
    currency: Annotated[str, Field(pattern=r"^[a-z]{3}$")]
    failed_at: AwareDatetime
    grace_ends_at: AwareDatetime
