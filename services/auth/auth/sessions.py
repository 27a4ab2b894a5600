"""Sessions: each a family of refresh tokens, every one of which is good once, for the next.

One that is used a second time within `GRACE` of its rotation is taken for another tab of the same browser, which lost
a race: it gets nothing, and the session lives. Later it is taken for theft, and the session ends with all its tokens.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from aragora.billing.jwt_auth import (
    JWTConfig,
    TokenPair,
    TokenPayload,
    create_access_token,
    create_token_pair,
)
from aragora.contracts.ids import new_id
from auth.acts import Act, queries
from auth.organizations import first_organization, membership_of
from auth.revocations import end_session, hold_user
from auth.users import User, load

GRACE = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Place:
    """An organization, and what the person is there."""

    org_id: str | None
    role: str


NOWHERE = Place(None, "member")


async def begin(act: Act, user: User, org_id: str | None = None) -> tuple[TokenPair, Place]:
    """A new session, in this organization or the person's first; and where that is."""
    session_id, refresh_jti = str(new_id()), str(new_id())
    place = await place_of(act, user.user_id, org_id)
    expires_at = act.now + JWTConfig.from_environment().refresh_lifetime
    caller = act.caller
    await act.connection.execute(
        queries.begin_session, session_id, user.user_id, place.org_id, refresh_jti, act.now, expires_at,
        caller.address, caller.program,
    )  # fmt: skip
    return _tokens(act, user, place, session_id, refresh_jti), place


async def place_of(act: Act, user_id: str, org_id: str | None) -> Place:
    """Where a person is: in this organization, if they are still a member, else in their first, else nowhere."""
    if org_id is not None and (role := await membership_of(act.connection, user_id, org_id)) is not None:
        return Place(org_id, role)
    first = await first_organization(act.connection, user_id)
    return NOWHERE if first is None else Place(*first)


async def refresh(act: Act, presented: TokenPayload) -> TokenPair | Literal["unknown", "late", "stolen"]:
    """The next tokens of a session, for its one good refresh token.

    Otherwise `unknown`: the session is over; `late`: another tab was faster; `stolen`: it has ended just now.
    """
    if presented.session_id is None or not await hold_user(act, presented.user_id):
        return "unknown"
    row = await act.connection.fetchrow(queries.session_to_refresh, presented.session_id, presented.user_id, act.now)
    if row is None:
        return "unknown"
    if row["refresh_jti"] != presented.jti:
        if row["previous_jti"] == presented.jti and act.now - row["rotated_at"] <= GRACE:
            return "late"
        await end_session(act, presented.user_id, presented.session_id, "refresh_token_reused")
        await act.note(
            "refresh_token_reused", user_id=presented.user_id, succeeded=False, session_id=presented.session_id
        )
        return "stolen"
    user = await load(act.connection, presented.user_id)
    place = await place_of(act, user.user_id, row["org_id"])
    refresh_jti = str(new_id())
    expires_at = act.now + JWTConfig.from_environment().refresh_lifetime
    await act.connection.execute(
        queries.rotate_session, presented.session_id, refresh_jti, place.org_id, act.now, expires_at
    )
    return _tokens(act, user, place, presented.session_id, refresh_jti)


def _tokens(act: Act, user: User, place: Place, session_id: str, refresh_jti: str) -> TokenPair:
    return create_token_pair(
        user.user_id,
        user.email,
        place.org_id,
        place.role,
        session_id=session_id,
        operator=user.is_operator,
        issued_at=act.now,
        refresh_token_id=refresh_jti,
    )


async def switch(act: Act, user: User, session_id: str, org_id: str) -> str | None:
    """An access token of the session for another organization, which it stays in. None: the person is no member there,
    or the session is over.
    """
    await hold_user(act, user.user_id)
    role = await membership_of(act.connection, user.user_id, org_id)
    if role is None or not await act.connection.fetchval(queries.move_session, session_id, user.user_id, org_id):
        return None
    return create_access_token(
        user.user_id, user.email, org_id, role, session_id=session_id, operator=user.is_operator, issued_at=act.now
    )
