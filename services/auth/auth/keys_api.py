"""HTTP for API keys, and for whoever asks whose credential this is."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response, Security
from pydantic import Field, StringConstraints

from aragora.chassis.answering import answer, documented
from aragora.chassis.bodies import Body, Moment, invalid
from aragora.chassis.problems import Problem, responses
from aragora.chassis.security import Principal, authenticated
from aragora.chassis.sql import Connection
from aragora.contracts.keys import KEY_SCOPES
from auth import answers, key_answers, keys, organizations
from auth.callers import Person, act_of, clock_of, pool_of, token_of
from auth.keys import queries

router = APIRouter(tags=["API keys"])

MAX_LISTED = 1000
KEY_ROLE = "member"
"""An API key is no administrator, whoever made it: what it may do is what its scopes say."""
REFUSALS = {
    keys.NotAnAdministrator: HTTPStatus.FORBIDDEN,
    keys.NoApiAccess: HTTPStatus.FORBIDDEN,
    keys.PlanUnknown: HTTPStatus.SERVICE_UNAVAILABLE,
    keys.TooManyKeys: HTTPStatus.CONFLICT,
}


OrgId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Absent: that of the access token")]
AnyOrgId = Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Absent: that of the token")]
KeyId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
KeyName = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$"),
]
Scope = Literal["usage.read", "usage.write"]
Scopes = Annotated[list[Scope], Field(min_length=1, max_length=len(KEY_SCOPES))]


class KeyRequest(Body):
    """What a program is to be allowed, in which organization, and until when: at most for ten years, null for ever."""

    name: KeyName
    scopes: Scopes
    expires_at: Moment | None = None
    org_id: OrgId | None = None


@router.post(
    "/api/auth/api-keys",
    status_code=201,
    summary="Make an API key",
    responses=documented(answers.Success[key_answers.NewApiKey], "The key: it is shown this once", status=201)
    | responses(400, 401, 403, 409, 422, 503),
)
async def make_key(request: Request, principal: Person, body: KeyRequest) -> Response:
    """For owners and admins of an organization whose plan has API access; at most 100 keys that are live.

    Keep `key` where the program finds it: only a hash of it is stored here.
    """
    org_id = _organization(principal, body.org_id)
    now = clock_of(request)()
    if body.expires_at is not None and not now < body.expires_at <= now + keys.MAX_LIFETIME:
        raise invalid("expires_at", "lies in the past, or more than ten years ahead")
    scopes = [scope for scope in KEY_SCOPES if scope in body.scopes]
    try:
        async with act_of(request, principal) as act:
            row, text = await keys.issue(act, org_id, principal.subject, body.name, scopes, body.expires_at)
    except tuple(REFUSALS) as refused:
        status = REFUSALS[type(refused)]
        headers = {"Retry-After": "1"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
        raise Problem(status, str(refused), headers=headers) from refused
    shown = answer(answers.Success(key_answers.new_api_key(row, text)), status=201)
    shown.headers["Cache-Control"] = "no-store"
    return shown


@router.get(
    "/api/auth/api-keys",
    summary="API keys",
    responses=documented(answers.Success[list[key_answers.ApiKey]], "Newest first; also revoked and expired ones")
    | responses(401, 403, 422, 503),
)
async def list_keys(request: Request, principal: Person, org_id: AnyOrgId = None) -> Response:
    """An organization's keys, the latest thousand: for its owners and admins all, for other members their own."""
    organization = _organization(principal, org_id)
    async with pool_of(request).acquire() as connection:
        whose = await _reach(connection, principal, organization)
        rows = await connection.fetch(queries.keys_of_organization, organization, whose, MAX_LISTED)
    return answer(answers.Success([key_answers.api_key(row) for row in rows]))


@router.delete(
    "/api/auth/api-keys/{key_id}",
    summary="Revoke an API key",
    responses=documented(answers.Done, "It is good for nothing any more") | responses(401, 403, 404, 422, 503),
)
async def revoke_key(request: Request, principal: Person, key_id: KeyId, org_id: AnyOrgId = None) -> Response:
    """For owners and admins of the organization, and for who made the key. Revoked once more, it stays revoked."""
    organization = _organization(principal, org_id)
    async with act_of(request, principal) as act:
        whose = await _reach(act.connection, principal, organization)
        row = await act.connection.fetchrow(queries.key_by_id, organization, key_id)
        if whose is not None and (row is None or row["user_id"] != whose):
            raise Problem(403, "Only an owner or admin of the organization may revoke a key that you have not made.")
        if row is None:
            raise Problem(404, "The organization has no such API key.")
        await keys.revoke(act, organization, key_id, "revoked")
    return answer(answers.Done(message="API key revoked"))


@router.get(
    "/api/auth/verify",
    summary="Whose credential is this?",
    responses=documented(answers.Success[key_answers.Credential], "A good one") | responses(401, 403, 503),
)
async def whose(request: Request, principal: Annotated[Principal, Security(authenticated)]) -> Response:
    """Any credential that is good now: an access token, an API key or a service key. One that is not is refused: 401,
    or 403 for a key of an organization whose plan has no API access any more.
    """
    return answer(answers.Success(await _credential(request, principal)))


async def _credential(request: Request, principal: Principal) -> key_answers.Credential:
    scopes = sorted(principal.scopes)
    if principal.kind == "service":
        return key_answers.Credential("service_key", None, None, None, scopes, None)
    if principal.kind == "user":
        expires_at = datetime.fromtimestamp(token_of(principal).exp, UTC)
        return key_answers.Credential("access", principal.subject, principal.org_id, principal.role, scopes, expires_at)
    row = await pool_of(request).fetchrow(queries.key_by_id, principal.org_id, principal.subject)
    if row is None:
        raise Problem(401, "The API key is no more.", headers={"WWW-Authenticate": 'Bearer realm="aragora"'})
    return key_answers.Credential("api_key", row["user_id"], principal.org_id, KEY_ROLE, scopes, row["expires_at"])


def _organization(principal: Principal, named: str | None) -> str:
    org_id = named or principal.org_id
    if org_id is None:
        raise Problem(403, "Your token belongs to no organization; switch to one, or name it in org_id.")
    return org_id


async def _reach(connection: Connection, principal: Principal, org_id: str) -> str | None:
    """Whose keys the person may see and revoke: everybody's (None), or their own. The members decide, not the token.

    Raises:
        Problem: 403, they are no member.
    """
    if principal.reaches_all:
        return None
    role = await organizations.membership_of(connection, principal.subject, org_id)
    if role is None:
        raise Problem(403, "You are not a member of this organization.")
    return None if role in keys.ADMINISTRATORS else principal.subject
