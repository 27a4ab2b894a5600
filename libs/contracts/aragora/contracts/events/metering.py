"""What metering says: what was used."""

from datetime import date
from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field

from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events.values import Month, Name, Quantity, UsdAmount


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


class UsagePeriodClosed(DomainEvent):
    """What an organization used in a month, as far as it was recorded by `closed_at`: the ground for charging it.

    It is raised some days after the month's end, and once more, with the next `sequence` and the new totals, when usage
    of that month was recorded since. The difference to the one before is what came late.
    """

    type_name: ClassVar[str] = "aragora.metering.UsagePeriodClosed.v1"

    month: Month
    sequence: Annotated[int, Field(ge=1)]
    closed_at: AwareDatetime
    totals: dict[str, Quantity]
    """The whole month by meter: the built-in ones that were used, and the plan's. What is absent was not used."""
    events: Annotated[int, Field(ge=0)]
    """How many usage events are behind the totals."""
    unpriced_events: Annotated[int, Field(ge=0)]
    """How many of them have no cost, because no price is known for them."""
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of those events: ids, times and quantities. The same events have the same digest, whenever it is taken."""


class BudgetExceeded(DomainEvent):
    """An organization has spent more than it meant to; raised once per budget and month. Nothing is refused for it.

    It is raised again in the same month if the budget was given another amount, and that is exceeded too.
    """

    type_name: ClassVar[str] = "aragora.metering.BudgetExceeded.v1"

    budget_id: Name
    month: Month
    spent_usd: UsdAmount
    budget_usd: UsdAmount
    user_id: str | None = None
    """Set when the budget is one person's rather than the organization's."""


class UsageAnomalySeen(DomainEvent):
    """An organization's day is far from what its days are like; raised once per organization, day and meter."""

    type_name: ClassVar[str] = "aragora.metering.UsageAnomalySeen.v1"

    day: date
    """In UTC."""
    meter: Literal["cost_usd", "api_calls"]
    used: UsdAmount
    """On that day, as far as it was recorded then."""
    usual: UsdAmount
    """The median of the days before."""
    days: Annotated[int, Field(ge=1)]
    """How many days that median is of."""
