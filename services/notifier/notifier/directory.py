"""Who belongs to an organization and how people are reached: auth says so, and a sealed copy is kept.

The copy counts for `FRESH`, unless the bus has told of a change since; while auth is away an older one does, of which
whoever left was removed when the bus told of it. Letters are asked for each time, and kept nowhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client

from aragora.chassis import sql, tracing
from aragora.chassis.sealing import Sealer
from aragora.chassis.sql import Pool
from aragora.contracts.contacts import READ_CONTACTS, Contact, Contacts, MemberRole, ReadContacts
from aragora.contracts.messages import READ_MESSAGE, Message, MessageVerdict, ReadMessage
from notifier import queueing

FRESH = timedelta(hours=1)
ASK_SECONDS = 3.0

Answer = TypeVar("Answer")
queries = sql.load("notifier", "sql/directory.sql")
log = structlog.get_logger(__name__)


class AuthAway(OSError):
    """Auth does not answer just now, and what is asked for is not known here. It passes: try again."""


@dataclass(frozen=True, slots=True)
class People:
    """An organization's name, and its members."""

    org_name: str
    members: Sequence[Contact]

    def member(self, user_id: str) -> Contact | None:
        """The member of this id."""
        return next((each for each in self.members if each.user_id == user_id), None)


class Directory:
    """What auth tells. `client` is a connection to the bus that reconnects for ever."""

    def __init__(self, pool: Pool, client: Client, sealer: Sealer) -> None:
        self._pool = pool
        self._client = client
        self._sealer = sealer

    async def people(self, org_id: str, now: datetime) -> People | None:
        """The members of an organization; None if it is closed, or there is none.

        Raises:
            AuthAway: auth does not answer, and it was never asked before.
        """
        row = await self._pool.fetchrow(queries.directory_of, org_id)
        if row is not None and row["closed_at"] is not None:
            return None
        asked_at, changed_at = (row["asked_at"], row["changed_at"]) if row is not None else (None, None)
        if asked_at is None or asked_at < now - FRESH or (changed_at is not None and changed_at >= asked_at):
            try:
                return await self._asked(org_id, now, changed_at)
            except AuthAway:
                if asked_at is None:
                    raise
                log.warning("auth_does_not_answer", detail="going on with an earlier copy", org_id=org_id)
        return await self._kept(org_id)

    async def person(self, user_id: str) -> Contact | None:
        """One person; None if there is none, or no more. Raises `AuthAway`."""
        found = await self._ask(READ_CONTACTS, ReadContacts(user_id=user_id), Contacts)
        return next(iter(found.contacts), None)

    async def letter(self, message_id: str) -> Message | None:
        """What a letter says and to whom it goes; None if it is not to be sent (any more). Raises `AuthAway`."""
        return (await self._ask(READ_MESSAGE, ReadMessage(message_id=message_id), MessageVerdict)).message

    async def _ask(self, subject: str, question: msgspec.Struct, answer: type[Answer]) -> Answer:
        try:
            with tracing.span(subject, "CLIENT"):
                asked = msgspec.json.encode(question)
                reply = await self._client.request(subject, asked, ASK_SECONDS, headers=tracing.outgoing())
            return msgspec.json.decode(reply.data, type=answer)
        except (nats.errors.Error, msgspec.MsgspecError) as error:
            raise AuthAway(f"{subject} is not answered: {type(error).__name__}") from error

    async def _asked(self, org_id: str, now: datetime, changed_at: datetime | None) -> People | None:
        found = await self._ask(READ_CONTACTS, ReadContacts(org_id=org_id), Contacts)
        name, contacts = found.org_name, list(found.contacts)
        while found.more:
            more = ReadContacts(org_id=org_id, after=contacts[-1].user_id)
            found = await self._ask(READ_CONTACTS, more, Contacts)
            contacts += found.contacts
        members = [each for each in contacts if each.role is not None]
        emails, names = [self._sealed(each.email) for each in members], [self._sealed(each.name) for each in members]
        async with self._pool.acquire() as connection, connection.transaction():
            # One after the other with who forgets people: an answer that is late must not bring anybody back.
            await queueing.wait_for_turn(connection)
            if await connection.fetchval(queries.keep_directory, org_id, self._sealed(name), now, changed_at):
                await connection.execute(queries.drop_contacts, org_id)
                await connection.execute(
                    queries.keep_contacts,
                    org_id,
                    [each.user_id for each in members],
                    [each.role for each in members],
                    emails,
                    names,
                    [each.verified for each in members],
                )
        return People(name, members) if name is not None else None

    async def _kept(self, org_id: str) -> People | None:
        rows = await self._pool.fetch(queries.contacts_of, org_id)
        if not rows:
            return None
        members = [
            Contact(
                user_id=row["user_id"], email=self._sealer.open(row["email"]), name=self._opened(row["name"]),
                verified=row["verified"], role=_role(row["role"]),
            )
            for row in rows
        ]  # fmt: skip
        return People(self._opened(rows[0]["org_name"]) or org_id, members)

    def _sealed(self, text: str | None) -> bytes | None:
        return None if text is None else self._sealer.seal(text)

    def _opened(self, sealed: bytes | None) -> str | None:
        return None if sealed is None else self._sealer.open(sealed)


def _role(text: str) -> MemberRole:
    role: MemberRole = msgspec.convert(text, MemberRole)
    return role
