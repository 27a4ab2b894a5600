"""From a question about limits to what leaves the house: the same status and body over HTTP and on the bus."""

import re
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import msgspec
import structlog

from aragora.chassis.bodies import invalid
from aragora.chassis.problems import MEDIA_TYPE, Problem
from aragora.chassis.transient import is_transient
from aragora.contracts.limits import CheckLimits, Extend, Release, Reserve
from aragora.contracts.usage import ORG_ID
from metering import metrics
from metering.intake import explain
from metering.limit_answers import Checked, Exceeded, Reserved
from metering.limit_desk import Answer, LimitDesk, Overloaded, Question
from metering.operations import InvalidOperation
from metering.reservations import Refusal

log = structlog.get_logger()

JSON = "application/json"

QUESTIONS: dict[str, type[Question]] = {"check": CheckLimits, "reserve": Reserve, "release": Release, "extend": Extend}
"""What each verb of `rpc.metering` asks."""

_Asked = TypeVar("_Asked", bound=msgspec.Struct)
_decoder_of = cache(msgspec.json.Decoder)
_in_operation = re.compile(r"operations\[(?P<index>\d+)\](?P<field>.*)")
_encoder = msgspec.json.Encoder(decimal_format="number")


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP status, a JSON body and its kind, and for 429 and 503 the seconds after which to try again."""

    status: int
    body: bytes
    media_type: str = JSON
    retry_after_seconds: int | None = None


def read_question(question_type: type[_Asked], body: bytes) -> _Asked:
    """The question of this type that a body asks.

    Raises:
        Problem: 400 or 422; what is wrong and where.
    """
    try:
        question: _Asked = _decoder_of(question_type).decode(body)
    except msgspec.ValidationError as error:
        field, message = explain(error)
        raise Problem(422, "Mend the fields listed in errors.", errors=[_located(field, message)]) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, f"The body is not valid JSON: {explain(error)[1]}") from error
    return question


def _located(field: str | None, message: str) -> tuple[int | None, str, str]:
    found = _in_operation.match(field or "")
    if found is None:
        return None, field or "body", message
    return int(found["index"]), f"operations{found['field']}", message


async def reply_to(desk: LimitDesk, question: Question, *, fail_open: bool) -> Reply:
    """Decide, or say that nobody could in time: refused, or with `fail_open` let through."""
    outcome: Answer | Exception
    try:
        outcome = await desk.ask(organization_of(question), question)
    except Exception as error:  # noqa: BLE001 - what it was is for `reply_of`
        outcome = error
    return reply_of(outcome, question, fail_open=fail_open)


def organization_of(question: Question) -> str:
    """Whose limits a question is about. Raises `Problem` 422 if it does not say."""
    org_id = question.org_id
    if org_id is None or not ORG_ID.match(org_id):
        raise invalid("org_id", "is missing")
    return org_id


def reply_of(outcome: Answer | Exception, question: Question, *, fail_open: bool) -> Reply:
    """The reply to a question of which this became. Raises what is our own mistake."""
    if not isinstance(outcome, Exception):
        return Reply(
            _status_of(outcome),
            _encoder.encode(outcome),
            MEDIA_TYPE if isinstance(outcome, Exceeded) else JSON,
            outcome.retry_after_seconds if isinstance(outcome, Exceeded) else None,
        )
    if isinstance(outcome, InvalidOperation):
        wrong = [(outcome.index, f"operations.{outcome.field}", outcome.message)]
        return of_problem(Problem(422, "Nothing is held: mend the operation listed in errors.", errors=wrong))
    if isinstance(outcome, Refusal):
        return of_problem(Problem(outcome.status, str(outcome)))
    if isinstance(outcome, Problem):
        return of_problem(outcome)
    if isinstance(outcome, Overloaded) or is_transient(outcome):
        log.warning("limits_undecided", org_id=question.org_id, fail_open=fail_open, error=repr(outcome))
        return _undecided(question, fail_open=fail_open)
    raise outcome


def _status_of(answer: Answer) -> int:
    if isinstance(answer, Exceeded):
        return 429
    return 201 if isinstance(answer, Reserved) and answer.is_new else 200


def _undecided(question: Question, *, fail_open: bool) -> Reply:
    if fail_open and isinstance(question, CheckLimits | Reserve):
        metrics.limits_undecided.labels("allowed").inc()
        return Reply(200, _encoder.encode(_let_through(organization_of(question), question)))
    metrics.limits_undecided.labels("refused").inc()
    detail = "Limits cannot be decided just now, so this is refused; ask again in a moment with the same body."
    return of_problem(Problem(503, detail), retry_after_seconds=1)


def _let_through(org_id: str, question: CheckLimits | Reserve) -> Checked | Reserved:
    if isinstance(question, CheckLimits):
        return Checked(allowed=True, org_id=org_id, plan=None, resets_at=None, limits=[], undecided=True)
    return Reserved(
        reservation_id=None,
        org_id=org_id,
        user_id=question.user_id,
        state="undecided",
        expires_at=None,
        limits=[],
        undecided=True,
    )


def of_problem(problem: Problem, retry_after_seconds: int | None = None) -> Reply:
    """An error in its one shape."""
    return Reply(problem.status_code, bytes(problem.response().body), MEDIA_TYPE, retry_after_seconds)


def on_the_bus(reply: Reply) -> bytes:
    """`{"status": …, "answer": …}`: what a reply is on `rpc.metering.*`."""
    return b'{"status":%d,"answer":%b}' % (reply.status, reply.body)
