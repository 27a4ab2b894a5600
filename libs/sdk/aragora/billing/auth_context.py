"""Who sent a request, from its headers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from aragora.billing.api_keys import KEY_PREFIX, VerifiedKey, has_key_form
from aragora.billing.tokens import validate_access_token

ADMIN_ROLES = frozenset({"owner", "admin"})


@dataclass(frozen=True, slots=True)
class AuthContext:
    """Who is calling. If `authenticated` is False, nothing else is said.

    `token_type` is `"access"` for a person with an access token, and `"api_key"` for a program with a key, which acts
    in a person's name and may do what its `scopes` say. The credential itself is not held.
    """

    authenticated: bool = False
    user_id: str | None = None
    email: str | None = field(default=None, repr=False)  # personal: a context that is logged shows ids only
    org_id: str | None = None
    role: str | None = None
    token_type: Literal["access", "api_key"] | None = None
    scopes: frozenset[str] = frozenset()
    operator: bool = False

    @property
    def is_admin(self) -> bool:
        """An owner or an admin of the organization, or the operator of the platform."""
        return self.authenticated and (self.role in ADMIN_ROLES or self.operator)

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {
            "authenticated": self.authenticated,
            "user_id": self.user_id,
            "email": self.email,
            "org_id": self.org_id,
            "role": self.role,
            "token_type": self.token_type,
            "scopes": sorted(self.scopes),
            "operator": self.operator,
            "is_admin": self.is_admin,
        }


def extract_user_from_request(
    handler: Any, *, verify_api_key: Callable[[str], VerifiedKey | None] | None = None
) -> AuthContext:
    """Who sent this request: `Authorization: Bearer …`, or else `X-API-Key`, with an access token or an API key.

    A token is verified here; a key by `verify_api_key`, which by default asks the platform and waits for it (see
    `key_verification.ask_platform`). Whatever is missing, malformed, expired, revoked or unknown gives a context that
    is not authenticated.

    Args:
        handler: anything with `headers`, such as a handler of `http.server` or a request of Starlette, Flask or
            Django; or the headers themselves; or the environ of a WSGI application.
        verify_api_key: answers what a key may do, or None if it is not good.

    Raises:
        JWTConfigError: no token can be verified with this environment; the message says what to do.
    """
    credential = _credential(handler.headers if hasattr(handler, "headers") else _http_names(handler))
    if not credential:
        return AuthContext()
    if credential.startswith(KEY_PREFIX):
        key = (verify_api_key or _ask_platform)(credential) if has_key_form(credential) else None
        if key is None:
            return AuthContext()
        return AuthContext(
            authenticated=True,
            user_id=key.user_id,
            org_id=key.org_id,
            role=key.role,
            token_type="api_key",  # noqa: S106 -- a kind, not a secret
            scopes=key.scopes,
        )
    payload = validate_access_token(credential)
    if payload is None:
        return AuthContext()
    return AuthContext(
        authenticated=True,
        user_id=payload.user_id,
        email=payload.email,
        org_id=payload.org_id,
        role=payload.role,
        token_type="access",  # noqa: S106 -- a kind, not a secret
        operator=payload.operator,
    )


def _credential(headers: Any) -> str | None:
    """The token or key in the headers. Two different ones in one kind of header are none: who can say which counts?"""
    bearers, keys = set(), set()
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            continue
        if name.lower() == "authorization":
            scheme, _, credential = value.strip().partition(" ")
            if scheme.lower() == "bearer":
                bearers.add(credential.strip())
        elif name.lower() == "x-api-key":
            keys.add(value.strip())
    given = bearers or keys
    return given.pop() if len(given) == 1 else None


def _http_names(environ: Mapping[str, Any]) -> Mapping[str, Any]:
    """The two headers of a WSGI environ under their names in HTTP (PEP 3333); plain headers stay as they are."""
    names = {"HTTP_AUTHORIZATION": "Authorization", "HTTP_X_API_KEY": "X-API-Key"}
    return {names.get(name, name): value for name, value in environ.items()}


def _ask_platform(key: str) -> VerifiedKey | None:
    # An HTTP client takes a quarter of a second to import, and the platform's own services never ask like this.
    from aragora.billing.key_verification import ask_platform  # noqa: PLC0415

    return ask_platform(key)
