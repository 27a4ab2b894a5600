"""The shapes of the answers about alerts and about who wants what how. null is: nothing was said, or not yet."""

from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from msgspec import Struct

from notifier.domain import Severity
from notifier.kinds import Audience, Email

_Data = TypeVar("_Data")


class Success(Struct, Generic[_Data]):
    """The documented envelope."""

    data: _Data
    success: bool = True


class Done(Struct):
    """It is done, and there is nothing to show."""

    message: str
    success: bool = True


class Fact(Struct):
    """A line of an alert's little table."""

    label: str
    value: str


class Attention(Struct):
    """What only an operator can settle."""

    id: UUID
    type: str
    severity: Severity
    title: str
    message: str
    threshold_percentage: int | None
    provider: str | None
    meter: str | None
    billing_period: str | None
    facts: list[Fact]
    """In the order in which to show them."""
    place: str
    """Where in the product one would go next."""
    position: int
    """The order of all alerts; the live stream goes on after one."""
    created_at: datetime
    org_id: str
    """`platform` for what is of a person rather than of an organization."""


class Alert(Attention):
    """What somebody is to know, and whether they have read it."""

    is_read: bool
    read_at: datetime | None


class AlertPage(Struct):
    """Alerts, the newest first. `total` counts those that the filters let through, `unread_count` all of them."""

    alerts: list[Alert]
    total: int
    unread_count: int
    next_cursor: str | None


class AttentionPage(Struct):
    """The newest first."""

    alerts: list[Attention]
    next_cursor: str | None


class MarkedRead(Struct):
    """An alert that is read."""

    id: UUID
    is_read: bool
    read_at: datetime
    unread_count: int


class AllMarkedRead(Struct):
    """How many were unread, and how many have come since."""

    marked: int
    unread_count: int


class Kind(Struct):
    """A kind of notification, and how one is told of it without having chosen anything."""

    type: str
    description: str
    audience: Audience
    email: Email
    in_app: bool
    essential: bool
    """Its e-mail cannot be chosen away."""
    choosable: bool
    """Whether there is a preference for it."""
    for_endpoints: bool
    """Whether webhook endpoints can ask for it."""


class Choice(Struct):
    """What was chosen; null: nothing was."""

    email: Email | None
    in_app: bool | None


class InForce(Struct):
    """What counts."""

    email: Email
    in_app: bool


class OrganizationPreference(Struct):
    """How an organization's people are told of a kind, unless they choose otherwise."""

    type: str
    description: str
    audience: Audience
    essential: bool
    choice: Choice
    in_force: InForce


class Preference(OrganizationPreference):
    """How a person is told of a kind: what they chose goes before what the organization did."""

    organization: Choice


class OrganizationPreferences(Struct):
    """Every kind that can be chosen."""

    org_id: str
    kinds: list[OrganizationPreference]


class Preferences(Struct):
    """Every kind that can be chosen."""

    org_id: str
    user_id: str
    kinds: list[Preference]


def fields_of(shape: type[Struct], row: Any, **more: Any) -> dict[str, Any]:
    """What a row says of a shape's fields. `more` says the others."""
    return {name: more[name] if name in more else row[name] for name in shape.__struct_fields__}
