"""One thing that somebody does: a transaction, its moment, who does it, and what is said and noted of it."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from aragora.billing.jwt_auth import TokenBlacklist
from aragora.chassis import sql, store
from aragora.chassis.sql import Connection, Pool
from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events import PLATFORM, TokenRevoked, UserTokensRevoked
from aragora.contracts.ids import new_id

Clock = Callable[[], datetime]

queries = sql.load("auth")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who acts (a user's id, an API key's id, `service:name`; None: nobody has signed in), and from where."""

    actor: str | None = None
    address: str | None = None
    program: str | None = None

    def signed_in_as(self, user_id: str) -> "Caller":
        """The same, now that we know who it is."""
        return replace(self, actor=user_id)


@dataclass(slots=True)
class Act:
    """A transaction under way. What it says to the world is appended in it, and so is what it notes for auditors."""

    connection: Connection
    clock: Clock
    caller: Caller
    now: datetime
    revoked: list[DomainEvent] = field(default_factory=list)

    async def say(self, event: DomainEvent, stream: str, *, org_id: str = PLATFORM) -> None:
        """Append an event at the end of a stream. The caller holds the row that the stream is about, or has made it.

        A revocation counts in this process as soon as the act is committed, and elsewhere as soon as the bus tells.
        """
        await store.append_each(self.connection, [(org_id, stream, event)], occurred_at=self.now)
        if isinstance(event, TokenRevoked | UserTokensRevoked):
            self.revoked.append(event)

    async def note(
        self,
        action: str,
        *,
        user_id: str | None = None,
        org_id: str | None = None,
        succeeded: bool = True,
        **detail: Any,
    ) -> None:
        """Note for the audit log who did what to whom. `detail` holds ids and plain words, nothing personal."""
        caller = self.caller
        await self.connection.execute(
            queries.note_security_event, new_id(), org_id, user_id, caller.actor, action, succeeded,
            caller.address, caller.program, json.dumps(detail), self.now,
        )  # fmt: skip


@asynccontextmanager
async def acting(pool: Pool, clock: Clock, caller: Caller) -> AsyncIterator[Act]:
    """Begin an act; it is committed at the end of the block, or undone if an exception leaves it."""
    async with pool.acquire() as connection:
        async with connection.transaction():
            act = Act(connection, clock, caller, clock())
            yield act
        for event in act.revoked:
            TokenBlacklist.get_instance().hear(event)
