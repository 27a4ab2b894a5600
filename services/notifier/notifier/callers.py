"""Who is calling, for whom, and as what: whose alerts, whose endpoints, whose preferences."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from aragora.chassis.bodies import invalid
from aragora.chassis.problems import Problem
from aragora.chassis.security import Principal, authenticated, organization_of, require
from aragora.chassis.sql import Pool
from aragora.contracts.keys import OPERATOR
from notifier.directory import AuthAway, Directory
from notifier.domain import ADMINISTRATORS
from notifier.handlers import Clock

Viewer = Annotated[Principal, Security(require("usage.read", people=True))]
"""People, and keys that may read."""
Person = Annotated[Principal, Security(require(OPERATOR, people=True))]
"""People, and the operator's services."""
Operator = Annotated[Principal, Security(require(OPERATOR))]

_bearer = HTTPBearer(auto_error=False)
_api_key = APIKeyHeader(name="X-API-Key", auto_error=False)


@dataclass(frozen=True, slots=True)
class Reader:
    """Who is shown alerts of an organization: as an owner or admin or not, and with what is theirs alone or not."""

    org_id: str
    user_id: str
    administers: bool
    in_person: bool


def pool_of(request: Request) -> Pool:
    """The service's connections."""
    pool: Pool = request.app.state.notifier_pool
    return pool


def clock_of(request: Request) -> Clock:
    """The service's clock."""
    clock: Clock = request.app.state.notifier_clock
    return clock


async def caller_again(request: Request) -> Principal:
    """Who calls, looked at anew: the credential of a long request may have expired, or been revoked.

    Raises:
        Problem: 401, it has; 403 or 503, whether it has cannot be told.
    """
    return await authenticated(request, await _bearer(request), await _api_key(request))


async def reader_of(request: Request, principal: Principal, user_id: str, org_id: str | None) -> Reader:
    """Whose alerts these are, if the caller may see them: their own, or those of a member of an organization that they
    administer. What concerns a person alone is for themself, and for those who reach every organization.

    Raises:
        Problem: 403, the caller may not; 404, no such member; 422, no organization is named; 503, auth is away.
    """
    themself = principal.kind == "user" and principal.subject == user_id
    if not themself and not principal.administers:
        raise Problem(403, "Only an owner or admin of the organization may ask for another member.")
    organization = required_organization(principal, org_id)
    if themself and organization == principal.org_id:
        return Reader(organization, user_id, principal.role in ADMINISTRATORS, in_person=True)
    directory: Directory = request.app.state.notifier_directory
    try:
        people = await directory.people(organization, clock_of(request)())
    except AuthAway as error:
        detail = "Who belongs to the organization cannot be found out just now; try again."
        raise Problem(503, detail, headers={"Retry-After": "1"}) from error
    member = people.member(user_id) if people else None
    if member is None:
        raise Problem(404, "The organization has no such member.")
    return Reader(organization, user_id, member.role in ADMINISTRATORS, themself or principal.reaches_all)


async def marker_of(request: Request, principal: Principal, user_id: str | None, org_id: str | None) -> Reader:
    """Whose alerts are marked as read: the caller's own; an operator or a service may name somebody.

    Raises:
        Problem: as `reader_of`; 422 also if a service names nobody.
    """
    if user_id is None and principal.kind != "user":
        raise invalid("user_id", "name the person")
    if user_id is not None and user_id != principal.subject and not principal.reaches_all:
        raise Problem(403, "Only the person themself marks an alert as read.")
    return await reader_of(request, principal, user_id or principal.subject, org_id)


def required_organization(principal: Principal, org_id: str | None) -> str:
    """The organization that a request is about: the one it names, else the caller's.

    Raises:
        Problem: 403, the caller may not reach it, or belongs to none; 422, a service named none.
    """
    organization = organization_of(principal, org_id)
    if organization is None:
        raise invalid("org_id", "name the organization")
    return organization


def administered(principal: Principal, org_id: str | None) -> str:
    """The organization, of which the caller is an owner or admin, or an operator.

    Raises:
        Problem: as `required_organization`; 403 also for other members.
    """
    organization = required_organization(principal, org_id)
    if not principal.administers:
        raise Problem(403, "Only an owner or admin of the organization may do this.")
    return organization
