"""Letters with a secret in them: to verify an address, to reset a password, to accept an invitation.

The secret is `<message id>.<signature>`: it is made again whenever the letter is to be sent, and kept nowhere.
"""

from datetime import datetime, timedelta
from typing import Literal

import asyncpg

from aragora.chassis.sealing import Sealer
from aragora.chassis.sql import Connection
from aragora.contracts.ids import new_id
from auth.acts import Act, queries

Kind = Literal["verify_email", "reset_password", "invitation"]

LIFETIMES: dict[Kind, timedelta] = {
    "verify_email": timedelta(days=2),
    "reset_password": timedelta(hours=1),
    "invitation": timedelta(days=7),
}
MAX_TOKEN_LENGTH = 200


class InvalidMessageToken(Exception):
    """The link is wrong, used or too old. Ask for a new one."""


async def write(
    act: Act,
    kind: Kind,
    email: str,
    *,
    user_id: str | None = None,
    org_id: str | None = None,
    message_id: str | None = None,
) -> tuple[str, datetime]:
    """Put a letter down to be sent. Returns its id and when its secret expires; the caller says the event."""
    expires_at = act.now + LIFETIMES[kind]
    message_id = message_id or str(new_id())
    await act.connection.execute(queries.write_message, message_id, kind, user_id, org_id, email, act.now, expires_at)
    return message_id, expires_at


def token_of(sealer: Sealer, kind: str, message_id: str) -> str:
    """The secret of a letter."""
    return f"{message_id}.{sealer.sign(f'message {kind}', message_id)}"


async def read(connection: Connection, sealer: Sealer, kind: Kind, token: str, now: datetime) -> asyncpg.Record:
    """The row of a letter whose secret this is, and which is still good. It stays so.

    Raises:
        InvalidMessageToken: see `redeem`.
    """
    return await _found(connection, sealer, kind, token, now, queries.read_message)


async def redeem(connection: Connection, sealer: Sealer, kind: Kind, token: str, now: datetime) -> asyncpg.Record:
    """Use up a letter's secret: its row (message_id, kind, user_id, org_id, email), which nobody gets again.

    Raises:
        InvalidMessageToken: the secret is not one of ours, or was used, or has expired.
    """
    return await _found(connection, sealer, kind, token, now, queries.redeem_message)


async def _found(
    connection: Connection, sealer: Sealer, kind: Kind, token: str, now: datetime, query: str
) -> asyncpg.Record:
    message_id, _, signature = token[:MAX_TOKEN_LENGTH].partition(".")
    if sealer.signed(f"message {kind}", message_id, signature):
        row = await connection.fetchrow(query, message_id, kind, now)
        if row is not None:
            return row
    raise InvalidMessageToken("This link is wrong, was used already, or is too old; ask for a new one.")
