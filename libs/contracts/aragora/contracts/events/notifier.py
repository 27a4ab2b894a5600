"""What the notifier says: who was told, and who could not be. Neither addresses nor words are in it."""

from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field

from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events.values import Name

Channel = Literal["email", "webhook"]


class NotificationDelivered(DomainEvent):
    """A message was taken by the mail server or the endpoint that it was for."""

    type_name: ClassVar[str] = "aragora.notifier.NotificationDelivered.v1"

    delivery_id: Name
    event_id: Name
    """Of what the message tells."""
    kind: Name
    channel: Channel
    user_id: str | None = None
    """To whom an e-mail went; null where that is known by address only, as with an invitation."""
    endpoint_id: str | None = None
    attempts: Annotated[int, Field(ge=1)]
    delivered_at: AwareDatetime


class NotificationFailed(DomainEvent):
    """A message could not be delivered, and is not tried any more."""

    type_name: ClassVar[str] = "aragora.notifier.NotificationFailed.v1"

    delivery_id: Name
    event_id: Name
    kind: Name
    channel: Channel
    user_id: str | None = None
    endpoint_id: str | None = None
    attempts: Annotated[int, Field(ge=0)]
    failed_at: AwareDatetime
    reason: Literal["not_configured", "bounced", "refused", "gave_up", "expired", "unreachable", "withdrawn"]
    """`unreachable`: there is no address; `withdrawn`: the endpoint or the letter is no more."""
    told_instead: Literal["webhook", "log"] | None = None
    """Where an e-mail's content went: the operator's webhook, or only the notifier's log."""
