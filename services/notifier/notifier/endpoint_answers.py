"""The shapes of the answers about endpoints and what was sent there. null is: nothing, or not yet."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

Settled = Literal["delivered", "failed", "skipped"]
DeliveryStatus = Literal["pending"] | Settled
"""`skipped`: the endpoint was disabled, or somebody said so. What is not pending can be redelivered."""
Format = Literal["standard", "slack"]


class Endpoint(Struct):
    """Where an organization wants to be told."""

    endpoint_id: str
    org_id: str
    url: str
    """What may be a secret in it is an ellipsis: a query, and the path of a Slack URL but for its end."""
    description: str
    event_types: list[str]
    """Empty: all."""
    format: Format
    status: Literal["enabled", "disabled"]
    disabled_because: Literal["chosen", "failing", "gone"] | None
    disabled_at: datetime | None
    failing_since: datetime | None
    failures: int
    """In a row."""
    next_attempt_at: datetime | None
    """null: nothing waits, or the endpoint is disabled."""
    waiting: int
    former_secret_until: datetime | None
    """Until then the secret before the last rotation signs too."""
    created_at: datetime
    created_by: str


class EndpointWithSecret(Endpoint):
    """With the secret that signs: it is shown this once."""

    secret: str


class Delivery(Struct):
    """A message to an endpoint."""

    delivery_id: UUID
    event_id: UUID
    message_id: str
    """The header `webhook-id`: the same at every try, and when it is redelivered."""
    type: str
    about_org_id: str
    status: DeliveryStatus
    attempts: int
    due_at: datetime
    created_at: datetime
    finished_at: datetime | None
    last_attempt_at: datetime | None
    last_status_code: int | None
    last_failure: str | None


class Attempt(Struct):
    """What was sent with a message, and what came back: a status and the answer's beginning, or why none did."""

    attempted_at: datetime
    milliseconds: int
    request_headers: dict[str, str]
    status_code: int | None
    answer: str | None
    failure: str | None


class DeliveryWithAttempts(Delivery):
    """The whole story of a message, the latest attempt first."""

    body: str
    """As it is sent, to the byte: the signature is over this text."""
    tries: list[Attempt]


class DeliveryPage(Struct):
    """The newest first."""

    deliveries: list[Delivery]
    next_cursor: str | None


class Redelivered(Struct):
    """How many are to be delivered again."""

    count: int


class Queued(Struct):
    """What will be sent."""

    delivery_id: UUID
    event_id: UUID
    message_id: str
