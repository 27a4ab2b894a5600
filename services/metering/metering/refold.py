"""`verify` and `rebuild`: the projections, folded from the log once more, and what is used of limits.

Both fold the whole log beside the live projections, with the worker's own fold (sql/fold.sql) bound to one stretch of
the log after the other. Several connections share one snapshot, so that what they see is one moment of log and
projections, whatever is being recorded meanwhile.

* `verify` compares the two row by row.
* `rebuild` does the same while recording waits, and puts the folded rows in place of the live ones.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO

from aragora.chassis import database, sql
from aragora.chassis.sql import Connection
from metering import entitlements
from metering.limit_fold import counted_from
from metering.limit_fold import queries as limit_sums

queries = sql.load("metering", "sql/refold.sql")
fold = sql.load("metering", "sql/fold.sql")

MAX_STRETCH_BLOCKS = 32_768
"""Blocks of 8 KiB per stretch of the log at the most: about a million events."""
STRETCHES_PER_CONNECTION = 4
SESSION_SETTINGS = {"application_name": "metering-refold", "work_mem": "256MB", "jit": "off"}
MAX_DIFFERENCES = 20

Progress = Callable[[int, int], None]
"""Told (blocks folded, blocks in all) as the fold goes on."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A row of a projection that is not what the log says."""

    projection: str
    key: str
    live: str | None
    refolded: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found. `differences` are the first few of `different_rows`."""

    events: int
    daily_rows: int
    monthly_rows: int
    limit_rows: int
    different_rows: int
    differences: tuple[Difference, ...]

    @property
    def equal(self) -> bool:
        """Whether every row of every projection is what the log says."""
        return self.different_rows == 0


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Blocks of one of the log's tables, the last not included."""

    table: str
    first_block: int
    end_block: int


async def verify(database_url: str, *, connections: int, progress: Progress, now: datetime) -> Verdict:
    """Fold the log and compare. Recording goes on meanwhile; the comparison is about the moment it began.

    Raises:
        asyncpg.PostgresError, OSError: the database failed; nothing was changed.
    """
    async with _refolded(database_url, connections, progress, now, hold_log=False) as lead:
        return await _verdict(lead)


async def rebuild(database_url: str, *, connections: int, progress: Progress, now: datetime) -> Verdict:
    """Make the projections what the log says, in one transaction; recording waits, reading and reserving do not.

    What is held, a sum of the open reservations, is put right after that, in a moment in which nobody reserves.

    Returns:
        What was different, and no longer is.

    Raises:
        asyncpg.PostgresError, OSError: the database failed; the projections are as they were.
    """
    async with _refolded(database_url, connections, progress, now, hold_log=True) as lead:
        verdict = await _verdict(lead)
        for statement in (
            queries.delete_wrong_daily,
            queries.insert_right_daily,
            queries.delete_wrong_monthly,
            queries.insert_right_monthly,
            queries.right_limit_usage,
            queries.delete_wrong_users,
            queries.insert_right_users,
        ):
            await lead.execute(statement)
    await _put_holds_right(database_url)
    return verdict


async def _put_holds_right(database_url: str) -> None:
    """What is held needs no log, only that nobody reserves: apart, so that reserving does not wait for the fold."""
    connection = await database.connect(database_url, server_settings=SESSION_SETTINGS)
    try:
        async with connection.transaction():
            await connection.execute(queries.hold_every_gate)
            await connection.execute(queries.make_hold_differences)
            await connection.execute(queries.right_limit_holds)
    finally:
        await connection.close()


