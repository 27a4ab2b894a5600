"""From rows of the audit log to its pages. Pure."""

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    import asyncpg

Row: TypeAlias = "asyncpg.Record"


class AuditEntry(Struct):
    """Who (`actor`: a person, an API key, `service:name`; null: nobody had signed in) did what, to whom, from where."""

    id: str
    occurred_at: datetime
    action: str
    actor: str | None
    user_id: str | None
    """Whom it concerns."""
    org_id: str | None
    succeeded: bool
    address: str | None
    """The network address that it came from. Null also for a person who reads what others did to them."""
    program: str | None
    """What the program called itself. Null as `address` is."""
    detail: dict[str, Any]


class AuditPage(Struct):
    """Entries, newest first. `next_cursor`: where the next page begins; null: that was the last one."""

    entries: list[AuditEntry]
    next_cursor: str | None


def entry(row: Row, reader: str | None = None) -> AuditEntry:
    """An entry as it is shown to administrators, or to the person whom it concerns, the `reader`.

    Where others were when they did something is not for the person to know.
    """
    shown = reader is None or row["actor"] in (None, reader)
    return AuditEntry(
        str(row["event_id"]),
        row["occurred_at"],
        row["action"],
        row["actor"],
        row["user_id"],
        row["org_id"],
        row["succeeded"],
        row["address"] if shown else None,
        row["program"] if shown else None,
        msgspec.json.decode(row["detail"]),
    )


def page(rows: Sequence[Row], limit: int, reader: str | None = None) -> AuditPage:
    """The first `limit` of these rows. The query asks for one more, to know whether that is all."""
    entries = [entry(row, reader) for row in rows[:limit]]
    return AuditPage(entries, cursor_after(rows[limit - 1]["event_id"]) if len(rows) > limit else None)


def cursor_after(event_id: UUID) -> str:
    """Where the page after this entry begins."""
    return base64.urlsafe_b64encode(event_id.bytes).decode()


def read_cursor(cursor: str) -> UUID:
    """What `cursor_after` wrote.

    Raises:
        ValueError: it did not write this.
    """
    found = UUID(bytes=base64.urlsafe_b64decode(cursor.encode()))
    if cursor_after(found) != cursor:
        raise ValueError("not a cursor")
    return found
