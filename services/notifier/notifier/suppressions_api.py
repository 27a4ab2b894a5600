"""HTTP for operators: addresses that get no mail, as the mail provider's reports of bounces say."""

from typing import Annotated

from fastapi import APIRouter, Request, Response, Security
from pydantic import Field

from aragora.chassis.answering import answer, documented
from aragora.chassis.bodies import Body, invalid
from aragora.chassis.problems import responses
from aragora.chassis.sealing import Sealer
from aragora.chassis.security import require
from aragora.contracts.keys import OPERATOR
from notifier import suppressions
from notifier.answers import Done
from notifier.callers import clock_of, pool_of

router = APIRouter(
    prefix="/api/notifications/suppressions", tags=["suppressions"], dependencies=[Security(require(OPERATOR))]
)
refused = responses(400, 401, 403, 422, 503)


class SuppressedAddress(Body):
    """Whose mail it is about."""

    email: Annotated[str, Field(min_length=3, max_length=320)]


@router.post("", summary="Suppress an address", responses=documented(Done, "Suppressed") | refused)
async def suppress(request: Request, body: SuppressedAddress) -> Response:
    """Nothing is sent there any more. Addresses that the mail server itself refuses need not be told."""
    try:
        await suppressions.suppress(pool_of(request), _sealer(request), body.email, clock_of(request)())
    except ValueError as error:
        raise invalid("email", str(error)) from error
    return answer(Done(message="No mail is sent there any more"))


@router.post("/release", summary="Release an address", responses=documented(Done, "Released") | refused)
async def release(request: Request, body: SuppressedAddress) -> Response:
    """Mail is sent there again, also where the mail server had refused it."""
    try:
        await suppressions.release(pool_of(request), _sealer(request), body.email)
    except ValueError as error:
        raise invalid("email", str(error)) from error
    return answer(Done(message="Mail may be sent there again"))


def _sealer(request: Request) -> Sealer:
    sealer: Sealer = request.app.state.notifier_sealer
    return sealer
