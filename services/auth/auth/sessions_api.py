"""HTTP for sessions: refresh, sign out, revoke, look at where one is signed in, switch organization."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import Field

from aragora.billing.jwt_auth import JWTConfig, validate_access_token, validate_refresh_token
from aragora.chassis.answering import answer, documented
from aragora.chassis.bodies import Body, invalid
from aragora.chassis.problems import Problem, responses
from aragora.chassis.trust import Trust
from auth import account_answers, answers, metrics, sessions, users
from auth.acts import queries
from auth.bodies import Reason, Token
from auth.callers import Person, act_of, pool_of, token_of
from auth.revocations import end_all, end_session, moment_of, revoke_token

router = APIRouter(prefix="/api/auth", tags=["sessions"])

SessionId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="aragora", error="invalid_token"'}


class Refresh(Body):
    """The session's refresh token."""

    refresh_token: Token


class Revocation(Body):
    """Which token, and why: a word for the log, such as `device_lost`."""

    token: Token
    reason: Reason = "manual_revocation"


class OrganizationChoice(Body):
    """Which organization: its id or slug."""

    org_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


@router.post(
    "/refresh",
    summary="New tokens",
    responses=documented(answers.Success[account_answers.Tokens], "The next pair") | responses(400, 401, 409, 422, 503),
)
async def refresh(request: Request, body: Refresh) -> Response:
    """Trades the session's refresh token for the next pair; the old one is good for nothing any more.

    Two tabs that refresh at once: one gets the pair, the other 409 for ten seconds, and the session lives. A refresh
    token that is used again later was stolen, by whoever used it first or now: 401, and the session ends for both.
    """
    trust: Trust = request.app.state.trust
    trust.demand()
    presented = validate_refresh_token(body.refresh_token)
    if presented is None:
        raise Problem(401, "The refresh token is malformed, expired or revoked; sign in.", headers=_CHALLENGE)
    async with act_of(request) as act:
        act.caller = act.caller.signed_in_as(presented.user_id)
        outcome = await sessions.refresh(act, presented)
    match outcome:
        case "unknown":
            raise Problem(401, "The session has ended; sign in.", headers=_CHALLENGE)
        case "late":
            raise Problem(409, "This refresh token was traded in a moment ago: use the one that came for it.")
        case "stolen":
            metrics.refresh_reused.inc()
            detail = "This refresh token was used before: the session has ended, for it may be in other hands. Sign in."
            raise Problem(401, detail, headers=_CHALLENGE)
    return answer(answers.Success(account_answers.tokens(outcome)))


@router.post(
    "/logout",
    summary="Sign out",
    responses=documented(answers.Done, "Signed out") | responses(401, 403, 503),
)
async def logout(request: Request, principal: Person) -> Response:
    """Revokes the access token, and ends the session that it came from."""
    token = token_of(principal)
    async with act_of(request, principal) as act:
        if token.session_id is not None:
            await end_session(act, principal.subject, token.session_id, "user_logout")
        await revoke_token(act, principal.subject, token.jti, moment_of(token.exp), "user_logout")
        await act.note("sign_out", user_id=principal.subject)
    return answer(answers.Done(message="Logged out successfully"))


@router.post(
    "/logout-all",
    summary="Sign out everywhere",
    responses=documented(answers.Done, "Signed out everywhere") | responses(401, 403, 503),
)
async def logout_everywhere(request: Request, principal: Person) -> Response:
    """Ends every session, and revokes every token that one has, this one too."""
    async with act_of(request, principal) as act:
        await end_all(act, principal.subject, "user_logout_all")
        await act.note("sign_out_everywhere", user_id=principal.subject)
    return answer(answers.Done(message="Logged out everywhere"))


@router.post(
    "/revoke",
    summary="Revoke a token",
    responses=documented(answers.Done, "Revoked") | responses(400, 401, 403, 422, 503),
)
async def revoke(request: Request, principal: Person, body: Revocation) -> Response:
    """Revokes one's own access token, or with a refresh token its session. An operator may revoke anybody's."""
    token = validate_access_token(body.token) or validate_refresh_token(body.token)
    if token is None:
        raise invalid("token", "is no token that is still good: malformed, expired, or revoked already")
    if token.user_id != principal.subject and not principal.reaches_all:
        raise Problem(403, "This is somebody else's token.")
    async with act_of(request, principal) as act:
        if token.token_type == "refresh" and token.session_id is not None:  # noqa: S105  a kind of token
            await end_session(act, token.user_id, token.session_id, body.reason)
        await revoke_token(act, token.user_id, token.jti, moment_of(token.exp), body.reason)
        await act.note("token_revoked", user_id=token.user_id, token_jti=token.jti, reason=body.reason)
    return answer(answers.Done(message="Token revoked successfully"))


@router.get(
    "/sessions",
    summary="Where I am signed in",
    responses=documented(answers.Success[list[account_answers.Session]], "The one used last first")
    | responses(401, 403, 503),
)
async def list_sessions(request: Request, principal: Person) -> Response:
    """Sessions that go on. `current`: the one that this request came from."""
    rows = await pool_of(request).fetch(queries.sessions_of, principal.subject)
    here = token_of(principal).session_id
    found = [account_answers.Session(**row, current=row["session_id"] == here) for row in rows]
    return answer(answers.Success(found))


@router.delete(
    "/sessions/{session_id}",
    summary="Sign out elsewhere",
    responses=documented(answers.Done, "Ended") | responses(401, 403, 404, 422, 503),
)
async def end_one(request: Request, principal: Person, session_id: SessionId) -> Response:
    """Ends one of one's own sessions, with every token that it gave."""
    async with act_of(request, principal) as act:
        if not await end_session(act, principal.subject, session_id, "ended_by_user"):
            raise Problem(404, "You have no such session; it may have ended.")
        await act.note("session_ended", user_id=principal.subject, session_id=session_id)
    return answer(answers.Done(message="The session has ended"))


@router.post(
    "/switch-organization",
    summary="Act for another organization",
    responses=documented(answers.Success[account_answers.AccessToken], "A token for it")
    | responses(400, 401, 403, 422, 503),
)
async def switch_organization(request: Request, principal: Person, body: OrganizationChoice) -> Response:
    """An access token for another of one's organizations. The session goes on there: later tokens are for it too."""
    session_id = token_of(principal).session_id
    async with act_of(request, principal) as act:
        user = await users.load(act.connection, principal.subject)
        org_id = await act.connection.fetchval(queries.resolve_organization, body.org_id)
        token = await sessions.switch(act, user, session_id, org_id) if session_id and org_id else None
        if token is None:
            raise Problem(403, "You are not a member of this organization, or the session has ended.")
        await act.note("organization_switched", user_id=user.user_id, org_id=org_id)
    seconds = int(JWTConfig.from_environment().access_lifetime.total_seconds())
    return answer(answers.Success(account_answers.AccessToken(token, seconds)))
