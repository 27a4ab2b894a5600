"""What a token says, and the strict reading of it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Literal

from msgspec import DecodeError, Meta, Struct
from msgspec.json import Decoder

ISSUER = "aragora"
AUDIENCE = "aragora"
LEEWAY_SECONDS = 5
"""By so much the clock of whoever signed a token may be ahead of ours. An expiry is kept to the second."""

TokenType = Literal["access", "refresh"]
_Id = Annotated[str, Meta(min_length=1)]
_Moment = Annotated[float, Meta(gt=0, lt=253_402_300_800)]
"""A NumericDate of RFC 7519, before the year 10000, where the calendars of most languages end."""


@dataclass(frozen=True, slots=True)
class TokenPayload:
    """What a verified token says. `iat` and `exp` are seconds since 1970, `iat` with a fraction.

    `jti` names the token for revocation, and `session_id` the sign-in that it comes from, if it says. `operator`: for
    whoever runs the platform, apart from every organization.
    """

    user_id: str
    email: str = field(repr=False)  # personal: a payload that is logged shows ids only
    org_id: str | None
    role: str
    jti: str
    iat: float
    exp: float
    token_type: TokenType
    session_id: str | None = None
    operator: bool = False

    @property
    def is_expired(self) -> bool:
        return datetime.now(UTC).timestamp() >= self.exp


class _Claims(Struct):
    """The claims of a token with their types, kept strictly: `"exp": "9999999999"` and `"exp": true` are no moments."""

    iss: Literal["aragora"]
    aud: Literal["aragora"]
    sub: _Id
    jti: _Id
    iat: _Moment
    exp: _Moment
    type: TokenType
    email: str
    role: str
    nbf: _Moment = 1.0
    org_id: str | None = None
    sid: str | None = None
    operator: bool = False


_decoder = Decoder(_Claims)


def read_payload(claims: bytes, now: float) -> TokenPayload | None:
    """What the claims of a token with a good signature say, or None if one is missing or wrong (RFC 7519, section 4.1).

    `now` is in seconds since 1970.
    """
    try:
        told = _decoder.decode(claims)
    except (DecodeError, RecursionError):
        return None
    soon = now + LEEWAY_SECONDS
    if told.exp <= now or told.iat > soon or told.nbf > soon:
        return None
    return TokenPayload(
        user_id=told.sub,
        email=told.email,
        org_id=told.org_id,
        role=told.role,
        jti=told.jti,
        iat=told.iat,
        exp=told.exp,
        token_type=told.type,
        session_id=told.sid,
        operator=told.operator,
    )
