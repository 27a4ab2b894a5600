"""The event store, which is the outbox too: an appended event is queued for the relay by the same statement.

A stream belongs to one organization. Its events are numbered 1, 2, 3, …; whoever appends says how many there are, and
if somebody else was faster, nothing is written. The table refuses updates and deletions.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import asyncpg

from aragora.chassis import sql, tracing
from aragora.chassis.sql import Connection
from aragora.contracts.envelope import DomainEvent, restore
from aragora.contracts.ids import new_id

State = TypeVar("State")

queries = sql.load("aragora.chassis")


class VersionConflict(Exception):
    """Somebody else appended to the stream first. Roll the transaction back, load the stream and decide again."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event as it was appended. `position` orders the whole store, `version` the stream."""

    event: DomainEvent
    id: UUID
    position: int
    version: int
    recorded_at: datetime


async def append(
    conn: Connection,
    stream: str,
    expected_version: int,
    events: Sequence[DomainEvent],
    *,
    org_id: str,
    occurred_at: datetime,
    causation_id: str | None = None,
) -> list[Recorded]:
    """Appends to a stream that has `expected_version` events (0: none), in the caller's transaction and one round trip.

    The events have the current correlation id (`tracing`); where there is none, they start one of their own.

    Raises:
        VersionConflict: the stream has another number of events.
    """
    if not events:
        return []
    ids = [new_id() for _ in events]
    types = [event.type_name for event in events]
    fields = [event.model_dump_json() for event in events]
    traced = (occurred_at, tracing.correlation_id() or str(ids[0]), causation_id)
    conflict = f"{stream} no longer has {expected_version} events: load it and decide again"
    try:
        rows = await conn.fetch(queries.append_events, org_id, stream, expected_version, ids, types, fields, *traced)
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name == "events_stream_version":
            raise VersionConflict(conflict) from error
        raise
    if not rows:
        raise VersionConflict(conflict)
    return [
        Recorded(event, event_id, row["position"], row["version"], row["recorded_at"])
        for event, event_id, row in zip(events, ids, rows, strict=True)
    ]


async def append_each(
    conn: Connection, events: Sequence[tuple[str, str, DomainEvent]], *, occurred_at: datetime
) -> None:
    """Appends many (organization, stream, event), each at the end of its stream, in one round trip.

    For streams that the caller keeps others from by another lock of its own.

    Raises:
        VersionConflict: somebody else appended to one of the streams all the same; nothing was appended.
    """
    if not events:
        return
    orgs, streams, appended = zip(*events, strict=True)
    ids = [new_id() for _ in events]
    types = [event.type_name for event in appended]
    fields = [event.model_dump_json() for event in appended]
    try:
        traced = (occurred_at, tracing.correlation_id())
        await conn.execute(queries.append_each, orgs, streams, ids, types, fields, *traced)
    except asyncpg.UniqueViolationError as error:
        raise VersionConflict("somebody else appended to one of the streams: roll back and do it again") from error


async def load(conn: Connection, stream: str, *, org_id: str) -> tuple[int, list[DomainEvent]]:
    """The stream's version, which is its number of events, and the events, each in its latest version."""
    rows = await conn.fetch(queries.load_stream, org_id, stream)
    return len(rows), [restore(row["type"], json.loads(row["data"])) for row in rows]


async def decide_and_append(
    conn: Connection,
    stream: str,
    decide: Callable[[State], Sequence[DomainEvent]],
    evolve: Callable[[State, DomainEvent], State],
    initial: State,
    *,
    org_id: str,
    occurred_at: datetime,
    causation_id: str | None = None,
    tries: int = 3,
) -> tuple[State, list[Recorded]]:
    """Folds the stream, decides, appends; returns the state after that and what was appended.

    Each try is a transaction of its own, or a savepoint of the caller's. When somebody else was faster the stream is
    loaded and decided on again. What `decide` raises is the caller's.

    Raises:
        VersionConflict: the last try lost too.
    """
    while True:
        tries -= 1
        try:
            async with conn.transaction():
                version, events = await load(conn, stream, org_id=org_id)
                state = initial
                for event in events:
                    state = evolve(state, event)
                decided = decide(state)
                recorded = await append(
                    conn, stream, version, decided, org_id=org_id, occurred_at=occurred_at, causation_id=causation_id
                )
        except VersionConflict:
            if tries <= 0:
                raise
            continue
        for event in decided:
            state = evolve(state, event)
        return state, recorded
