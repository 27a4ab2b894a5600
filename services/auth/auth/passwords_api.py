"""HTTP for passwords: change it, and get back in without it."""

from fastapi import APIRouter, Request, Response

from aragora.chassis.answering import answer, documented
from aragora.chassis.bodies import Body, invalid
from aragora.chassis.problems import responses
from aragora.contracts.events import EmailVerified, PasswordChanged
from aragora.contracts.ids import new_id
from auth import accounts_api, answers, attempts, messages, users
from auth.acts import Act, queries
from auth.bodies import Code, Email, Password, Token, normalized
from auth.callers import Person, act_of, clock_of, pool_of, sealer_of
from auth.messages import InvalidMessageToken
from auth.revocations import end_all, hold_user, stream_of
from auth.users import User

router = APIRouter(prefix="/api/auth", tags=["passwords"])


class PasswordChange(Body):
    """`code`: where the account has a second factor."""

    current_password: Password
    new_password: Password
    code: Code | None = None


class Forgotten(Body):
    """Whose password."""

    email: Email


class PasswordReset(Body):
    """The secret of the letter, and the new password."""

    token: Token
    password: Password


@router.post(
    "/change-password",
    summary="Change the password",
    responses=accounts_api.answers_signed_in | responses(400, 401, 403, 422, 429, 503),
)
async def change_password(request: Request, principal: Person, body: PasswordChange) -> Response:
    """Ends every session, this one too, and begins a new one: use the tokens of the answer."""
    await users.confirm(request, principal, body.current_password, body.code)
    async with act_of(request, principal) as act:
        user = await users.load(act.connection, principal.subject)
    hashed = await _hashed(request, user, body.new_password, "new_password")
    async with act_of(request, principal) as act:
        await _change(act, user, hashed, PasswordChanged(user_id=user.user_id, how="changed"))
        begun = await accounts_api.signed_in(act, user, principal.org_id)
    return answer(answers.Success(begun))


@router.post(
    "/forgot-password",
    status_code=202,
    summary="Ask for a new password",
    responses=documented(answers.Done, "A letter follows, if there is an account", status=202)
    | responses(400, 422, 503),
)
async def forgot_password(request: Request, body: Forgotten) -> Response:
    """The answer is the same for every address, and takes equally long. A letter is sent at most once a minute."""
    email = normalized(body.email)
    await pool_of(request).execute(queries.request_reset, str(new_id()), email, clock_of(request)())
    return answer(
        answers.Done(message="If there is an account with this address, a letter is on its way to it"), status=202
    )


@router.post(
    "/reset-password",
    summary="Set a new password",
    responses=documented(answers.Done, "Set") | responses(400, 422, 503),
)
async def reset_password(request: Request, body: PasswordReset) -> Response:
    """With the secret of the letter. Ends every session. A second factor stays on: sign in with it."""
    try:
        # Once to know whose it is, and once to use it up, when the password is found to be good.
        async with pool_of(request).acquire() as connection:
            letter = await messages.read(
                connection, sealer_of(request), "reset_password", body.token, clock_of(request)()
            )
            user = await users.load(connection, letter["user_id"])
        hashed = await _hashed(request, user, body.password, "password")
        async with act_of(request) as act:
            act.caller = act.caller.signed_in_as(user.user_id)
            await hold_user(act, user.user_id)  # before the letter, as whoever erases them does
            await messages.redeem(act.connection, sealer_of(request), "reset_password", body.token, act.now)
            await _change(act, user, hashed, PasswordChanged(user_id=user.user_id, how="reset"))
            if user.email_verified_at is None:
                await act.connection.execute(queries.verify_email, user.user_id, act.now)
                await act.say(EmailVerified(user_id=user.user_id), stream_of(user.user_id))
            await attempts.forget_failures(act.connection, users.account_keys(request, user))
    except InvalidMessageToken as error:
        raise invalid("token", str(error)) from error
    return answer(answers.Done(message="Password set; sign in with it"))


async def _hashed(request: Request, user: User, password: str, field: str) -> str:
    hasher = users.hasher_of(request)
    async with hasher.turn():
        weakness = await hasher.weakness(password, [user.email, user.name or ""])
        if weakness is not None:
            raise invalid(field, weakness)
        return await hasher.hash(password)


async def _change(act: Act, user: User, hashed: str, changed: PasswordChanged) -> None:
    await end_all(act, user.user_id, "password_changed")
    await act.connection.execute(queries.set_password, user.user_id, hashed)
    await act.connection.execute(queries.use_up_letters, user.user_id, "reset_password", act.now)
    await act.say(changed, stream_of(user.user_id))
    await act.note("password_changed", user_id=user.user_id, how=changed.how)