@asynccontextmanager
async def _refolded(
    database_url: str, connections: int, progress: Progress, now: datetime, *, hold_log: bool
) -> AsyncIterator[Connection]:
    """A transaction whose temporary tables hold what the log adds up to, and where the projections differ from it."""
    async with AsyncExitStack() as stack:

        async def connect() -> Connection:
            connection = await database.connect(database_url, server_settings=SESSION_SETTINGS)
            stack.push_async_callback(connection.close)
            return connection

        lead = await connect()
        if hold_log:
            # Before the snapshot is taken: every recording transaction is in it, or waits.
            await lead.execute(queries.hold_log_for_session)
        await stack.enter_async_context(lead.transaction(isolation="repeatable_read"))
        snapshot = await lead.fetchval(queries.export_snapshot)
        await lead.execute(queries.make_daily_parts)
        tables = [(row["name"], int(row["blocks"])) for row in await lead.fetch(queries.log_tables)]
        waiting = stretches(tables, connections)
        counter = _Counter(sum(blocks for _, blocks in tables), progress)
        taking_parts = asyncio.Lock()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(connections):
                folder = await connect()
                tasks.create_task(_fold_stretches(folder, snapshot, waiting, lead, taking_parts, counter))
        await lead.execute(limit_sums.count_from, counted_from(now).isoformat())
        for statement in (
            queries.make_refolded_daily,
            queries.bind_days_to_fold,
            entitlements.queries.bind_usage_to_fold,
            fold.monthly_sums,
            limit_sums.bind_limits,
            limit_sums.limit_sums,
            limit_sums.limit_user_sums,
            limit_sums.limit_peaks,
            limit_sums.limit_sightings,
            limit_sums.limit_totals,
            queries.make_refolded_monthly,
            queries.make_daily_differences,
            queries.make_monthly_differences,
            queries.make_limit_differences,
            queries.make_user_differences,
            queries.make_hold_differences,
        ):
            await lead.execute(statement)
        yield lead


def stretches(tables: Sequence[tuple[str, int]], connections: int) -> deque[_Stretch]:
    """The log's tables (name, blocks), cut so that every connection gets several stretches and none too long a one."""
    total = sum(blocks for _, blocks in tables)
    step = max(1, min(MAX_STRETCH_BLOCKS, total // (connections * STRETCHES_PER_CONNECTION) + 1))
    return deque(
        _Stretch(table, first, min(first + step, blocks))
        for table, blocks in tables
        for first in range(0, blocks, step)
    )


class _Counter:
    def __init__(self, total: int, progress: Progress) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def add(self, blocks: int) -> None:
        self._done += blocks
        self._progress(self._done, self._total)


async def _fold_stretches(
    folder: Connection,
    snapshot: str,
    waiting: deque[_Stretch],
    lead: Connection,
    taking_parts: asyncio.Lock,
    counter: _Counter,
) -> None:
    """Fold stretches until none waits, and hand the sums over to the lead: only it sees what it has written itself."""
    async with folder.transaction(isolation="repeatable_read"):
        await folder.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
        bound = False
        while waiting:
            stretch = waiting.popleft()
            # Identifiers and numbers of our own making: a view takes no parameters.
            await folder.execute(
                f"CREATE OR REPLACE TEMP VIEW usage_to_fold AS SELECT * FROM {stretch.table} "  # noqa: S608
                f"WHERE ctid >= '({stretch.first_block},0)' AND ctid < '({stretch.end_block},0)'"
            )
            if not bound:
                await folder.execute(fold.daily_sums)
                bound = True
            rows = BytesIO()
            await folder.copy_from_query(queries.daily_part, output=rows, format="binary")
            rows.seek(0)
            async with taking_parts:
                await lead.copy_to_table("daily_parts", source=rows, format="binary")
            counter.add(stretch.end_block - stretch.first_block)


async def _verdict(lead: Connection) -> Verdict:
    (counts,) = await lead.fetch(queries.count_rows)
    differences = await lead.fetch(queries.first_differences, MAX_DIFFERENCES)
    return Verdict(
        events=int(counts["events"]),
        daily_rows=counts["daily_rows"],
        monthly_rows=counts["monthly_rows"],
        limit_rows=counts["limit_rows"],
        different_rows=counts["different_rows"],
        differences=tuple(Difference(**row) for row in differences),
    )
