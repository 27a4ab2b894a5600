"""The shapes of what people are told about their accounts and sessions."""

from datetime import datetime

from msgspec import Struct

from aragora.billing.jwt_auth import TokenPair


class Account(Struct):
    """A person's account."""

    user_id: str
    email: str
    name: str | None
    email_verified: bool
    second_factor: bool
    is_operator: bool
    created_at: datetime


class Membership(Struct):
    """An organization, and what the person is in it."""

    org_id: str
    name: str
    slug: str
    role: str


class Me(Struct):
    """Who is signed in, in which organization, and where else they belong."""

    user: Account
    organization: Membership | None
    organizations: list[Membership]


class Tokens(Struct):
    """What a program signs its requests with. `expires_in`: seconds until the access token does."""

    access_token: str
    refresh_token: str
    expires_in: int
    token_type: str = "bearer"  # noqa: S105


class SignedIn(Tokens, kw_only=True):
    """Tokens, and whose they are."""

    user: Account
    organization: Membership | None


class AccessToken(Struct):
    """An access token of the session that goes on."""

    access_token: str
    expires_in: int
    token_type: str = "bearer"  # noqa: S105


class Session(Struct):
    """Where somebody is signed in."""

    session_id: str
    org_id: str | None
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    address: str | None
    program: str | None
    current: bool


class SecondFactorSecret(Struct):
    """What to put into an authenticator: by hand, or as a QR code of the URL."""

    secret: str
    otpauth_url: str


class RecoveryCodes(Struct):
    """Each is good once, in place of a code. They are shown this once."""

    recovery_codes: list[str]


def tokens(pair: TokenPair) -> Tokens:
    """A pair of tokens as it is answered."""
    return Tokens(pair.access_token, pair.refresh_token, pair.expires_in)
