"""Alerts: what somebody is shown, what of it they have read, and that they have."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import msgspec

from aragora.chassis import sql
from aragora.chassis.sql import Connection, Pool
from notifier import answers
from notifier.callers import Reader
from notifier.domain import Severity
from notifier.kinds import KINDS

ESSENTIAL = [kind.name for kind in KINDS.values() if kind.essential]
"""What nobody can hide from themself."""

Database: TypeAlias = "Connection | Pool"
"""One connection, or whichever is free."""

queries = sql.load("notifier", "sql/alerts.sql")


class UnknownAlert(LookupError):
    """There is no such alert, as far as its reader is to know."""


async def read_page(
    connection: Connection,
    reader: Reader,
    *,
    before: int | None,
    kind: str | None,
    severity: Severity | None,
    unread_only: bool,
    limit: int,
) -> tuple[list[answers.Alert], int, int]:
    """A page of alerts, how many there are in all pages, and how many are unread whatever is asked for."""
    who = _columns_of(reader)
    rows = await connection.fetch(queries.alerts_page, *who, before, kind, severity, unread_only, limit)
    found = [alert_of(row) for row in rows]
    # What fits into a page is counted already, mostly.
    total = len(found)
    if before is not None or total == limit:
        total = await connection.fetchval(queries.count_alerts, *who, kind, severity, unread_only)
    (unread,) = await count_unread(connection, [reader])
    return found, total, unread


async def read_attention(pool: Pool, before: int | None, limit: int) -> list[answers.Attention]:
    """A page of what only operators can settle, the newest first."""
    rows = await pool.fetch(queries.attention_page, before, limit)
    return [answers.Attention(**_fields_of(answers.Attention, row)) for row in rows]


async def newest_position(connection: Database, reader: Reader) -> int:
    """The position of the newest alert that somebody is shown; 0: there is none."""
    return await connection.fetchval(queries.newest_position, *_columns_of(reader)) or 0


async def read_after(
    connection: Database, readers: Sequence[tuple[Reader, int]], limit: int
) -> list[list[answers.Alert]]:
    """What each is shown after a position of their own, the oldest first, at most `limit` for each."""
    org_ids, user_ids, administering, in_person = _arrays_of([reader for reader, _ in readers])
    after = [position for _, position in readers]
    rows = await connection.fetch(
        queries.alerts_after, org_ids, user_ids, administering, in_person, after, ESSENTIAL, limit
    )
    found: list[list[answers.Alert]] = [[] for _ in readers]
    for row in rows:
        found[row["n"] - 1].append(alert_of(row))
    return found


async def count_unread(connection: Database, readers: Sequence[Reader]) -> list[int]:
    """How many alerts each has not read."""
    rows = await connection.fetch(queries.count_unread, *_arrays_of(readers), ESSENTIAL)
    return [row["unread"] for row in rows]


async def count_unread_of_members(pool: Pool, members: Sequence[tuple[str, str]]) -> list[int]:
    """How many alerts each (organization, person) has not read: as an admin if the copy of auth's word says so."""
    org_ids, user_ids = [org_id for org_id, _ in members], [user_id for _, user_id in members]
    unsaid, in_person = [None] * len(members), [True] * len(members)
    rows = await pool.fetch(queries.count_unread, org_ids, user_ids, unsaid, in_person, ESSENTIAL)
    return [row["unread"] for row in rows]


async def mark_read(connection: Connection, reader: Reader, alert_id: UUID, now: datetime) -> datetime:
    """An alert was read. Since when it is: that stays as it was the first time.

    Raises:
        UnknownAlert: there is none, or it is not theirs.
    """
    read_at: datetime | None = await connection.fetchval(queries.mark_read, *_columns_of(reader), alert_id, now)
    if read_at is None:
        raise UnknownAlert("There is no such alert.")
    return read_at


async def mark_all_read(connection: Connection, reader: Reader, now: datetime) -> int:
    """Everything that somebody is shown until now was read. How many were not."""
    marked: int = await connection.fetchval(queries.mark_all_read, *_columns_of(reader), now)
    return marked


def alert_of(row: asyncpg.Record) -> answers.Alert:
    """The alert in a row."""
    return answers.Alert(**_fields_of(answers.Alert, row, is_read=row["read_at"] is not None))


def _fields_of(shape: type[msgspec.Struct], row: asyncpg.Record, **more: Any) -> dict[str, Any]:
    facts = [answers.Fact(label, value) for label, value in json.loads(row["facts"])]
    return answers.fields_of(shape, row, id=row["alert_id"], type=row["kind"], facts=facts, **more)


def _columns_of(reader: Reader) -> tuple[str, str, bool, bool, list[str]]:
    return reader.org_id, reader.user_id, reader.administers, reader.in_person, ESSENTIAL


def _arrays_of(readers: Sequence[Reader]) -> tuple[list[str], list[str], list[bool], list[bool]]:
    return (
        [each.org_id for each in readers],
        [each.user_id for each in readers],
        [each.administers for each in readers],
        [each.in_person for each in readers],
    )
