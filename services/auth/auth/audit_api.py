"""HTTP for the audit log: who did what to whom. Reading it is noted nowhere."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from aragora.chassis import sql
from aragora.chassis.answering import answer, documented
from aragora.chassis.bodies import Moment, invalid
from aragora.chassis.problems import Problem, responses
from auth import answers, audit_reading
from auth.callers import Person, pool_of
from auth.keys import ADMINISTRATORS

queries = sql.load("auth", "sql/audit.sql")
router = APIRouter(tags=["audit"])

AnyName = Annotated[str | None, Query(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
Organization = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="An id or a slug")]

answers_page = documented(answers.Success[audit_reading.AuditPage], "Entries, newest first")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries, and how many of them."""

    user_id: str | None
    before: UUID | None
    rest: tuple[str | None, str | None, bool | None, datetime | None, datetime | None]
    limit: int


def filtered(
    action: Annotated[str | None, Query(pattern=r"^[a-z_]{1,64}$", description="Such as sign_in")] = None,
    user_id: AnyName = None,
    actor: AnyName = None,
    succeeded: bool | None = None,  # noqa: FBT001 - a query parameter
    since: Annotated[Moment | None, Query(description="From then on")] = None,
    until: Annotated[Moment | None, Query(description="Before then")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: Annotated[str | None, Query(max_length=64, description="The last page's next_cursor")] = None,
) -> Filter:
    """A dependency: what the request's parameters ask for."""
    try:
        before = audit_reading.read_cursor(cursor) if cursor is not None else None
    except ValueError as error:
        raise invalid("cursor", "is not one that this API gave; begin without it") from error
    return Filter(user_id, before, (action, actor, succeeded, since, until), limit)


Filtered = Annotated[Filter, Depends(filtered)]


@router.get(
    "/api/organizations/{org}/audit",
    summary="An organization's audit log",
    responses=answers_page | responses(401, 403, 404, 422, 503),
)
async def organization_audit(request: Request, principal: Person, org: Organization, wanted: Filtered) -> Response:
    """For the organization's owners and admins, and for operators. Follow `next_cursor` for what was before."""
    async with pool_of(request).acquire() as connection:
        found = await connection.fetchrow(queries.audit_organization, org, principal.subject)
        if not principal.reaches_all:
            if found is None or found["role"] is None:
                raise Problem(403, "You are not a member of this organization.")
            if found["role"] not in ADMINISTRATORS:
                raise Problem(403, "Only an owner or admin of the organization may read its audit log.")
        if found is None:
            raise Problem(404, "There is no such organization.")
        rows = await connection.fetch(
            queries.audit_of_organization, found["org_id"], wanted.before, *wanted.rest, wanted.user_id,
            wanted.limit + 1,
        )  # fmt: skip
    return answer(answers.Success(audit_reading.page(rows, wanted.limit)))


@router.get("/api/auth/audit", summary="My audit log", responses=answers_page | responses(401, 403, 422, 503))
async def personal_audit(request: Request, principal: Person, wanted: Filtered) -> Response:
    """What concerns the person who asks; for operators everything. Follow `next_cursor` for what was before.

    From where others acted on a person, only operators and the organization's owners and admins are told.
    """
    if not principal.reaches_all and wanted.user_id not in (None, principal.subject):
        raise Problem(403, "Only an operator may read what concerns somebody else.")
    user_id = wanted.user_id if principal.reaches_all else principal.subject
    reader = None if principal.reaches_all else principal.subject
    async with pool_of(request).acquire() as connection:
        if user_id is not None:
            query, whose = queries.audit_of_person, [user_id]
        else:
            query, whose = queries.audit_of_all, []
        rows = await connection.fetch(query, *whose, wanted.before, *wanted.rest, wanted.limit + 1)
    return answer(answers.Success(audit_reading.page(rows, wanted.limit, reader)))
