"""Dead letters: messages that could not be handled, kept with the reason until somebody retries or discards them.

open ── retried ──(fails again)──> open
  └──── discarded
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from aragora.chassis import sql
from aragora.chassis.sql import Connection
from aragora.contracts.ids import new_id

Status = Literal["open", "retried", "discarded"]

queries = sql.load("aragora.chassis")
_COLUMNS = ("org_id", "source_stream", "source_sequence", "subject", "payload", "reason", "field", "attempts")


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
    """Marks an open letter; False if it is not open (any more).

    To retry, resolve and publish in one transaction, in this order: then a letter is never marked without being sent.
    Publish under a new message id, since the bus may still know the old one.
    """
    return await conn.fetchval(queries.resolve_letter, letter_id, status, at, by) is not None
