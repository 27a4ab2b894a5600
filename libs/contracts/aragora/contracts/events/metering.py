"""What metering says: what was used."""

from typing import ClassVar, Literal

from pydantic import AwareDatetime

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
