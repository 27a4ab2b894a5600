"""HTTP for the second factor: set it up, switch it on and off, new recovery codes."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from aragora.chassis.answering import answer, documented
from aragora.chassis.bodies import Body, invalid
from aragora.chassis.problems import Problem, responses
from aragora.contracts.events import SecondFactorChanged
from auth import account_answers, answers, second_factor, users
from auth.acts import Act, queries
from auth.bodies import Code, Password
from auth.callers import Person, act_of, sealer_of
from auth.revocations import hold_user, stream_of

router = APIRouter(prefix="/api/auth/2fa", tags=["second factor"])


class Confirmation(Body):
    """The password, once more; and a code, where there is a second factor already."""

    password: Password
    code: Code | None = None


class FirstCode(Body):
    """What the authenticator shows."""

    code: Annotated[str, Field(pattern=r"^[0-9]{6}$")]


@router.post(
    "/setup",
    summary="Begin to set it up",
    responses=documented(answers.Success[account_answers.SecondFactorSecret], "For the authenticator")
    | responses(400, 401, 403, 409, 422, 429, 503),
)
async def set_up(request: Request, principal: Person, body: Confirmation) -> Response:
    """A new secret for an authenticator. Nothing changes before `enable` has got a code that it shows."""
    await users.confirm(request, principal, body.password, body.code)
    secret = second_factor.new_secret()
    async with act_of(request, principal) as act:
        user = await users.load(act.connection, principal.subject)
        sealed = sealer_of(request).seal(secret)
        if await act.connection.fetchval(queries.set_up_totp, user.user_id, sealed) is None:
            raise Problem(409, "The second factor is on: switch it off first.")
    url = second_factor.provisioning_url(secret, user.email)
    return answer(answers.Success(account_answers.SecondFactorSecret(secret, url)))


@router.post(
    "/enable",
    summary="Switch it on",
    responses=documented(answers.Success[account_answers.RecoveryCodes], "Keep these")
    | responses(400, 401, 403, 409, 422, 503),
)
async def enable(request: Request, principal: Person, body: FirstCode) -> Response:
    """With the first code that the authenticator shows. Signing in needs one from now on."""
    async with act_of(request, principal) as act:
        await hold_user(act, principal.subject)
        user = await users.load(act.connection, principal.subject)
        if user.totp_enabled_at is not None or user.totp_secret is None:
            state = "is on already" if user.totp_enabled_at else "is not set up: POST /api/auth/2fa/setup first"
            raise Problem(409, f"The second factor {state}.")
        step = second_factor.step_of(sealer_of(request).open(user.totp_secret), body.code, act.now)
        if step is None:
            raise invalid("code", "is not what the authenticator shows now; is its clock right?")
        await act.connection.execute(queries.enable_totp, user.user_id, act.now, step)
        codes = await _new_codes(act, user.user_id)
        await _tell(act, user.user_id, enabled=True)
    return answer(answers.Success(account_answers.RecoveryCodes(codes)))


@router.post(
    "/disable",
    summary="Switch it off",
    responses=documented(answers.Done, "Off") | responses(400, 401, 403, 422, 429, 503),
)
async def disable(request: Request, principal: Person, body: Confirmation) -> Response:
    """The password is enough again."""
    await users.confirm(request, principal, body.password, body.code)
    async with act_of(request, principal) as act:
        await switch_off(act, principal.subject)
    return answer(answers.Done(message="The second factor is off"))


@router.post(
    "/recovery-codes",
    summary="New recovery codes",
    responses=documented(answers.Success[account_answers.RecoveryCodes], "The old ones count no more")
    | responses(400, 401, 403, 409, 422, 429, 503),
)
async def renew_codes(request: Request, principal: Person, body: Confirmation) -> Response:
    """Ten new ones. They are shown this once."""
    await users.confirm(request, principal, body.password, body.code)
    async with act_of(request, principal) as act:
        await hold_user(act, principal.subject)
        if (await users.load(act.connection, principal.subject)).totp_enabled_at is None:
            raise Problem(409, "The second factor is off: there is nothing to recover.")
        codes = await _new_codes(act, principal.subject)
        await act.note("recovery_codes_renewed", user_id=principal.subject)
    return answer(answers.Success(account_answers.RecoveryCodes(codes)))


async def switch_off(act: Act, user_id: str) -> None:
    """Let the password be enough again."""
    await hold_user(act, user_id)
    await act.connection.execute(queries.disable_totp, user_id)
    await act.connection.execute(queries.drop_recovery_codes, user_id)
    await _tell(act, user_id, enabled=False)


async def _new_codes(act: Act, user_id: str) -> list[str]:
    codes = second_factor.new_recovery_codes()
    await act.connection.execute(queries.drop_recovery_codes, user_id)
    await act.connection.execute(queries.keep_recovery_codes, user_id, [second_factor.digest_of(one) for one in codes])
    return codes


async def _tell(act: Act, user_id: str, *, enabled: bool) -> None:
    await act.say(SecondFactorChanged(user_id=user_id, enabled=enabled), stream_of(user_id))
    await act.note("second_factor_changed", user_id=user_id, enabled=enabled)
