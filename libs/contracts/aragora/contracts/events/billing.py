"""What billing says: what is owed."""

from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field

from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events.values import UsdAmount
from aragora.contracts.plans import Limit, Plan

PlanId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
PlanVersion = Annotated[int, Field(ge=1)]


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
