"""The relay: publishes what the store has recorded, in order per stream, and never loses any of it.

An event leaves the outbox only after the bus has it. A crash in between publishes it again under the same message id,
which the bus drops within its window and the consumers' inbox drops after that. One relay per database is active, the
others stand by.
"""

import asyncio
import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import asyncpg
import structlog

from aragora.chassis import metrics, sql, tracing
from aragora.chassis.sql import Connection, Pool
from aragora.contracts.envelope import Envelope, source_of, subject_for

Publish = Callable[[str, bytes, dict[str, str]], Awaitable[object]]
"""Publishes (subject, payload, headers) and returns when the bus has it on disk."""

BATCH = 500
POLL_SECONDS = 1.0  # the fallback when a notification is missed, and how often a standby asks for its turn
MAX_BACKOFF_SECONDS = 30.0

_ADVISORY_LOCK = 0x72656C6179  # "relay" in ASCII
_log = structlog.get_logger(__name__)
queries = sql.load("aragora.chassis")


class Relay:
    """Publishes the outbox of one database from `start` to `stop`."""

    def __init__(self, pool: Pool, publish: Publish) -> None:
        self._pool = pool
        self._publish = publish
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins, in a task of its own."""
        self._task = asyncio.create_task(self._run(), name="relay")

    async def stop(self, *, drain_seconds: float = 5.0) -> None:
        """Publishes what is committed already, for at most `drain_seconds`, and ends. What is left stays queued."""
        self._stopping.set()
        self._wake.set()
        if self._task is not None:
            _, late = await asyncio.wait([self._task], timeout=drain_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            seconds = POLL_SECONDS
            try:
                async with self._pool.acquire() as conn:
                    if await conn.fetchval("SELECT pg_try_advisory_lock($1)", _ADVISORY_LOCK):
                        failures = 0
                        await self._publish_from(conn)
            except Exception as error:  # noqa: BLE001  a relay that gives up would be an outage nobody sees
                failures += 1
                metrics.relay_failures.inc()
                seconds = backoff(failures)
                _log.warning("relay interrupted; trying again", seconds=round(seconds, 1), reason=repr(error))
            await _wait(self._stopping, seconds)

    async def _publish_from(self, conn: Connection) -> None:
        """Publishes until `stop`, or until the connection, and with it the lock, is lost."""
        failures = 0
        conn.add_termination_listener(self._woken)
        await conn.add_listener("outbox", self._woken)
        try:
            while True:
                self._wake.clear()
                rows = await conn.fetch(queries.fetch_unpublished, BATCH)
                published = await self._publish_rows(rows)
                if published:
                    orgs, positions = zip(*((row["org_id"], row["position"]) for row in published), strict=True)
                    await conn.execute(queries.delete_published, orgs, positions)
                    for event, count in Counter(row["type"].split(".")[2] for row in published).items():
                        metrics.published.labels(event).inc(count)
                failures = failures + 1 if len(published) < len(rows) else 0
                if self._stopping.is_set() and (failures or len(rows) < BATCH):
                    return
                if failures:
                    await _wait(self._stopping, backoff(failures))
                elif len(rows) < BATCH:
                    await _wait(self._wake, POLL_SECONDS)
        finally:
            conn.terminate()  # ends the lock and the listening at once, whatever state the connection is in

    async def _publish_rows(self, rows: Sequence[asyncpg.Record]) -> list[asyncpg.Record]:
        """Publishes each stream's events in order, the streams side by side; returns what the bus has."""
        streams: dict[tuple[str, str], list[asyncpg.Record]] = defaultdict(list)
        for row in rows:
            streams[row["org_id"], row["stream"]].append(row)
        published: list[asyncpg.Record] = []

        failed: list[tuple[str, Exception]] = []

        async def publish(stream: list[asyncpg.Record]) -> None:
            for row in stream:
                try:
                    await self._publish_row(row)
                except Exception as error:  # noqa: BLE001  the other streams go on
                    failed.append((row["correlation_id"], error))
                    return
                published.append(row)

        await asyncio.gather(*map(publish, streams.values()))
        if failed:
            metrics.relay_failures.inc()
            given, reason = failed[0][0], repr(failed[0][1])
            _log.warning("events not published; trying again", streams=len(failed), reason=reason, correlation_id=given)
        return published

    async def _publish_row(self, row: asyncpg.Record) -> None:
        event, origin = row["type"].split(".")[2], {tracing.CORRELATION_HEADER: row["correlation_id"]}
        with tracing.continuing(f"{event} publish", "PRODUCER", [origin]):
            headers = {"Nats-Msg-Id": str(row["id"]), **tracing.outgoing()}
            await self._publish(subject_for(row["type"], row["org_id"]), _envelope(row).to_json(), headers)

    def _woken(self, *_: object) -> None:
        self._wake.set()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row: doubling from 0.1 s up to 30 s, with jitter."""
    return min(MAX_BACKOFF_SECONDS, math.ldexp(0.1, min(failures, 10))) * random.uniform(0.5, 1.0)  # noqa: S311


def _envelope(row: asyncpg.Record) -> Envelope:
    return Envelope(
        id=str(row["id"]),
        source=source_of(row["type"]),
        type=row["type"],
        subject=row["org_id"],
        time=row["occurred_at"],
        correlationid=row["correlation_id"],
        causationid=row["causation_id"],
        data=json.loads(row["data"]),
    )
