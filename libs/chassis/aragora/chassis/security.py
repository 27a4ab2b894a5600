"""Who calls over HTTP: one of the operator's own services, a person, or an organization's program.

A service comes with a service key (`svc_…`), a person with an access token, a program with an API key (`ara_…`): each
as `Authorization: Bearer …`, keys also as `X-API-Key`. Service keys are known here by their hash; what was revoked, and
whose an API key is, `trust` knows.
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

from aragora.billing.jwt_auth import TokenPayload, validate_access_token
from aragora.chassis.problems import Problem
from aragora.chassis.trust import Trust
from aragora.contracts.keys import OPERATOR, OPERATOR_SCOPES

_ENTRY = re.compile(r"(?P<name>[A-Za-z0-9_-]+):(?P<digest>[0-9a-f]{64}):(?P<scopes>[a-z.]+(?:\+[a-z.]+)*)\Z")

_bearer = HTTPBearer(auto_error=False, description="An access token, an API key (ara_…) or a service key (svc_…)")
_api_key = APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key (ara_…) or a service key (svc_…)")


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
    """Who is calling. `subject` is a service key's name, a user's id or an API key's id.

    A person may belong to no organization just now; an API key always belongs to one, and has no role.
    """

    kind: Literal["service", "user", "api_key"]
    subject: str
    org_id: str | None = None
    role: str | None = None
    scopes: frozenset[str] = frozenset()
    token: TokenPayload | None = None
    """What a person's access token says."""

    @property
    def reaches_all(self) -> bool:
        """Whether every organization is within reach, rather than one's own only."""
        return self.kind == "service" or OPERATOR in self.scopes

    @property
    def administers(self) -> bool:
        """Whether all of the organization is within reach, rather than what concerns oneself only."""
        return self.kind != "user" or self.reaches_all or self.role in ("owner", "admin")


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
    principal = await _principal(request, credential)
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
            raise Problem(403, f"This needs a key with the scope {scope}.")
        return principal

    return permitted


def authorize_org(principal: Principal, org_id: str) -> None:
    """Lets people and API keys reach their own organization only. Service keys and operators reach any.

    Raises:
        Problem: 403.
    """
    if principal.org_id != org_id and not principal.reaches_all:
        raise Problem(403, "You are not a member of this organization.")


def organization_of(principal: Principal, org_id: str | None) -> str | None:
    """The organization that a request is about: the one it names, else the caller's. None: a service that named none.

    Raises:
        Problem: 403, the caller may not reach it, or belongs to none.
    """
    named = org_id or principal.org_id
    if named is not None:
        authorize_org(principal, named)
    elif principal.kind == "user":
        raise Problem(403, "Your token belongs to no organization; switch to one, or name one you may reach.")
    return named


async def _principal(request: Request, credential: str) -> Principal | None:
    if credential.startswith("svc_"):
        key = find_service_key(request.app.state.service_keys, credential)
        return Principal("service", key.name, scopes=key.scopes) if key else None
    trust: Trust = request.app.state.trust
    if credential.startswith("ara_"):
        holder = await trust.verify_key(credential)
        return Principal("api_key", holder.key_id, holder.org_id, None, frozenset(holder.scopes)) if holder else None
    trust.demand()
    token = validate_access_token(credential)
    if token is None:
        return None
    scopes = OPERATOR_SCOPES if token.operator else frozenset[str]()
    return Principal("user", token.user_id, token.org_id, token.role, scopes, token)


def _unauthorized(detail: str, challenge: str) -> Problem:
    return Problem(401, detail, headers={"WWW-Authenticate": challenge})
