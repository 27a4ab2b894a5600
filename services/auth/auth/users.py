"""People: proving who one is, and what follows when that fails."""

from dataclasses import dataclass
from datetime import datetime

import asyncpg
from fastapi import Request

from aragora.chassis.problems import Problem
from aragora.chassis.security import Principal
from aragora.chassis.sql import Connection
from aragora.contracts.events import AccountLocked
from auth import attempts, metrics, second_factor
from auth.acts import Act, acting, queries
from auth.callers import address_of, caller_of, clock_of, pool_of, sealer_of
from auth.hashing import Hasher
from auth.revocations import hold_user, stream_of

WRONG = "E-mail address and password do not belong together."


@dataclass(frozen=True, slots=True)
class User:
    """An account, as its row says. Nothing of it goes into a log or an event but the id."""

    user_id: str
    email: str
    name: str | None
    password_hash: str
    is_operator: bool
    email_verified_at: datetime | None
    totp_secret: bytes | None
    totp_enabled_at: datetime | None
    created_at: datetime

    @classmethod
    def of(cls, row: asyncpg.Record) -> "User":
        """From a row of `user_by_id` or `user_by_email`."""
        return cls(**row)


async def load(connection: Connection, user_id: str) -> User:
    """The account of somebody who is signed in.

    Raises:
        Problem: 401, it is no more.
    """
    row = await connection.fetchrow(queries.user_by_id, user_id)
    if row is None:
        raise Problem(401, "This account is no more.", headers={"WWW-Authenticate": 'Bearer realm="aragora"'})
    return User.of(row)


def hasher_of(request: Request) -> Hasher:
    """What hashes passwords."""
    hasher: Hasher = request.app.state.auth_hasher
    return hasher


async def confirm(request: Request, principal: Principal, password: str, code: str | None) -> None:
    """Have somebody who is signed in show once more that it is them, before something that cannot be undone.

    Raises:
        Problem: 401, 429: as for `prove`.
    """
    async with pool_of(request).acquire() as connection:
        email = await connection.fetchval(queries.email_of, principal.subject)
    await prove(request, email or "", password, code)


async def prove(request: Request, email: str, password: str, code: str | None) -> User:
    """The account of which this is the password, and the code where there is a second factor.

    Everything takes as long, and answers the same, for an address without an account.

    Raises:
        Problem: 401, something is wrong, or the code is missing; 429, too much was wrong before; 503, too many at once.
    """
    try:
        user = await _prove(request, email, password, code)
    except Problem as problem:
        if (outcome := _OUTCOMES.get(problem.status_code)) is not None:
            metrics.sign_ins.labels(outcome).inc()
        raise
    metrics.sign_ins.labels("succeeded").inc()
    return user


async def _prove(request: Request, email: str, password: str, code: str | None) -> User:
    hasher, sealer = hasher_of(request), sealer_of(request)
    keys = attempts.keys_of(sealer, email, address_of(request))
    async with hasher.turn():
        async with pool_of(request).acquire() as connection:
            await attempts.demand_unlocked(connection, keys, clock_of(request)())
            row = await connection.fetchrow(queries.user_by_email, email)
        good = await hasher.verify(password, row["password_hash"] if row else None)
        user = User.of(row) if row else None
        renewed = await hasher.hash(password) if good and user and hasher.outdated(user.password_hash) else None
        async with acting(pool_of(request), clock_of(request), caller_of(request)) as act:
            if good and user is not None:
                proven = await _use_second_factor(act, request, user, code)
                if proven:
                    await attempts.forget_failures(act.connection, keys)
                    if renewed is not None:
                        await act.connection.execute(queries.renew_hash, user.user_id, user.password_hash, renewed)
                    return user
            await _fail(act, user, keys)
    raise Problem(401, WRONG if not good else "The code is wrong, or was used already.", headers=_CHALLENGE)


_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="aragora"'}
_OUTCOMES = {401: "refused", 429: "locked"}


async def _use_second_factor(act: Act, request: Request, user: User, code: str | None) -> bool:
    if user.totp_enabled_at is None or user.totp_secret is None:
        return True
    if code is None:
        missing = "send the six digits that your authenticator shows, or one of your recovery codes"
        detail = "This account has a second factor: a code is needed too."
        raise Problem(401, detail, errors=[(None, "code", missing)], headers=_CHALLENGE)
    return await second_factor.use_code(
        act.connection, sealer_of(request), user.user_id, user.totp_secret, code, act.now
    )


async def _fail(act: Act, user: User | None, keys: attempts.Keys) -> None:
    user_id = user.user_id if user else None
    if user_id is not None:
        await hold_user(act, user_id)
    locked = await attempts.count_failure(act.connection, keys, act.now)
    await act.note("sign_in", user_id=user_id, succeeded=False, locked=locked is not None)
    if locked is not None and user_id is not None:
        failures, until = locked
        await act.say(AccountLocked(user_id=user_id, failures=failures, until=until), stream_of(user_id))


def account_keys(request: Request, user: User) -> attempts.Keys:
    """Under which the account's failures are counted."""
    return attempts.keys_of(sealer_of(request), user.email, "")[:1]


async def unlock(act: Act, request: Request, user: User) -> None:
    """Forget the account's failures."""
    await attempts.forget_failures(act.connection, account_keys(request, user))
