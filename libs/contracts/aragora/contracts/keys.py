"""Keys: what their scopes are, and how a service asks whose an API key is, on `rpc.auth.verify_key`, by its digest."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

KEY_SCOPES = ("usage.read", "usage.write")
"""What an API key may be allowed to do. Both within its own organization only."""

OPERATOR = "operator"
OPERATOR_SCOPES = frozenset({OPERATOR, *KEY_SCOPES})
"""What the platform's operators may do, people and programs alike: everything, in every organization."""


class VerifyKey(Struct, kw_only=True):
    """Whose key is this? The key itself never travels."""

    digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the key, in hex."""


class KeyHolder(Struct, kw_only=True, frozen=True):
    """Whose key it is, and what it may do there."""

    key_id: str
    user_id: str
    org_id: str
    scopes: tuple[str, ...]
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None


class KeyVerdict(Struct, kw_only=True, frozen=True):
    """The answer. Without a holder: `unknown` (also expired, revoked), or `plan`: the plan has no API access."""

    holder: KeyHolder | None = None
    refused: Literal["unknown", "plan"] | None = None
