"""Letters between services: an event says that one is to be sent; on `rpc.auth.message` the sender asks what it says.

So neither an address nor a secret is ever in an event.
"""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

READ_MESSAGE = "rpc.auth.message"
"""What is to be sent to whom? For whoever sends it, and nobody else."""

MessageKind = Literal["verify_email", "reset_password", "invitation"]


class ReadMessage(Struct, kw_only=True):
    """What does this letter say? Its id is in the event that asks for it to be sent."""

    message_id: Annotated[str, Meta(min_length=1, max_length=128)]


class Message(Struct, kw_only=True, frozen=True):
    """A letter that is still worth sending."""

    kind: MessageKind
    email: str
    token: str
    """The secret for its link. Good once, until `expires_at`."""
    org_name: str | None = None
    """Of an invitation: who invites."""
    expires_at: datetime

    def __repr__(self) -> str:
        return f"Message(kind={self.kind!r}, …)"


class MessageVerdict(Struct, kw_only=True, frozen=True):
    """The answer. Without a message: it is `unknown`, was used, has expired or was withdrawn; do not send it."""

    message: Message | None = None
    refused: Literal["unknown"] | None = None
