"""How many alerts somebody has not read: asked of the notifier on `rpc.notifier.unread_alerts`."""

from typing import Annotated

from msgspec import Meta, Struct

UNREAD_ALERTS = "rpc.notifier.unread_alerts"


class CountUnread(Struct, kw_only=True):
    """How many alerts of an organization has this member not read?"""

    org_id: Annotated[str, Meta(min_length=1, max_length=64)]
    user_id: Annotated[str, Meta(min_length=1, max_length=128)]


class Unread(Struct, kw_only=True, frozen=True):
    """The answer."""

    unread: Annotated[int, Meta(ge=0)]
