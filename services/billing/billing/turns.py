"""An organization's turn with Stripe: who has it asks Stripe and keeps the answer, and nobody else does meanwhile.

So what was read earlier is never written over what was read later. It is a lock of the session, not of a transaction:
Stripe is slow, and no transaction waits for it. It ends with the connection, whatever happens.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from aragora.chassis import sql
from aragora.chassis.sql import Connection, Pool

queries = sql.load("billing", "sql/turns.sql")


class TurnLost(ConnectionError):
    """The database ended the connection, and the turn with it: nothing was written or begun after that. Try again."""


@asynccontextmanager
async def turn_of(turns: Pool, org_id: str) -> AsyncIterator[Connection]:
    """The organization's turn, on a connection of `turns`. Waits for it as long as statements may take.

    The pool is for turns only: who has one needs other connections too, and must not wait for those who wait for it.

    Raises:
        asyncio.TimeoutError: somebody has had it for too long.
        TurnLost: see there.
    """
    async with turns.acquire() as connection:
        await connection.execute(queries.take_turn, org_id)
        try:
            yield connection
        except asyncpg.InterfaceError as error:
            if is_lost(connection):
                raise TurnLost("The database ended the connection of a turn; try again.") from error
            raise
        finally:
            if not is_lost(connection):
                await connection.execute(queries.end_turn, org_id)


def is_lost(connection: Connection) -> bool:
    """Whether the database has ended a pool's connection while somebody had it: its locks are gone with it."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # the pool has taken it back by then
        return True
