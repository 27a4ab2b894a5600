"""What billing says: what is owed."""

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field

from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events.values import UsdAmount
from aragora.contracts.plans import Limit, Plan

PlanId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
PlanVersion = Annotated[int, Field(ge=1)]
Currency = Annotated[str, Field(pattern=r"^[a-z]{3}$")]
SignedAmount = Annotated[Decimal, Field(allow_inf_nan=False)]
CollectedBy = Literal["stripe", "operator"]
"""`operator`: paid outside Stripe, and recorded by hand."""


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
        "chosen", "operator", "comp", "cancelled", "trial_ended", "comp_ended", "period_ended", "version_moved",
        "paid", "payment_ended", "unpaid",
    ]  # fmt: skip
    """`paid`: somebody pays for it now; `payment_ended`: nobody does any more; `unpaid`: a grace period ran out."""
    trial_ends_at: AwareDatetime | None = None
    comp_until: AwareDatetime | None = None
    """Free of charge until then, by an operator's decision; null with the reason `comp`: until further notice."""
    payment_reference: str | None = None
    """With the reason `paid`: Stripe's subscription, by which it is paid."""


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


class InvoiceFinalized(DomainEvent):
    """An invoice is as it stays: what it says is owed."""

    type_name: ClassVar[str] = "aragora.billing.InvoiceFinalized.v1"

    invoice_id: str
    number: str | None
    collected_by: CollectedBy
    total: SignedAmount
    """Before what was credited is taken off. Negative: a credit for the next one."""
    amount_due: UsdAmount
    currency: Currency
    finalized_at: AwareDatetime
    due_at: AwareDatetime | None = None
    """By when it is to be paid; null where it is charged at once."""


class InvoiceVoided(DomainEvent):
    """An invoice is withdrawn, or given up: nothing is owed for it any more."""

    type_name: ClassVar[str] = "aragora.billing.InvoiceVoided.v1"

    invoice_id: str
    status: Literal["void", "uncollectible"]


class PaymentSucceeded(DomainEvent):
    """An invoice is paid in full."""

    type_name: ClassVar[str] = "aragora.billing.PaymentSucceeded.v1"

    invoice_id: str
    amount: UsdAmount
    currency: Currency
    paid_at: AwareDatetime
    collected_by: CollectedBy


class PaymentFailed(DomainEvent):
    """A charge for an organization's plan did not go through; it keeps its plan until `grace_ends_at`."""

    type_name: ClassVar[str] = "aragora.billing.PaymentFailed.v1"

    invoice_id: str
    attempt: Annotated[int, Field(ge=1)]
    amount: UsdAmount
    currency: Currency
    failed_at: AwareDatetime
    """Of the first attempt: the grace period counts from there."""
    grace_ends_at: AwareDatetime


class PaymentActionRequired(DomainEvent):
    """The bank asks the payer to confirm a payment, on the invoice's page."""

    type_name: ClassVar[str] = "aragora.billing.PaymentActionRequired.v1"

    invoice_id: str
    amount: UsdAmount
    currency: Currency


class PaymentReminderDue(DomainEvent):
    """It is time to remind the organization that an invoice is not paid; once per day that the schedule names."""

    type_name: ClassVar[str] = "aragora.billing.PaymentReminderDue.v1"

    invoice_id: str
    day: Annotated[int, Field(ge=0)]
    """Whole days since the first failure."""
    is_last: bool
    due_at: AwareDatetime
    """When it was to be sent. Long ago if billing was away: then the next one may say all that is needed."""
    amount: UsdAmount
    currency: Currency
    grace_ends_at: AwareDatetime


class PaymentRecovered(DomainEvent):
    """The invoice that a grace period was for is paid: all is well again."""

    type_name: ClassVar[str] = "aragora.billing.PaymentRecovered.v1"

    invoice_id: str
    recovered_at: AwareDatetime


class PaymentWaived(DomainEvent):
    """A grace period ends because nothing is owed for the plan any more."""

    type_name: ClassVar[str] = "aragora.billing.PaymentWaived.v1"

    invoice_id: str
    reason: Literal["voided", "uncollectible", "cancelled"]


class GracePeriodExpired(DomainEvent):
    """Nobody paid in time: the default plan follows."""

    type_name: ClassVar[str] = "aragora.billing.GracePeriodExpired.v1"

    invoice_id: str
    expired_at: AwareDatetime


class PaymentRefunded(DomainEvent):
    """Money of a paid invoice went back; `refunded` is the whole of it so far."""

    type_name: ClassVar[str] = "aragora.billing.PaymentRefunded.v1"

    invoice_id: str
    refunded: UsdAmount
    currency: Currency


class PaymentDisputed(DomainEvent):
    """The payer's bank contests a payment; said again when that is decided."""

    type_name: ClassVar[str] = "aragora.billing.PaymentDisputed.v1"

    dispute_id: str
    status: Literal["open", "won", "lost"]
    amount: UsdAmount
    currency: Currency


class CreditGranted(DomainEvent):
    """Something is taken off the next invoices."""

    type_name: ClassVar[str] = "aragora.billing.CreditGranted.v1"

    entry_id: str
    amount: UsdAmount
    currency: Currency
    source: Literal["operator", "coupon"]


class BillingAttentionNeeded(DomainEvent):
    """Something about a payment that only an operator can settle; said once per thing.

    Its organization is `platform` where none is known.
    """

    type_name: ClassVar[str] = "aragora.billing.BillingAttentionNeeded.v1"

    kind: Literal[
        "unknown_price", "unknown_organization", "foreign_organization", "other_account", "other_mode",
        "second_subscription", "not_understood", "request_refused", "unpriced_usage", "dispute",
    ]  # fmt: skip
    reference: str
    """The id of what it is about."""
