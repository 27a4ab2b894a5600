"""Signing and verifying access and refresh tokens (JSON Web Tokens, RFC 7519), without a call to anyone."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from jwt.algorithms import HMACAlgorithm

from aragora.billing.revocation import TokenBlacklist
from aragora.billing.token_keys import TokenKeys, token_keys
from aragora.billing.token_payload import AUDIENCE, ISSUER, TokenPayload, TokenType, read_payload
from aragora.billing.token_settings import JWTConfigError, access_lifetime, refresh_lifetime
from aragora.contracts.ids import new_id

MAX_TOKEN_CHARACTERS = 8_192


class _PreparedSecret(HMACAlgorithm):
    """HS256 with secrets that `token_keys` has checked, once: PyJWT else looks for a certificate in them each time."""

    def prepare_key(self, key: str | bytes) -> bytes:
        return key if isinstance(key, bytes) else super().prepare_key(key)


_jws = jwt.PyJWS()
_jws.unregister_algorithm("HS256")
_jws.register_algorithm("HS256", _PreparedSecret(HMACAlgorithm.SHA256))


@dataclass(frozen=True, slots=True)
class JWTConfig:
    """What signs and limits tokens."""

    keys: TokenKeys
    access_lifetime: timedelta
    refresh_lifetime: timedelta

    @classmethod
    def from_environment(cls, *, signing: bool = False) -> "JWTConfig":
        """Reads the environment. A service calls this once at its start, so that a mistake shows there.

        With `signing` there must be a key that signs, not only one that verifies.

        Raises:
            JWTConfigError: a variable is missing, weak, or cannot be read; the message names it and says what to do.
        """
        config = cls(token_keys(), access_lifetime(), refresh_lifetime())
        if signing and config.keys.signing is None:
            raise JWTConfigError(
                "ARAGORA_JWT_PRIVATE_KEY is not set, and without it tokens can be verified but not made; "
                "set it to a private key in PEM, or to the path of a file with it"
            )
        return config


@dataclass(frozen=True, slots=True)
class TokenPair:
    """`expires_in` is the access token's lifetime in seconds."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: int
    token_type: str = "bearer"  # noqa: S105 -- the name of a scheme (RFC 6750)


def create_access_token(
    user_id: str,
    email: str,
    org_id: str | None = None,
    role: str = "member",
    *,
    session_id: str | None = None,
    operator: bool = False,
    issued_at: datetime | None = None,
    token_id: str | None = None,
) -> str:
    """A token for API calls.

    `session_id` names the sign-in that it comes from. `operator`: for whoever runs the platform. `issued_at` is now and
    `token_id` (the claim `jti`) a new one, if they are not given.

    Raises:
        JWTConfigError: see `JWTConfig.from_environment`.
    """
    return _sign("access", _claims_of(user_id, email, org_id, role, session_id, operator=operator), issued_at, token_id)


def create_refresh_token(
    user_id: str,
    email: str,
    org_id: str | None = None,
    role: str = "member",
    *,
    session_id: str | None = None,
    operator: bool = False,
    issued_at: datetime | None = None,
    token_id: str | None = None,
) -> str:
    """A token that is good for nothing but getting new tokens. Arguments and errors are those of an access token."""
    return _sign(
        "refresh", _claims_of(user_id, email, org_id, role, session_id, operator=operator), issued_at, token_id
    )


def create_token_pair(
    user_id: str,
    email: str,
    org_id: str | None = None,
    role: str = "member",
    *,
    session_id: str | None = None,
    operator: bool = False,
    issued_at: datetime | None = None,
    refresh_token_id: str | None = None,
) -> TokenPair:
    """An access and a refresh token, issued at one moment. Raises as `create_access_token` does."""
    moment = issued_at or datetime.now(UTC)
    claims = _claims_of(user_id, email, org_id, role, session_id, operator=operator)
    return TokenPair(
        access_token=_sign("access", claims, moment),
        refresh_token=_sign("refresh", claims, moment, refresh_token_id),
        expires_in=int(access_lifetime().total_seconds()),
    )


def validate_access_token(token: str) -> TokenPayload | None:
    """What the token says, or None if it is malformed, forged, expired, revoked or not an access token.

    Raises:
        JWTConfigError: see `JWTConfig.from_environment`. No token raises anything.
    """
    return _validate("access", token)


def validate_refresh_token(token: str) -> TokenPayload | None:
    """What the token says, or None as above, or if it is not a refresh token.

    Whether it was used before, only the auth service knows. Raises as `validate_access_token` does.
    """
    return _validate("refresh", token)


def _claims_of(
    user_id: str, email: str, org_id: str | None, role: str, session_id: str | None, *, operator: bool
) -> dict[str, Any]:
    claims: dict[str, Any] = {"sub": user_id, "email": email, "org_id": org_id, "role": role}
    if session_id is not None:
        claims["sid"] = session_id
    if operator:
        claims["operator"] = True
    return claims


def _sign(
    token_type: TokenType, claims: dict[str, Any], issued_at: datetime | None, token_id: str | None = None
) -> str:
    keys = JWTConfig.from_environment(signing=True).keys
    moment = (issued_at or datetime.now(UTC)).timestamp()
    lifetime = access_lifetime() if token_type == "access" else refresh_lifetime()  # noqa: S105
    registered = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "jti": token_id or str(new_id()),
        # With its fraction: a token made right after all of a person's tokens were revoked must not count among them.
        "iat": moment,
        "exp": int(moment + lifetime.total_seconds()),
        "type": token_type,
    }
    return jwt.encode(registered | claims, keys.signing_key, algorithm=keys.algorithm, headers={"kid": keys.signing})


def _validate(token_type: TokenType, token: str) -> TokenPayload | None:
    keys, now = token_keys(), time.time()
    if len(token) > MAX_TOKEN_CHARACTERS:
        return None
    payload = keys.verified.get(token, now)  # None too if it has expired since
    if payload is None:
        payload = _verify(keys, token, now)
    if payload is None or payload.token_type != token_type or TokenBlacklist.get_instance().is_revoked(payload):
        return None
    return payload


def _verify(keys: TokenKeys, token: str, now: float) -> TokenPayload | None:
    """The signature is PyJWT's to verify; it takes claims of other types, hence `read_payload`."""
    try:
        for kid, key in keys.candidates(token):
            try:
                parts = _jws.decode_complete(token, key, algorithms=[keys.algorithm])
            except jwt.InvalidSignatureError:
                continue
            payload = read_payload(parts["payload"], now)
            if payload is None:
                return None
            if "kid" in parts["header"]:
                keys.headers[token.partition(".")[0]] = kid
            keys.verified.put(token, payload, payload.exp, now)
            return payload
    except (jwt.PyJWTError, ValueError):  # ValueError: half a character (a surrogate)
        return None
    return None
