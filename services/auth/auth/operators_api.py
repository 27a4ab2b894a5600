"""HTTP for the platform's operators, who are asked for help: find an account, unlock it, end what is not to go on."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response, Security

from aragora.chassis.answering import answer, documented
from aragora.chassis.bodies import Body
from aragora.chassis.problems import Problem, responses
from aragora.chassis.security import Principal, require
from aragora.chassis.sql import Connection
from aragora.contracts.keys import OPERATOR
from auth import account_answers, accounts_api, answers, second_factor_api, users
from auth.acts import queries
from auth.bodies import Email, Reason, normalized
from auth.callers import act_of
from auth.revocations import end_all
from auth.users import User

router = APIRouter(prefix="/api/auth/users", tags=["operators"])

UserId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Operator = Annotated[Principal, Security(require(OPERATOR))]


class RevocationOfAll(Body):
    """Why: a word for the log, such as `left_company`."""

    reason: Reason = "operator"


class Find(Body):
    """The account's e-mail address. In a body, because a URL may be logged on its way."""

    email: Email


@router.post(
    "/find",
    summary="Whose address is this?",
    responses=documented(answers.Success[account_answers.Me], "The account, and where it belongs")
    | responses(400, 401, 403, 404, 422, 503),
)
async def find(request: Request, principal: Operator, body: Find) -> Response:
    """The account of an e-mail address, and its organizations. That it was looked at is noted in the audit log."""
    email = normalized(body.email)
    async with act_of(request, principal) as act:
        row = await act.connection.fetchrow(queries.user_by_email, email)
        if row is None:
            raise Problem(404, "No account has this address.")
        user = User.of(row)
        await act.note("account_looked_up", user_id=user.user_id)
        return answer(answers.Success(await accounts_api.read_me(act, user, None)))


@router.post(
    "/{user_id}/revoke",
    summary="Revoke all of a person's tokens",
    responses=documented(answers.Done, "Revoked") | responses(400, 401, 403, 404, 422, 503),
)
async def revoke_user(request: Request, principal: Operator, user_id: UserId, body: RevocationOfAll) -> Response:
    """For operators: ends every session, and revokes every token that the person has."""
    async with act_of(request, principal) as act:
        await _demand_user(act.connection, user_id)
        await end_all(act, user_id, body.reason)
        await act.note("user_tokens_revoked", user_id=user_id, reason=body.reason)
    return answer(answers.Done(message="All tokens revoked successfully"))


@router.post(
    "/{user_id}/unlock",
    summary="Let a locked-out person try again",
    responses=documented(answers.Done, "Unlocked") | responses(401, 403, 404, 422, 503),
)
async def unlock(request: Request, principal: Operator, user_id: UserId) -> Response:
    """For operators: forgets the account's failed attempts. Those of a network address pass by themselves."""
    async with act_of(request, principal) as act:
        await users.unlock(act, request, await _demand_user(act.connection, user_id))
        await act.note("unlocked", user_id=user_id)
    return answer(answers.Done(message="The account is unlocked"))


@router.post(
    "/{user_id}/disable-2fa",
    summary="Switch a lost second factor off",
    responses=documented(answers.Done, "Off") | responses(401, 403, 404, 422, 503),
)
async def disable_second_factor(request: Request, principal: Operator, user_id: UserId) -> Response:
    """For somebody who has lost authenticator and recovery codes. Be sure that it is them: the password is enough then.

    Ends every session.
    """
    async with act_of(request, principal) as act:
        await _demand_user(act.connection, user_id)
        await second_factor_api.switch_off(act, user_id)
        await end_all(act, user_id, "second_factor_disabled")
    return answer(answers.Done(message="The second factor is off"))


async def _demand_user(connection: Connection, user_id: str) -> User:
    row = await connection.fetchrow(queries.user_by_id, user_id)
    if row is None:
        raise Problem(404, "There is no such account.")
    return User.of(row)
