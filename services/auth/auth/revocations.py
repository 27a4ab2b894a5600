"""Ending tokens before their time. In an act; the bus tells everybody who verifies tokens.

Each of these holds the person's row, which is what their stream is about.
"""

from datetime import UTC, datetime, timedelta

from aragora.billing.jwt_auth import JWTConfig
from aragora.contracts.events import TokenRevoked, UserTokensRevoked
from auth.acts import Act, queries


def stream_of(user_id: str) -> str:
    """The stream of all that concerns one person."""
    return f"user/{user_id}"


async def hold_user(act: Act, user_id: str) -> bool:
    """Keep others from the person's row until the end of the act. Whether there is one.

    The act's moment is from then on that at which the row was got: whoever had it before, and made a token, made it
    earlier.
    """
    held = await act.connection.fetchval(queries.hold_user, user_id) is True
    act.now = act.clock()
    return held


async def revoke_token(act: Act, user_id: str, token_jti: str, expires_at: datetime, reason: str) -> None:
    """End one token."""
    await hold_user(act, user_id)
    revoked = TokenRevoked(user_id=user_id, token_jti=token_jti, expires_at=expires_at, reason=reason)
    await act.say(revoked, stream_of(user_id))


async def end_session(act: Act, user_id: str, session_id: str, reason: str) -> bool:
    """End a session: its refresh token and every access token that it gave. Whether it was still going."""
    await hold_user(act, user_id)
    if await act.connection.fetchval(queries.end_session, session_id, user_id, act.now, reason) is None:
        return False
    # Its refresh tokens are asked of the database: what must be remembered elsewhere ends with the access tokens.
    expires_at = act.now + JWTConfig.from_environment().access_lifetime + timedelta(minutes=1)
    revoked = TokenRevoked(user_id=user_id, session_id=session_id, expires_at=expires_at, reason=reason)
    await act.say(revoked, stream_of(user_id))
    return True


async def end_all(act: Act, user_id: str, reason: str) -> None:
    """End every session and every token that the person has."""
    await hold_user(act, user_id)
    await act.connection.execute(queries.end_sessions_of_user, user_id, act.now, reason)
    revoked = UserTokensRevoked(user_id=user_id, issued_before=act.now, reason=reason)
    await act.say(revoked, stream_of(user_id))


async def end_tokens_for(act: Act, user_id: str, org_id: str, reason: str) -> None:
    """End the person's access tokens for one organization. Their sessions go on: the next token says how things are."""
    await hold_user(act, user_id)
    revoked = UserTokensRevoked(user_id=user_id, org_id=org_id, issued_before=act.now, reason=reason)
    await act.say(revoked, stream_of(user_id))


def moment_of(seconds: float) -> datetime:
    """A token's time (seconds since 1970) as a moment in UTC."""
    return datetime.fromtimestamp(seconds, UTC)
