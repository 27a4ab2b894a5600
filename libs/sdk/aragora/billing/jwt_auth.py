"""Access and refresh tokens: JSON Web Tokens signed with HMAC-SHA256, verified locally by every service.

The secret and the lifetimes come from the environment: `ARAGORA_JWT_SECRET` (required, at least 32 bytes),
`ARAGORA_JWT_EXPIRY_HOURS` (24) and `ARAGORA_REFRESH_TOKEN_EXPIRY_DAYS` (30).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import jwt

from aragora.contracts.ids import new_id

ISSUER = "aragora"
AUDIENCE = "aragora"
ALGORITHM = "HS256"  # pinned: the token's own header is never asked which algorithm to use
MIN_SECRET_BYTES = 32  # RFC 7518, section 3.2: a key as long as the hash at least

TokenType = Literal["access", "refresh"]


class JWTConfigError(RuntimeError):
    """The environment does not allow tokens to be signed or verified. The message names the variable to set."""


@dataclass(frozen=True, slots=True)
class JWTConfig:
    """What signs and limits tokens."""

    secret: str
    access_lifetime: timedelta
    refresh_lifetime: timedelta

    @classmethod
    def from_environment(cls) -> "JWTConfig":
        """Reads the environment. A service calls this once at its start, so that a mistake shows there.

        Raises:
            JWTConfigError: a variable is missing, too short or not a positive number.
        """
        secret = os.environ.get("ARAGORA_JWT_SECRET", "")
        if len(secret.encode()) < MIN_SECRET_BYTES:
            problem = "is not set" if not secret else f"is shorter than {MIN_SECRET_BYTES} bytes"
            raise JWTConfigError(
                f"ARAGORA_JWT_SECRET {problem}; set it to the same random value for every service, "
                "such as the output of: openssl rand -hex 32"
            )
        return cls(
            secret,
            timedelta(hours=_positive("ARAGORA_JWT_EXPIRY_HOURS", 24)),
            timedelta(days=_positive("ARAGORA_REFRESH_TOKEN_EXPIRY_DAYS", 30)),
        )


@dataclass(frozen=True, slots=True)
class TokenPayload:
    """What a verified token says. `iat` and `exp` are seconds since 1970; `jti` names the token for revocation."""

    user_id: str
    email: str
    org_id: str | None
    role: str
    jti: str
    iat: int
    exp: int
    token_type: TokenType

    @property
    def is_expired(self) -> bool:
        return datetime.now(UTC).timestamp() >= self.exp


@dataclass(frozen=True, slots=True)
class TokenPair:
    """`expires_in` is the access token's lifetime in seconds."""

    access_token: str
    refresh_token: str
    expires_in: int
    token_type: str = "bearer"  # noqa: S105


RevocationCheck = Callable[[TokenPayload], bool]

_revocation_checks: list[RevocationCheck] = []


def add_revocation_check(is_revoked: RevocationCheck) -> None:
    """Refuses, from now on, every token for which `is_revoked` answers True. It is asked each time: be quick."""
    _revocation_checks.append(is_revoked)


def remove_revocation_check(is_revoked: RevocationCheck) -> None:
    """Stops asking a check that was added."""
    _revocation_checks.remove(is_revoked)


def create_access_token(user_id: str, email: str, org_id: str | None = None, role: str = "member") -> str:
    """A token for API calls.

    Raises:
        JWTConfigError: see `JWTConfig.from_environment`.
    """
    return _sign("access", {"sub": user_id, "email": email, "org_id": org_id, "role": role})


def create_refresh_token(user_id: str, email: str, org_id: str | None = None, role: str = "member") -> str:
    """A token that is good for nothing but getting new tokens. Raises as `create_access_token` does."""
    return _sign("refresh", {"sub": user_id, "email": email, "org_id": org_id, "role": role})


def create_token_pair(user_id: str, email: str, org_id: str | None = None, role: str = "member") -> TokenPair:
    """An access and a refresh token. Raises as `create_access_token` does."""
    return TokenPair(
        access_token=create_access_token(user_id, email, org_id, role),
        refresh_token=create_refresh_token(user_id, email, org_id, role),
        expires_in=int(JWTConfig.from_environment().access_lifetime.total_seconds()),
    )


def validate_access_token(token: str) -> TokenPayload | None:
    """What the token says, or None if it is malformed, forged, expired, revoked or not an access token.

    Raises:
        JWTConfigError: see `JWTConfig.from_environment`.
    """
    payload = _verify("access", token)
    if payload is None or any(is_revoked(payload) for is_revoked in _revocation_checks):
        return None
    return payload


def _sign(token_type: TokenType, whose: dict[str, str | None]) -> str:
    config = JWTConfig.from_environment()
    issued_at = datetime.now(UTC)
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "jti": str(new_id()),
        "iat": issued_at,
        "exp": issued_at + (config.access_lifetime if token_type == "access" else config.refresh_lifetime),  # noqa: S105
        "type": token_type,
        **whose,
    }
    return jwt.encode(claims, config.secret, algorithm=ALGORITHM)


def _verify(token_type: TokenType, token: str) -> TokenPayload | None:
    try:
        claims = jwt.decode(
            token,
            JWTConfig.from_environment().secret,
            algorithms=[ALGORITHM],
            issuer=ISSUER,
            audience=AUDIENCE,
            options={"require": ["iss", "aud", "sub", "jti", "iat", "exp"]},
        )
    except (jwt.InvalidTokenError, ValueError):
        return None
    org_id = claims.get("org_id")
    email, role = claims.get("email"), claims.get("role")
    if claims.get("type") != token_type or not isinstance(email, str) or not isinstance(role, str):
        return None
    if not isinstance(org_id, str | None):
        return None
    return TokenPayload(
        user_id=claims["sub"],
        email=email,
        org_id=org_id,
        role=role,
        jti=claims["jti"],
        iat=int(claims["iat"]),
        exp=int(claims["exp"]),
        token_type=token_type,
    )


def _positive(variable: str, default: int) -> int:
    text = os.environ.get(variable, "") or str(default)
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise JWTConfigError(f"{variable} is {text!r}; set it to a whole number above 0")
    return int(text)
