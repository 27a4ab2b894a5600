"""HTTP: may this be used? Check, reserve, release, extend. Parse, ask the desk, answer."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Path, Request, Response, Security

from aragora.chassis import sql
from aragora.chassis.answering import answer, body_schema, documented
from aragora.chassis.problems import MEDIA_TYPE, Problem, responses
from aragora.chassis.security import Principal, organization_of, require
from aragora.contracts.limits import CheckLimits, Extend, Release, Reserve, Ttl
from metering import limit_answers
from metering.api import AnyOrgId, pool_of, required_organization
from metering.limit_desk import Question
from metering.limit_replies import JSON, read_question, reply_to

queries = sql.load("metering", "sql/reservations.sql")
router = APIRouter(prefix="/api/usage", tags=["limits"])

MayReserve = Annotated[Principal, Security(require("usage.write"))]
MayCheck = Annotated[Principal, Security(require("usage.write", people=True))]

ReservationId = Annotated[str, Path(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
IdempotencyKey = Annotated[
    str | None,
    Header(alias="Idempotency-Key", min_length=1, max_length=128, description="Where the body has no idempotency_key"),
]


class ExtendBody(msgspec.Struct, forbid_unknown_fields=True):
    """How long to keep the reservation, in seconds from now."""

    ttl_seconds: Ttl


def _body(body_type: type[msgspec.Struct]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {JSON: {"schema": body_schema(body_type)}}}}


def _exceeded() -> dict[int | str, dict[str, Any]]:
    found = documented(limit_answers.Exceeded, "A limit is short; nothing is held", status=429, money="number")
    found[429]["content"] = {MEDIA_TYPE: found[429]["content"][JSON]}
    return found


@router.post(
    "/limits/check",
    summary="Would this be allowed?",
    responses=documented(limit_answers.Checked, "Whether it would, and what is left", money="number")
    | responses(400, 401, 403, 404, 422, 503),
    openapi_extra=_body(CheckLimits),
)
async def check_limits(request: Request, principal: MayCheck) -> Response:
    """Whether all of the operations would be allowed now, and where each limit that they touch stands. Holds nothing.

    Between a check and the call others may use what is left: to be sure of it, reserve.
    """
    question = read_question(CheckLimits, await request.body())
    question.org_id = organization_of(principal, question.org_id)
    if principal.kind == "user" and not principal.reaches_all:
        if question.user_id not in (None, principal.subject):
            raise Problem(403, "Only your own limits are yours to ask for; leave out user_id.")
        question.user_id = principal.subject
    return await _answer(request, question)


@router.post(
    "/reservations",
    status_code=201,
    summary="Hold what an operation will use",
    responses=documented(limit_answers.Reserved, "Held, for every limit that it touches", status=201, money="number")
    | documented(limit_answers.Reserved, "Held already, under the same idempotency key", money="number")
    | _exceeded()
    | responses(400, 401, 403, 404, 409, 422, 503),
    openapi_extra=_body(Reserve),
)
async def reserve(request: Request, principal: MayReserve, idempotency_key: IdempotencyKey = None) -> Response:
    """Holds the amounts of all operations for every limit that they touch, or of none.

    Then make the call, and name the reservation in its usage event, as `reservation_id`: what was used is counted and
    what was held is given back, together. If there was no call, release it. If neither happens within `ttl_seconds`, it
    expires by itself.
    """
    question = read_question(Reserve, await request.body())
    question.org_id = organization_of(principal, question.org_id)
    if question.idempotency_key is None:
        question.idempotency_key = idempotency_key
    return await _answer(request, question)


@router.post(
    "/reservations/{reservation_id}/release",
    summary="Give back what is held",
    responses=documented(limit_answers.Ended, "It holds nothing any more") | responses(401, 403, 404, 409, 422, 503),
)
async def release(
    request: Request, principal: MayReserve, reservation_id: ReservationId, org_id: AnyOrgId = None
) -> Response:
    """For an operation that did not take place. To release twice is to release once."""
    org = organization_of(principal, org_id)
    return await _answer(request, Release(reservation_id=reservation_id, org_id=org))


@router.post(
    "/reservations/{reservation_id}/extend",
    summary="Hold it for longer",
    responses=documented(limit_answers.Reserved, "With its new end", money="number")
    | responses(400, 401, 403, 404, 409, 422, 503),
    openapi_extra=_body(ExtendBody),
)
async def extend(
    request: Request, principal: MayReserve, reservation_id: ReservationId, org_id: AnyOrgId = None
) -> Response:
    """For an operation that takes longer than was thought: `ttl_seconds` from now."""
    org, asked = organization_of(principal, org_id), read_question(ExtendBody, await request.body())
    return await _answer(request, Extend(reservation_id=reservation_id, ttl_seconds=asked.ttl_seconds, org_id=org))


@router.get(
    "/reservations/{reservation_id}",
    summary="One reservation",
    responses=documented(limit_answers.StoredReservation, "As it stands") | responses(401, 403, 404, 422),
)
async def stored_reservation(
    request: Request, principal: MayReserve, reservation_id: ReservationId, org_id: AnyOrgId = None
) -> Response:
    """What became of it. One that ended is forgotten after a day."""
    org = required_organization(principal, org_id)
    row = await pool_of(request).fetchrow(queries.stored_reservation, org, reservation_id)
    if row is None:
        raise Problem(404, "The organization has no such reservation; one that ended is forgotten after a day.")
    return answer(limit_answers.stored_reservation(row))


async def _answer(request: Request, question: Question) -> Response:
    state = request.app.state
    reply = await reply_to(state.metering_limit_desk, question, fail_open=state.metering_limits_fail_open)
    headers = {} if reply.retry_after_seconds is None else {"Retry-After": str(reply.retry_after_seconds)}
    return Response(reply.body, reply.status, headers, media_type=reply.media_type)
