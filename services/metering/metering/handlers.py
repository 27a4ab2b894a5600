"""What metering does when usage arrives. Every side effect of the worker is in this file.

One chunk of messages is one transaction: the new events enter the log, what they add is folded into the projections,
what they raise is appended to the outbox, what cannot be recorded goes to the dead letters. Then the messages are
acknowledged. A crash before that repeats the chunk, and the repeat changes nothing.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import Annotated, Any

import asyncpg
import structlog
from faststream import Context
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.message import NatsBatchMessage
from nats.aio.msg import Msg

from aragora.billing.pricebook import PriceBook
from aragora.chassis import dead_letters, sql, store, tracing
from aragora.chassis.consume import MAX_NAMED
from aragora.chassis.dead_letters import Letter
from aragora.chassis.sql import Connection, Pool
from aragora.contracts import topology
from aragora.contracts.envelope import decode
from aragora.contracts.events import EntitlementsChanged, PlanPublished, UnpricedUsageSeen, UserErased
from aragora.contracts.usage import UsageRecorded
from metering import entitlements, erasure, metrics
from metering.intake import Refused, read_message, without_repeats
from metering.limit_fold import count_against_limits, settle_reservations
from metering.limit_fold import queries as limit_sums
from metering.projections import COLUMNS, log_rows

log = structlog.get_logger()
queries = sql.load("metering")
fold = sql.load("metering", "sql/fold.sql")

FETCH_MESSAGES = 128
FETCH_SECONDS = 0.05
"""A worker takes what is there after this long: the price of batching at low load, in latency."""
ERASURE_FETCH_SECONDS = 0.5
CHUNK_BYTES = 5_000_000
"""Of messages per transaction: about 15,000 events. Fewer cost throughput, more cost memory and freshness."""

SESSION_SETTINGS = {
    "application_name": "metering-worker",
    # The staged chunk is small and the log is not: every look into the log must go through its index, whatever the
    # statistics of a partition that was empty a minute ago make the planner believe.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "work_mem": "64MB",
}

_UNPRICED_REASON = COLUMNS.index("unpriced_reason")
_RESERVATION_ID = COLUMNS.index("reservation_id")


async def prepare_session(connection: Connection) -> None:
    """Give a worker's connection the temporary table that chunks pass through, and bind the fold to it."""
    for statement in (
        queries.make_usage_to_fold,
        queries.make_days_to_fold,
        fold.daily_sums,
        fold.monthly_sums,
        limit_sums.bind_limits,
        limit_sums.limit_sums,
        limit_sums.limit_user_sums,
        limit_sums.limit_peaks,
        limit_sums.limit_sightings,
    ):
        await connection.execute(statement)


