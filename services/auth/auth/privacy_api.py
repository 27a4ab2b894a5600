"""HTTP for people's data: to have all of it, and to have it erased."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response, Security

from aragora.chassis.answering import answer, documented
from aragora.chassis.bodies import Body
from aragora.chassis.problems import Problem, responses
from aragora.chassis.security import Principal, require
from aragora.chassis.store import VersionConflict
from aragora.contracts.keys import OPERATOR
from auth import answers, privacy, users
from auth.bodies import Code, Password
from auth.callers import Person, act_of
from auth.commands import Refused

router = APIRouter(tags=["privacy"])

UserId = Annotated[str, Path(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
Operator = Annotated[Principal, Security(require(OPERATOR))]


class Farewell(Body):
    """What shows once more that it is the person. `code`: where the account has a second factor."""

    password: Password
    code: Code | None = None


@router.get(
    "/api/auth/me/export",
    summary="All that is held about me",
    responses=documented(answers.Success[privacy.PersonalData], "Everything") | responses(401, 403, 503),
)
async def export(request: Request, principal: Person) -> Response:
    """Account, memberships, sessions, API keys, invitations, letters, and what the audit log says. No secrets."""
    async with act_of(request, principal) as act:
        await act.note("personal_data_exported", user_id=principal.subject)
        try:
            everything = await privacy.export(act.connection, principal.subject)
        except privacy.NoSuchPerson as error:
            raise Problem(401, str(error), headers={"WWW-Authenticate": 'Bearer realm="aragora"'}) from error
    shown = answer(answers.Success(everything))
    shown.headers["Cache-Control"] = "no-store"
    return shown


@router.delete(
    "/api/auth/me",
    summary="Erase me",
    responses=documented(answers.Done, "Erased") | responses(400, 401, 403, 409, 422, 429, 503),
)
async def erase_me(request: Request, principal: Person, body: Farewell) -> Response:
    """Closes the account and erases name, address and everything else that tells who the person is, in every service.

    It cannot be undone. What was used and paid stays on record, under an id that is nobody's. Organizations without
    other members are closed too; the last owner of one with members transfers or deletes it first (409).
    """
    await users.confirm(request, principal, body.password, body.code)
    return await _erase(request, principal, principal.subject)


@router.delete(
    "/api/auth/users/{user_id}",
    summary="Erase a person",
    responses=documented(answers.Done, "Erased, now or before") | responses(401, 403, 404, 409, 422, 503),
)
async def erase_person(request: Request, principal: Operator, user_id: UserId) -> Response:
    """For operators, who were asked to. Oneself one erases with the password: `DELETE /api/auth/me`."""
    if user_id == principal.subject:
        raise Problem(403, "Erase yourself with DELETE /api/auth/me, which asks for your password.")
    return await _erase(request, principal, user_id)


async def _erase(request: Request, principal: Principal, user_id: str) -> Response:
    try:
        async with act_of(request, principal) as act:
            await privacy.erase(act, user_id)
    except privacy.NoSuchPerson as error:
        raise Problem(404, str(error)) from error
    except Refused as error:
        raise Problem(409, str(error)) from error
    except VersionConflict as error:
        raise Problem(409, "The person's organizations are changing just now; look at them and try again.") from error
    return answer(answers.Done(message="Account erased"))
