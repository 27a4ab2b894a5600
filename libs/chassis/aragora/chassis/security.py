"""Who calls over HTTP: one of the operator's own services with a service key, or a person with an access token.

Either comes as `Authorization: Bearer …`; a service key may also come as `X-API-Key`. A service key looks like
`svc_…` and is known here by its hash only.
"""

import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import structlog
from fastapi import Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from aragora.billing.jwt_auth import validate_access_token
from aragora.chassis.problems import Problem

_ENTRY = re.compile(r"(?P<name>[A-Za-z0-9_-]+):(?P<digest>[0-9a-f]{64}):(?P<scopes>[a-z.]+(?:\+[a-z.]+)*)\Z")

_bearer = HTTPBearer(auto_error=False, description="A service key (svc_…) or a person's access token")
_api_key = APIKeyHeader(name="X-API-Key", auto_error=False, description="A service key (svc_…)")


class ServiceKeyError(ValueError):
    """ARAGORA_SERVICE_KEYS cannot be read. The message names the entry and how one is written."""


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """A key's name, the SHA-256 of its text, and what it may do."""

    name: str
    digest: bytes
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling. `subject` is a service key's name or a user's id; only people have an organization and a role."""

    kind: Literal["service", "user"]
    subject: str
    org_id: str | None = None
    role: str | None = None
    scopes: frozenset[str] = frozenset()


def parse_service_keys(text: str) -> tuple[ServiceKey, ...]:
    """Reads ARAGORA_SERVICE_KEYS: `name:sha256hex:scope+scope`, separated by commas. Two keys may have one name.

    Raises:
        ServiceKeyError: an entry is written wrongly.
    """
    keys = []
    for number, entry in enumerate((part.strip() for part in text.split(",") if part.strip()), 1):
        match = _ENTRY.match(entry)
        if match is None:
            raise ServiceKeyError(
                f"entry {number} of ARAGORA_SERVICE_KEYS (name {entry.partition(':')[0][:32]!r}) is not "
                "name:sha256hex:scope+scope; the hash is 64 lower-case hex digits of the SHA-256 of the key"
            )
        scopes = frozenset(match["scopes"].split("+"))
        keys.append(ServiceKey(match["name"], bytes.fromhex(match["digest"]), scopes))
    return tuple(keys)


def find_service_key(keys: Sequence[ServiceKey], text: str) -> ServiceKey | None:
    """The key of which this is the text. Takes as long for a wrong one as for a right one."""
    digest = hashlib.sha256(text.encode()).digest()
    found = [key for key in keys if hmac.compare_digest(key.digest, digest)]
    return found[0] if found else None


async def authenticated(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    api_key: Annotated[str | None, Security(_api_key)],
) -> Principal:
    """A dependency: the caller, or 401."""
    credential = bearer.credentials if bearer else api_key
    if not credential:
        raise _unauthorized(
            "Send a service key or an access token as Authorization: Bearer …", 'Bearer realm="aragora"'
        )
    principal = _principal(request.app.state.service_keys, credential)
    if principal is None:
        invalid = 'Bearer realm="aragora", error="invalid_token"'
        raise _unauthorized("The credential is unknown, expired or revoked; get a new one.", invalid)
    structlog.contextvars.bind_contextvars(principal=f"{principal.kind}:{principal.subject}")
    return principal


def require(scope: str, *, people: bool = False) -> Callable[[Principal], Awaitable[Principal]]:
    """A dependency: the caller if its key has this scope, else 403. With `people`, any authenticated person passes too.

    What a person may see is then for the route to say, with `authorize_org`.
    """

    async def permitted(principal: Annotated[Principal, Security(authenticated)]) -> Principal:
        if scope not in principal.scopes and not (people and principal.kind == "user"):
            raise Problem(403, f"This needs a service key with the scope {scope}.")
        return principal

    return permitted


def authorize_org(principal: Principal, org_id: str) -> None:
    """Lets people reach their own organization only. Service keys reach any.

    Raises:
        Problem: 403.
    """
    if principal.kind == "user" and principal.org_id != org_id:
        raise Problem(403, "You are not a member of this organization.")


def _principal(keys: Sequence[ServiceKey], credential: str) -> Principal | None:
    if credential.startswith("svc_"):
        key = find_service_key(keys, credential)
        return Principal("service", key.name, scopes=key.scopes) if key else None
    payload = validate_access_token(credential)
    return Principal("user", payload.user_id, payload.org_id, payload.role) if payload else None


def _unauthorized(detail: str, challenge: str) -> Problem:
    return Problem(401, detail, headers={"WWW-Authenticate": challenge})
