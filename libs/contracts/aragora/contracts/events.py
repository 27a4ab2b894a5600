"""Domain events: facts with rules, published by the service that decided them.

Each type and version has one canonical example in `examples/`, which must decode for
ever, and a JSON Schema in `schemas/`.
"""

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field

from aragora.contracts.envelope import DomainEvent

UsdAmount = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
Month = Annotated[str, Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])$", description="A calendar month in UTC, YYYY-MM")]


class LimitReached(DomainEvent):
    """A limit's threshold was crossed; raised once per limit, threshold and month."""

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


class PaymentFailed(DomainEvent):
    """A charge for an organization's plan did not go through; it keeps its plan until `grace_ends_at`."""

    type_name: ClassVar[str] = "aragora.billing.PaymentFailed.v1"

    invoice_id: str
    attempt: Annotated[int, Field(ge=1)]
    amount: UsdAmount
    currency: Annotated[str, Field(pattern=r"^[a-z]{3}$")]
    failed_at: AwareDatetime
    grace_ends_at: AwareDatetime
