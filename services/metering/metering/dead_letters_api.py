"""HTTP for the operator: look at usage that could not be recorded, try it again, or let it go."""

from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response, Security

from aragora.chassis import dead_letters
from aragora.chassis.answering import answer, documented
from aragora.chassis.dead_letters import KeptLetter, NotTaken
from aragora.chassis.problems import Problem, responses
from aragora.chassis.security import Principal, require
from metering import answers
from metering.api import pool_of

router = APIRouter(prefix="/api/usage/dead-letters", tags=["dead letters"])
is_operator = Security(require("operator"))
Operator = Annotated[Principal, is_operator]


@router.get(
    "",
    summary="List",
    dependencies=[is_operator],
    responses=documented(answers.DeadLetterPage, "The newest first") | responses(401, 403, 422),
)
async def list_dead_letters(
    request: Request,
    status: Literal["open", "retried", "discarded", "any"] = "open",
    org_id: Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: UUID | None = None,
) -> Response:
    """Messages and events that could not be recorded, each with the reason and the field that is wrong."""
    async with pool_of(request).acquire() as connection:
        letters = await dead_letters.page(
            connection, status=None if status == "any" else status, org_id=org_id, before=cursor, limit=limit
        )
    last = str(letters[-1].id) if len(letters) == limit else None
    return answer(answers.DeadLetterPage([_shown(letter) for letter in letters], last))


@router.get(
    "/{letter_id}",
    summary="Inspect",
    dependencies=[is_operator],
    responses=documented(answers.DeadLetter, "The letter") | responses(401, 403, 404, 422),
)
async def inspect_dead_letter(request: Request, letter_id: UUID) -> Response:
    """One letter, with the message as it came."""
    async with pool_of(request).acquire() as connection:
        return answer(_shown(_known(await dead_letters.fetch(connection, letter_id))))


@router.post(
    "/{letter_id}/retry",
    status_code=202,
    summary="Retry",
    responses=documented(answers.DeadLetter, "It is on its way again", status=202)
    | responses(401, 403, 404, 409, 422, 503),
)
async def retry_dead_letter(request: Request, principal: Operator, letter_id: UUID) -> Response:
    """Sends the message to metering again as it came. If it fails again, the letter opens again with the new reason."""
    bus = request.app.state.metering_bus.jetstream()
    async with pool_of(request).acquire() as connection, connection.transaction():
        letter = _known(await dead_letters.fetch(connection, letter_id))
        try:
            sent = await dead_letters.retry(
                connection, letter, "metering", bus, at=datetime.now(UTC), by=principal.subject
            )
        except NotTaken as error:
            raise Problem(409, str(error)) from error
        if not sent:
            raise _settled(letter, "retried")
        return answer(_shown(_known(await dead_letters.fetch(connection, letter_id))), status=202)


@router.post(
    "/{letter_id}/discard",
    summary="Discard",
    responses=documented(answers.DeadLetter, "It is let go, and stays to be seen") | responses(401, 403, 404, 409, 422),
)
async def discard_dead_letter(request: Request, principal: Operator, letter_id: UUID) -> Response:
    """Closes the letter without recording what it holds."""
    async with pool_of(request).acquire() as connection, connection.transaction():
        letter = _known(await dead_letters.fetch(connection, letter_id))
        if not await dead_letters.resolve(
            connection, letter_id, "discarded", at=datetime.now(UTC), by=principal.subject
        ):
            raise _settled(letter, "discarded")
        return answer(_shown(_known(await dead_letters.fetch(connection, letter_id))))


def _settled(letter: KeptLetter, wanted: str) -> Problem:
    return Problem(409, f"The letter is {letter.status} already; only an open one can be {wanted}.")


def _known(letter: KeptLetter | None) -> KeptLetter:
    if letter is None:
        raise Problem(404, "There is no dead letter of this id.")
    return letter


def _shown(letter: KeptLetter) -> answers.DeadLetter:
    return answers.DeadLetter(
        id=str(letter.id),
        status=letter.status,
        reason=letter.reason,
        field=letter.field,
        org_id=letter.org_id,
        subject=letter.subject,
        source_stream=letter.source_stream,
        source_sequence=letter.source_sequence,
        attempts=letter.attempts,
        first_seen_at=letter.first_seen_at,
        resolved_at=letter.resolved_at,
        resolved_by=letter.resolved_by,
        payload=letter.payload.decode(errors="replace"),
    )