class Recorder:
    """Records usage: the log, the projections and the events they raise, in one transaction per chunk."""

    def __init__(self, pool: Pool, prices: PriceBook) -> None:
        """`pool`: connections made with `SESSION_SETTINGS` and `prepare_session`."""
        self._pool = pool
        self._prices = prices

    async def record(self, messages: Sequence[tuple[str, int, bytes]], now: datetime) -> int:
        """Record the usage in these messages (subject, stream sequence, body); afterwards they may be acknowledged.

        Returns:
            The number of events that were new.

        Raises:
            asyncpg.PostgresError, OSError: nothing was recorded; deliver the messages again.
        """
        started_at = perf_counter()
        events: list[UsageRecorded] = []
        letters: list[Letter] = []
        for subject, sequence, body in messages:
            good, refused = read_message(body, now)
            events += good
            letters += [_letter(one, subject, sequence) for one in refused]
        unique, refused = without_repeats(events)
        letters += [_letter(one, *messages[0][:2]) for one in refused]
        rows = log_rows(unique, self._prices)
        unpriced = settled = 0

        async with self._pool.acquire() as connection, connection.transaction():
            new = await self._append_to_log(connection, rows) if rows else 0
            if letters:
                await dead_letters.record(connection, letters)
            if new:
                await connection.execute(fold.sum_days)
                await connection.execute(fold.fold_daily)
                await connection.execute(fold.fold_monthly)
                if unpriced := sum(bool(row[_UNPRICED_REASON]) for row in rows):
                    await self._raise_unpriced(connection, now)
                await count_against_limits(connection, now)
                settled = await settle_reservations(connection, (row[_RESERVATION_ID] for row in rows), now)
        seconds, repeated = perf_counter() - started_at, len(events) - new
        metrics.recorded(new=new, repeated=repeated, refused=len(letters), unpriced=unpriced, seconds=seconds)
        metrics.reserved("settled", settled)
        if letters:
            given = (tracing.correlation_in(letter.payload) for letter in letters[:MAX_NAMED])
            log.warning("usage_refused", events=len(letters), correlation_ids=sorted(filter(None, given)))
        return new

    async def _append_to_log(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> int:
        await connection.execute(queries.share_log)
        rows = await erasure.under_pseudonyms(connection, rows)
        current, *earlier = [row["log_month"] for row in await connection.fetch(queries.log_months)]
        with tracing.span("copy usage_to_fold", "CLIENT"):  # which asyncpg tells nobody of
            await connection.copy_records_to_table("usage_to_fold", records=rows, columns=COLUMNS)
        new = _rows_in(await connection.execute(queries.append_to_log, current, earlier))
        if new < len(rows):
            await connection.execute(queries.drop_repeats, current)
        return new

    async def _raise_unpriced(self, connection: Connection, now: datetime) -> None:
        noted = await connection.fetch(queries.note_unpriced)
        await store.append_each(connection, [_unpriced(row) for row in noted], occurred_at=now)


def _unpriced(row: asyncpg.Record) -> tuple[str, str, UnpricedUsageSeen]:
    seen = UnpricedUsageSeen(
        month=row["month"],
        provider=row["provider"] or None,
        model=row["model"] or None,
        reason=row["reason"],
        first_event_id=row["first_event_id"],
    )
    return row["org_id"], f"{row['org_id']}/unpriced/{row['month']}/{row['provider']}/{row['model']}", seen


def _rows_in(command_tag: str) -> int:
    return int(command_tag.rsplit(" ", 1)[1])


def _letter(refused: Refused, subject: str, sequence: int) -> Letter:
    return Letter(
        org_id=refused.org_id,
        source_stream=topology.USAGE.name,
        source_sequence=sequence,
        subject=subject,
        payload=refused.payload,
        reason=refused.reason,
        field=refused.field,
    )


def subscribe(broker: NatsBroker, recorder: Recorder) -> None:
    """Let this worker compete for usage, in every lane. What becomes of a failed chunk is for `chassis.consume`."""

    async def record_usage(message: Annotated[NatsBatchMessage, Context("message")]) -> None:
        for chunk in chunks(message.raw_message):
            await recorder.record(
                [(one.subject, one.metadata.sequence.stream, one.data) for one in chunk], datetime.now(UTC)
            )
            metrics.lagged(min(one.metadata.timestamp for one in chunk), datetime.now(UTC))
            for one in chunk:
                await one.ack()

    for lane in topology.METERING_WORKERS:
        broker.subscriber(
            "usage.recorded.*",
            stream=JStream(lane.stream, declare=False),
            durable=lane.name,
            inbox_prefix=f"{topology.METERING.inbox_prefix}.".encode(),
            pull_sub=PullSub(batch_size=FETCH_MESSAGES, timeout=FETCH_SECONDS, batch=True),
            title=lane.name,
            description="CloudEvents JSON batches of usage events",
        )(record_usage)


def follow_entitlements(broker: NatsBroker, pool: Pool, prices: PriceBook) -> None:
    """Keep what billing says of plans and organizations. `pool`: made with `prepare_entitlements_session`."""
    consumer = topology.METERING_ENTITLEMENTS

    async def keep_entitlements(message: Annotated[NatsBatchMessage, Context("message")]) -> None:
        changes: list[tuple[str, EntitlementsChanged]] = []
        async with pool.acquire() as connection, connection.transaction():
            for one in message.raw_message:
                envelope, event = decode(one.data)
                if isinstance(event, PlanPublished):
                    await entitlements.keep_plan(connection, event)
                elif isinstance(event, EntitlementsChanged):
                    changes.append((envelope.subject, event))
            await entitlements.apply_entitlements(connection, changes, prices, datetime.now(UTC))

    broker.subscriber(
        "events.billing.*.*",
        stream=JStream(consumer.stream, declare=False),
        durable=consumer.name,
        inbox_prefix=f"{topology.METERING.inbox_prefix}.".encode(),
        pull_sub=PullSub(batch_size=FETCH_MESSAGES, timeout=FETCH_SECONDS, batch=True),
        title=consumer.name,
        description="Plans, and what organizations may do",
    )(keep_entitlements)


def follow_erasures(broker: NatsBroker, pool: Pool) -> None:
    """Erase whom auth says, each in a transaction of their own."""
    consumer = topology.METERING_ERASURES

    async def erase_people(message: Annotated[NatsBatchMessage, Context("message")]) -> None:
        for one in message.raw_message:
            _, event = decode(one.data)
            if isinstance(event, UserErased):
                async with pool.acquire() as connection, connection.transaction():
                    await erasure.erase(connection, event.user_id, event.org_ids, datetime.now(UTC))

    broker.subscriber(
        "events.auth.*.*",
        stream=JStream(consumer.stream, declare=False),
        durable=consumer.name,
        inbox_prefix=f"{topology.METERING.inbox_prefix}.".encode(),
        pull_sub=PullSub(batch_size=1, timeout=ERASURE_FETCH_SECONDS, batch=True),
        title=consumer.name,
        description=consumer.description,
    )(erase_people)


def chunks(messages: Sequence[Msg]) -> Iterator[list[Msg]]:
    """The messages in groups of up to `CHUNK_BYTES`, in order. A message that is larger is a group of its own."""
    chunk: list[Msg] = []
    size = 0
    for message in messages:
        if chunk and size + len(message.data) > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(message)
        size += len(message.data)
    if chunk:
        yield chunk
