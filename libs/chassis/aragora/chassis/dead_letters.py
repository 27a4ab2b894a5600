"""Dead letters: messages that could not be handled, kept with the reason until somebody retries or discards them.

open ── retried ──(fails again)──> open
  └──── discarded

A letter is retried by the service that keeps it, with its own rights on the bus: the message goes to the consumer that
it came from and to nobody else, through the same policy as the first time.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from nats.js import JetStreamContext

from aragora.chassis import sql
from aragora.chassis.sql import Connection
from aragora.contracts import topology
from aragora.contracts.ids import new_id

Status = Literal["open", "retried", "discarded"]

SUBJECT_HEADER = "Aragora-Subject"
"""Of a message that is retried: the subject that it first came with. If it fails again it is the same letter."""
PUBLISH_SECONDS = 5

queries = sql.load("aragora.chassis")
_COLUMNS = ("org_id", "source_stream", "source_sequence", "subject", "payload", "reason", "field", "attempts")


class NotTaken(Exception):
    """No consumer of the service takes such messages any more: discard the letter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A message to keep. `field` names what is wrong in it, `source_*` where on the bus it came from, if known."""

    subject: str
    payload: bytes
    reason: str
    attempts: int = 1
    org_id: str | None = None
    field: str | None = None
    source_stream: str | None = None
    source_sequence: int | None = None

    @property
    def digest(self) -> bytes:
        """What makes two letters the same one: subject and payload."""
        return hashlib.sha256(self.subject.encode() + b"\0" + self.payload).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLetter(Letter):
    """A letter as it is kept."""

    id: UUID
    first_seen_at: datetime
    status: Status
    resolved_at: datetime | None
    resolved_by: str | None


async def record(conn: Connection, letters: Sequence[Letter]) -> int:
    """Keeps the letters, in the caller's transaction; returns how many are new or open again.

    A letter that is already there adds nothing, unless it was retried: then it is open again. A discarded one stays so.
    """
    unique = {letter.digest: letter for letter in letters}
    kept = await conn.fetch(
        queries.record_letters,
        [new_id() for _ in unique],
        list(unique),
        *([_storable(getattr(letter, column)) for letter in unique.values()] for column in _COLUMNS),
    )
    return len(kept)


def _storable(value: object) -> object:
    # Postgres keeps no NUL in text, and a lone surrogate is not UTF-8; the payload has the original bytes.
    return value.replace("\0", "\\0").encode(errors="backslashreplace").decode() if isinstance(value, str) else value


async def page(
    conn: Connection,
    *,
    status: Status | None = "open",
    org_id: str | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> list[KeptLetter]:
    """Letters from the newest on. The next page begins `before` the last id of this one."""
    return [KeptLetter(**row) for row in await conn.fetch(queries.page_letters, status, org_id, before, limit)]


async def fetch(conn: Connection, letter_id: UUID) -> KeptLetter | None:
    """One letter, or None if there is none of that id."""
    row = await conn.fetchrow(queries.fetch_letter, letter_id)
    return KeptLetter(**row) if row else None


async def resolve(
    conn: Connection, letter_id: UUID, status: Literal["retried", "discarded"], *, at: datetime, by: str
) -> bool:
    """Marks an open letter; False if it is not open (any more)."""
    return await conn.fetchval(queries.resolve_letter, letter_id, status, at, by) is not None


async def retry(
    conn: Connection, letter: KeptLetter, service: str, bus: JetStreamContext, *, at: datetime, by: str
) -> bool:
    """Sends an open letter of this service to it again; False if it is not open (any more).

    Marked and sent in one transaction: a crash in the middle leaves it open, and sent twice it is handled once.

    Raises:
        NotTaken: see there.
        nats.errors.Error, OSError: the bus did not confirm it. The letter stays open.
    """
    async with conn.transaction():
        if not await resolve(conn, letter.id, "retried", at=at, by=by):
            return False
        subject = topology.retried_on(service, letter.subject)
        if subject is None:
            raise NotTaken(f"No consumer of {service} takes {letter.subject} any more: discard the letter.")
        # A new id: the bus may still know the old one, and would take this for a repeat.
        headers = {"Nats-Msg-Id": str(new_id()), SUBJECT_HEADER: letter.subject}
        await bus.publish(subject, letter.payload, timeout=PUBLISH_SECONDS, headers=headers)
    return True
