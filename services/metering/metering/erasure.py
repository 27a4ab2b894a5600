"""Erasing a person: their id gives way to a pseudonym wherever metering keeps it, and every total stays what it was.

The log is never changed but for this (docs/decisions/0014). It happens in one transaction while nobody records, so that
log and projections say the same at every moment, and no usage slips through between looking and erasing.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

from aragora.chassis import sql
from aragora.chassis.sql import Connection
from metering.projections import COLUMNS

queries = sql.load("metering", "sql/erasure.sql")
log_queries = sql.load("metering")
gate_queries = sql.load("metering", "sql/reservations.sql")
budget_queries = sql.load("metering", "sql/budgets.sql")

_ORG_ID, _USER_ID, _ENDPOINT, _METADATA = map(COLUMNS.index, ("org_id", "user_id", "endpoint", "metadata"))

Row = tuple[Any, ...]


async def erase(connection: Connection, user_id: str, org_ids: Iterable[str], now: datetime) -> None:
    """Put a pseudonym in the place of a person's id, another one in each organization. In the caller's transaction.

    What is free text (metadata, endpoint, idempotency keys) goes, and so do dead letters that name the person, and the
    person's budgets. Done again, it does the same to what has come since. Published events that say the id, such as
    `LimitReached`, stay.
    """
    orgs = sorted(set(org_ids))
    # A random pseudonym: one with a time in it would say which of several organizations' are the same person.
    pseudonyms = [f"erased-{uuid4()}" for _ in orgs]
    await connection.execute(log_queries.hold_log)
    await connection.fetch(gate_queries.hold_gates, orgs)
    await connection.execute(queries.begin_erasing)
    await connection.execute(queries.note_erased, orgs, pseudonyms, user_id, now)
    for statement in (
        queries.erase_from_log,
        queries.erase_from_days,
        queries.erase_from_limits,
        queries.erase_from_users,
        queries.erase_from_holds,
        queries.erase_from_reservations,
    ):
        await connection.execute(statement, orgs, pseudonyms, user_id)
    await connection.execute(budget_queries.erase_budgets, orgs, user_id)
    spellings = {json.dumps(user_id), json.dumps(user_id, ensure_ascii=False)}
    await connection.execute(queries.drop_letters, orgs, [spelling.encode() for spelling in spellings])


async def under_pseudonyms(connection: Connection, rows: Sequence[Row]) -> Sequence[Row]:
    """The rows of the log as they may be recorded: those of people who were erased go under their pseudonyms.

    Whoever calls shares the log, so that nobody is erased meanwhile.
    """
    people = {(row[_ORG_ID], row[_USER_ID]) for row in rows if row[_USER_ID] is not None}
    if not people:
        return rows
    found = await connection.fetch(queries.erased_among, *map(list, zip(*people, strict=True)))
    if not found:
        return rows
    erased = {(row["org_id"], row["user_id"]): row["pseudonym"] for row in found}
    return [
        _without(row, pseudonym) if (pseudonym := erased.get((row[_ORG_ID], row[_USER_ID]))) else row for row in rows
    ]


def _without(row: Row, pseudonym: str) -> Row:
    changed = list(row)
    changed[_USER_ID], changed[_ENDPOINT], changed[_METADATA] = pseudonym, None, None
    return tuple(changed)
