"""What happens by itself: letters that were asked for are written, and what nobody needs any more is forgotten."""

import asyncio
from datetime import datetime, timedelta

import structlog

from aragora.chassis import inbox
from aragora.chassis.sql import Pool
from aragora.chassis.store import VersionConflict
from aragora.chassis.transient import is_transient
from aragora.contracts.events import PasswordResetRequested
from auth import attempts, messages
from auth.acts import Caller, Clock, acting, queries
from auth.revocations import hold_user, stream_of
from auth.users import User

POLL_SECONDS = 1.0
"""How long somebody who asked for a letter waits at most until it is on its way."""
BATCH = 100
FORGET_EVERY = timedelta(hours=1)
KEEP_MESSAGES = timedelta(days=7)
KEEP_SECURITY_EVENTS = timedelta(days=400)
KEEP_FAILURES = timedelta(days=35)

_log = structlog.get_logger(__name__)


async def keep_house(pool: Pool, clock: Clock, stop: asyncio.Event) -> None:
    """Again and again until `stop`."""
    forgotten_at: datetime | None = None
    while not stop.is_set():
        try:
            while await write_reset_letters(pool, clock) == BATCH:
                continue
            if forgotten_at is None or clock() - forgotten_at >= FORGET_EVERY:
                await forget(pool, clock())
                forgotten_at = clock()
        except Exception as error:
            if not is_transient(error) and not isinstance(error, VersionConflict):
                raise
            _log.warning("housekeeping was interrupted; trying again", reason=repr(error))
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await stop.wait()
        except TimeoutError:
            continue


async def write_reset_letters(pool: Pool, clock: Clock) -> int:
    """Write the letters to those who asked for a new password and have an account. Returns how many asked."""
    async with acting(pool, clock, Caller()) as act:
        asked = [row["email"] for row in await act.connection.fetch(queries.take_reset_requests, BATCH)]
        for email in sorted(set(asked)):
            row = await act.connection.fetchrow(queries.user_by_email, email)
            if row is None:
                continue
            user = User.of(row)
            await hold_user(act, user.user_id)
            if await act.connection.fetchval(queries.email_of, user.user_id) != email:
                continue  # erased meanwhile
            if await act.connection.fetchval(queries.letter_written_lately, user.user_id, "reset_password", act.now):
                continue
            message_id, expires_at = await messages.write(act, "reset_password", email, user_id=user.user_id)
            asked_for = PasswordResetRequested(user_id=user.user_id, message_id=message_id, expires_at=expires_at)
            await act.say(asked_for, stream_of(user.user_id))
            await act.note("password_reset_requested", user_id=user.user_id)
    return len(asked)


async def forget(pool: Pool, now: datetime) -> None:
    """Delete what has expired."""
    async with pool.acquire() as connection:
        await connection.execute(queries.forget_sessions, now)
        await connection.execute(queries.forget_old_failures, now - attempts.FORGOTTEN_AFTER)
        await connection.execute(queries.forget_messages, now - KEEP_MESSAGES)
        await connection.execute(queries.forget_security_events, now - KEEP_SECURITY_EVENTS)
        await inbox.forget_before(connection, now - KEEP_FAILURES)
