"""HTTP for accounts: register, sign in, who am I, is this address mine."""

from typing import Annotated, Any

import asyncpg
from fastapi import APIRouter, Request, Response
from pydantic import Field

from aragora.billing.jwt_auth import jwks
from aragora.chassis.answering import answer, documented
from aragora.chassis.bodies import Body, invalid
from aragora.chassis.problems import Problem, responses
from aragora.contracts.events import EmailVerificationRequested, EmailVerified, UserRegistered
from aragora.contracts.ids import new_id
from auth import account_answers, answers, attempts, invitations, messages, organizations, sessions, users
from auth.acts import Act, queries
from auth.bodies import Code, Email, Password, PersonName, Token, normalized
from auth.callers import Person, act_of, address_of, clock_of, pool_of, sealer_of
from auth.messages import InvalidMessageToken
from auth.organization_answers import OrganizationName
from auth.revocations import hold_user, stream_of
from auth.users import User

router = APIRouter(tags=["auth"])

EMAIL_TAKEN = "This e-mail address has an account already: sign in, or reset its password."
answers_signed_in = documented(answers.Success[account_answers.SignedIn], "Signed in")


class Registration(Body):
    """A new account. `invitation`: the secret of a letter; with it, one joins that organization and founds none."""

    email: Email
    password: Password
    name: PersonName | None = None
    organization: OrganizationName | None = None
    invitation: Annotated[str, Field(max_length=200)] | None = None


class SignIn(Body):
    """`code`: where the account has a second factor. `org_id`: which organization to begin in."""

    email: Email
    password: Password
    code: Code | None = None
    org_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None


class LetterToken(Body):
    """The secret of a letter."""

    token: Token


class Profile(Body):
    """What a person may change of their account."""

    name: PersonName | None


@router.post(
    "/api/auth/register",
    status_code=201,
    summary="Register",
    responses=documented(answers.Success[account_answers.SignedIn], "Registered, and signed in", status=201)
    | responses(400, 403, 409, 422, 429, 503),
)
async def register(request: Request, body: Registration) -> Response:
    """Makes an account with an organization of its own, on the default plan, and signs in. A letter asks to verify the
    address. The answer says if the address has an account already; who tries many is locked out for a while.
    """
    email = normalized(body.email)
    hasher, sealer = users.hasher_of(request), sealer_of(request)
    keys = attempts.keys_of(sealer, email, address_of(request))[1:]
    async with hasher.turn():
        async with pool_of(request).acquire() as connection:
            await attempts.demand_unlocked(connection, keys, clock_of(request)())
            taken = await connection.fetchval(queries.email_exists, email)
        if not taken:
            weakness = await hasher.weakness(body.password, [email, body.name or "", body.organization or ""])
            if weakness is not None:
                raise invalid("password", weakness)
            hashed = await hasher.hash(body.password)
            async with act_of(request) as act:
                user = await _open_account(act, email, body.name, hashed)
                if user is not None:
                    if body.invitation is not None:
                        org_id = await _join(act, request, user, body.invitation)
                        user = await users.load(act.connection, user.user_id)
                    else:
                        org_id = await organizations.create(act, user.user_id, body.organization)
                    if user.email_verified_at is None:
                        await ask_to_verify(act, user)
                    return answer(answers.Success(await signed_in(act, user, org_id)), status=201)
    async with act_of(request) as act:
        await attempts.count_failure(act.connection, keys, act.now)
    raise Problem(409, EMAIL_TAKEN)


async def _open_account(act: Act, email: str, name: str | None, password_hash: str) -> User | None:
    user_id = str(new_id())
    row = await act.connection.fetchrow(queries.open_account, user_id, email, name, password_hash, False, act.now)
    if row is None:
        return None  # somebody was faster
    act.caller = act.caller.signed_in_as(user_id)
    await act.say(UserRegistered(user_id=user_id), stream_of(user_id))
    await act.note("registered", user_id=user_id)
    return User.of(row)


async def _join(act: Act, request: Request, user: User, invitation: str) -> str:
    """By way of an invitation, which also shows that the address is theirs."""
    org_id = await invitations.accept_or_refuse(act, sealer_of(request), invitation, user.user_id, user.email)
    await act.connection.execute(queries.verify_email, user.user_id, act.now)
    await act.say(EmailVerified(user_id=user.user_id), stream_of(user.user_id))
    return org_id


async def ask_to_verify(act: Act, user: User) -> None:
    """Have a letter sent that asks whether the address is theirs."""
    message_id, expires_at = await messages.write(act, "verify_email", user.email, user_id=user.user_id)
    asked = EmailVerificationRequested(user_id=user.user_id, message_id=message_id, expires_at=expires_at)
    await act.say(asked, stream_of(user.user_id))


@router.post("/api/auth/login", summary="Sign in", responses=answers_signed_in | responses(400, 401, 422, 429, 503))
async def login(request: Request, body: SignIn) -> Response:
    """Begins a session. Wrong addresses and wrong passwords are told apart by nothing.

    An account with a second factor needs a `code`: without one, the answer is 401 and names it in `errors`.
    """
    user = await users.prove(request, normalized(body.email), body.password, body.code)
    async with act_of(request) as act:
        act.caller = act.caller.signed_in_as(user.user_id)
        await hold_user(act, user.user_id)
        user = await users.load(act.connection, user.user_id)
        begun = await signed_in(act, user, body.org_id)
        await act.note("sign_in", user_id=user.user_id)
    return answer(answers.Success(begun))


@router.get(
    "/api/auth/me",
    summary="Who am I",
    responses=documented(answers.Success[account_answers.Me], "The account") | responses(401, 403, 503),
)
async def who_am_i(request: Request, principal: Person) -> Response:
    """The account, the organization that the token is for, and all others that one belongs to, as of now."""
    async with act_of(request, principal) as act:
        user = await users.load(act.connection, principal.subject)
        return answer(answers.Success(await read_me(act, user, principal.org_id)))


@router.patch(
    "/api/auth/me",
    summary="Change my name",
    responses=documented(answers.Success[account_answers.Me], "The account") | responses(400, 401, 403, 422, 503),
)
async def change_profile(request: Request, principal: Person, body: Profile) -> Response:
    """The name that other members see; null: none."""
    async with act_of(request, principal) as act:
        await act.connection.execute(queries.rename_user, principal.subject, body.name)
        await act.note("profile_changed", user_id=principal.subject)
        user = await users.load(act.connection, principal.subject)
        return answer(answers.Success(await read_me(act, user, principal.org_id)))


@router.post(
    "/api/auth/verify-email",
    summary="Verify the e-mail address",
    responses=documented(answers.Done, "Verified") | responses(400, 422, 503),
)
async def verify_email(request: Request, body: LetterToken) -> Response:
    """With the secret of the letter that came to the address."""
    try:
        async with act_of(request) as act:
            letter = await messages.read(act.connection, sealer_of(request), "verify_email", body.token, act.now)
            user_id = letter["user_id"]
            # The person first, then the letter, as whoever erases them does.
            await hold_user(act, user_id)
            await messages.redeem(act.connection, sealer_of(request), "verify_email", body.token, act.now)
            act.caller = act.caller.signed_in_as(user_id)
            await act.connection.execute(queries.verify_email, user_id, act.now)
            await act.say(EmailVerified(user_id=user_id), stream_of(user_id))
            await act.note("email_verified", user_id=user_id)
    except InvalidMessageToken as error:
        raise invalid("token", str(error)) from error
    return answer(answers.Done(message="E-mail address verified"))


@router.post(
    "/api/auth/verify-email/resend",
    status_code=202,
    summary="Send the letter again",
    responses=documented(answers.Done, "It will be sent", status=202) | responses(401, 403, 429, 503),
)
async def resend(request: Request, principal: Person) -> Response:
    """A new letter, at most one a minute. The ones before stay good until they expire."""
    async with act_of(request, principal) as act:
        await hold_user(act, principal.subject)
        user = await users.load(act.connection, principal.subject)
        if user.email_verified_at is not None:
            return answer(answers.Done(message="The e-mail address is verified already"), status=202)
        if await act.connection.fetchval(queries.letter_written_lately, user.user_id, "verify_email", act.now):
            raise Problem(429, "A letter was sent a moment ago; wait a minute.", headers={"Retry-After": "60"})
        await ask_to_verify(act, user)
    return answer(answers.Done(message="A letter is on its way"), status=202)


@router.get("/.well-known/jwks.json", summary="Keys that verify access tokens")
async def json_web_keys() -> dict[str, Any]:
    """The public keys (RFC 7517), for programs in any language. None of them, where a shared secret signs."""
    return jwks()


async def signed_in(act: Act, user: User, org_id: str | None) -> account_answers.SignedIn:
    """Begin a session, and say whose and where it is."""
    pair, place = await sessions.begin(act, user, org_id)
    me = await read_me(act, user, place.org_id)
    return account_answers.SignedIn(
        pair.access_token, pair.refresh_token, pair.expires_in, user=me.user, organization=me.organization
    )


async def read_me(act: Act, user: User, org_id: str | None) -> account_answers.Me:
    """What a person is told about themselves."""
    found = [_membership(row) for row in await act.connection.fetch(queries.memberships_of, user.user_id)]
    here = next((one for one in found if one.org_id == org_id), None)
    return account_answers.Me(account(user), here, found)


def account(user: User) -> account_answers.Account:
    """An account as its owner sees it."""
    return account_answers.Account(
        user.user_id,
        user.email,
        user.name,
        user.email_verified_at is not None,
        user.totp_enabled_at is not None,
        user.is_operator,
        user.created_at,
    )


def _membership(row: asyncpg.Record) -> account_answers.Membership:
    return account_answers.Membership(row["org_id"], row["name"], row["slug"], row["role"])
