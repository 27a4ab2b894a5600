"""What happens to a message after its handler: one policy for every subscriber.

    broker = NatsBroker(url, **consume_policy(pool))

* The handler returns: the message is acknowledged.
* It raises because a server is away (`transient.is_transient`): delivered again in about 2 s, for as long as it takes.
* It raises anything else: delivered again after 1, 5, 15 and 60 s; the fifth failure makes the message a dead letter.

A batch that fails is halved until the message to blame stands alone, and the others go through at once. So a handler
does what it does in one transaction, and handling a message twice changes nothing.

Failures are counted in the database: the count is the same for all workers and survives them. The consumers themselves
are declared without a limit of deliveries, since the server would count the transient ones too.

Handlers get the bytes of a message as they came, and decode them: what cannot be decoded is a failure like any other.
"""

import asyncio
import copy
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, TypedDict

import nats.errors
import nats.js.errors
import structlog
from faststream import AckPolicy, BaseMiddleware, ContextRepo, StreamMessage
from faststream.nats import NatsBroker
from faststream.nats.subscriber.usecases import BatchPullStreamSubscriber
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from aragora.chassis import dead_letters, metrics, sql, tracing
from aragora.chassis.dead_letters import Letter
from aragora.chassis.sql import Pool
from aragora.chassis.transient import is_transient

MAX_ATTEMPTS = 5
DELAYS_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0)
TRANSIENT_DELAY_SECONDS = 2.0
NO_LEADER_SECONDS = 0.2
MAX_REASON_LENGTH = 2000
MAX_NAMED = 10
"""Correlation ids in one line of the log."""

_log = structlog.get_logger(__name__)
queries = sql.load("aragora.chassis")


_fetch = JetStreamContext.PullSubscription.fetch


async def _fetch_with_its_own_timeout(
    subscription: JetStreamContext.PullSubscription,
    batch: int = 1,
    timeout: float | None = 5,
    heartbeat: float | None = None,
) -> list[Msg]:
    """`fetch`, which always times out with nats-py's own error.

    nats-py 2.16 raises Python's where hardly any time is left. FastStream 0.7.8 does not expect that in a batch: its
    task dies with the messages it holds, and they come again only after the consumer's `ack_wait`.

    A consumer without a leader refuses at once. FastStream would drop what it holds, and ask again without a pause.
    """
    try:
        return await _fetch(subscription, batch, timeout, heartbeat)
    except TimeoutError as error:
        raise nats.errors.TimeoutError from error
    except nats.js.errors.ServiceUnavailableError as error:
        await asyncio.sleep(NO_LEADER_SECONDS)
        raise nats.errors.TimeoutError from error


JetStreamContext.PullSubscription.fetch = _fetch_with_its_own_timeout  # type: ignore[assignment,method-assign]


async def drain(broker: NatsBroker, timeout_seconds: float = 10) -> None:
    """Fetch no further batch and finish those that are here; afterwards `disconnect` leaves nothing behind.

    By itself FastStream's `stop` drops what was fetched and not begun: it would come again only after the consumer's
    `ack_wait`. What is not finished in time comes again like that too.
    """
    closed = [
        _closed(subscriber.subscription, subscriber.pull_sub.batch_size)
        for subscriber in broker.subscribers
        if isinstance(subscriber, BatchPullStreamSubscriber) and subscriber.subscription
    ]
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*(gate.wait() for gate in closed)), timeout_seconds)


async def disconnect(broker: NatsBroker, timeout_seconds: float = 5) -> None:
    """Stop the broker, in bounded time, also while the bus is away and has no ear for a farewell."""
    with suppress(TimeoutError, nats.errors.Error):
        await asyncio.wait_for(broker.stop(), timeout_seconds)


def _closed(subscription: JetStreamContext.PullSubscription, batch_size: int) -> asyncio.Event:
    """Closes a subscription's `fetch`. The event is set once its subscriber asks for a new batch, in vain."""
    idle = asyncio.Event()

    async def fetch_no_more(batch: int = 1, timeout: float | None = 5, heartbeat: float | None = None) -> list[Msg]:
        if subscription.pending_msgs:
            return await _fetch_with_its_own_timeout(subscription, subscription.pending_msgs, timeout, heartbeat)
        if batch < batch_size:  # it holds some of the batch already, and now handles these
            raise nats.errors.TimeoutError
        idle.set()
        until_it_is_stopped: asyncio.Future[list[Msg]] = asyncio.get_running_loop().create_future()
        return await until_it_is_stopped

    subscription.fetch = fetch_no_more  # type: ignore[method-assign]
    return idle


class ConsumePolicy(TypedDict):
    """Keyword arguments of `NatsBroker`."""

    ack_policy: AckPolicy
    decoder: Callable[[StreamMessage[Any]], Awaitable[Any]]
    middlewares: Sequence[Any]


def consume_policy(
    pool: Pool, *, max_attempts: int = MAX_ATTEMPTS, delays_seconds: Sequence[float] = DELAYS_SECONDS
) -> ConsumePolicy:
    """The policy, for a service whose database `pool` leads to.

    Args:
        pool: where failures are counted and dead letters kept.
        max_attempts: failures that are the message's own, after which it is a dead letter.
        delays_seconds: how long to wait after the first, second, … of them; the last is for all further ones.
    """
    middleware = partial(_Redelivery, pool=pool, max_attempts=max_attempts, delays_seconds=delays_seconds)
    # FastStream would acknowledge, or drop, by itself: MANUAL leaves it to the middleware.
    return ConsumePolicy(ack_policy=AckPolicy.MANUAL, decoder=_undecoded, middlewares=(middleware,))


async def _undecoded(message: StreamMessage[Any]) -> Any:
    return message.body


class _Redelivery(BaseMiddleware):
    def __init__(
        self,
        msg: Any,
        /,
        *,
        context: ContextRepo,
        pool: Pool,
        max_attempts: int,
        delays_seconds: Sequence[float],
    ) -> None:
        super().__init__(msg, context=context)
        self._pool = pool
        self._max_attempts = max_attempts
        self._delays_seconds = delays_seconds

    async def consume_scope(self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]) -> Any:
        messages = _listed(msg.raw_message)
        consumer, origins = messages[0].metadata.consumer, map(_origin, messages)
        about: tracing.Attributes = {"messaging.system": "nats", "messaging.batch.message_count": len(messages)}
        try:
            with (
                metrics.handler_seconds.labels(consumer).time(),
                tracing.continuing(f"{consumer} process", "CONSUMER", origins, about),
            ):
                handled = await call_next(msg)
                _log.debug("handled", consumer=consumer, messages=len(messages))
                return handled
        except Exception as error:
            if not isinstance(msg.raw_message, list) or len(msg.raw_message) == 1 or is_transient(error):
                raise
        last: Exception | None = None
        for half in _halves(msg):
            try:
                with self.context.scope("message", half):
                    await self.consume_scope(call_next, half)
                await half.ack()
            except Exception as error:  # noqa: BLE001  every other half must still have its turn
                await self._failed(half.raw_message, error)
                last = error
        if last is not None:
            raise last
        return None

    async def after_processed(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> bool:
        messages = _listed(self.msg)
        if exc_val is None:
            for message in _unsettled(messages):
                await message.ack()
        elif isinstance(exc_val, Exception):
            await self._failed(messages, exc_val)
        return False  # FastStream logs the exception

    async def _failed(self, messages: Sequence[Msg], error: Exception) -> None:
        messages = _unsettled(messages)
        if not messages:
            return
        delays: list[float | None] = [TRANSIENT_DELAY_SECONDS] * len(messages)
        outcome = "transient"
        if not is_transient(error):
            try:
                attempts = await self._count(messages, error)
            except Exception as failure:  # noqa: BLE001  a database that is away must not end the redelivery
                _log.warning("a failed delivery was not counted", reason=repr(failure))
            else:
                delays, outcome = [self._delay_after(count) for count in attempts], "retried"
        for message, delay in zip(messages, delays, strict=True):
            if delay is None:
                await message.term()
            else:
                await message.nak(delay * random.uniform(0.8, 1.2))  # noqa: S311
        dead, consumer = delays.count(None), messages[0].metadata.consumer
        metrics.deliveries_failed.labels(consumer, outcome).inc(len(messages) - dead)
        metrics.deliveries_failed.labels(consumer, "dead").inc(dead)
        given = sorted({one for one in map(tracing.given_in, map(_origin, messages)) if one})[:MAX_NAMED]
        named = {"correlation_id": given[0]} if len(given) == 1 else {"correlation_ids": given}
        _log.warning("delivery failed", messages=len(messages), dead=dead, reason=repr(error), **named)

    def _delay_after(self, attempts: int) -> float | None:
        if attempts >= self._max_attempts:
            return None
        return self._delays_seconds[min(attempts, len(self._delays_seconds)) - 1]

    async def _count(self, messages: Sequence[Msg], error: Exception) -> list[int]:
        """Counts one more failure of each message, keeps those that reach the limit as dead letters."""
        came_from = [(one.metadata.stream, one.metadata.sequence.stream) for one in messages]
        async with self._pool.acquire() as conn, conn.transaction():
            streams, sequences = zip(*came_from, strict=True)
            rows = await conn.fetch(queries.count_failures, messages[0].metadata.consumer, streams, sequences)
            counts = {(row["source_stream"], row["source_sequence"]): row["attempts"] for row in rows}
            reason = f"{type(error).__name__}: {error}"[:MAX_REASON_LENGTH]
            letters = [
                Letter(
                    subject=(message.headers or {}).get(dead_letters.SUBJECT_HEADER, message.subject),
                    payload=message.data,
                    reason=reason,
                    attempts=counts[where],
                    source_stream=where[0],
                    source_sequence=where[1],
                )
                for message, where in zip(messages, came_from, strict=True)
                if counts[where] >= self._max_attempts
            ]
            await dead_letters.record(conn, letters)
        return [counts[where] for where in came_from]


def _origin(message: Msg) -> tracing.Headers:
    headers = message.headers or {}
    if tracing.CORRELATION_HEADER not in headers and (given := tracing.correlation_in(message.data)):
        return {**headers, tracing.CORRELATION_HEADER: given}
    return headers


def _listed(received: Any) -> list[Msg]:
    return received if isinstance(received, list) else [received]


def _unsettled(messages: Sequence[Msg]) -> list[Msg]:
    # nats-py keeps to itself which messages are settled; FastStream reads the same attribute
    return [message for message in messages if not message._ackd]  # noqa: SLF001


def _halves(batch: StreamMessage[Any]) -> list[StreamMessage[Any]]:
    middle = len(batch.raw_message) // 2
    halves = []
    for part in (slice(0, middle), slice(middle, None)):
        half = copy.copy(batch)
        half.raw_message, half.body = batch.raw_message[part], batch.body[part]
        half.batch_headers = batch.batch_headers[part]
        halves.append(half)
    return halves
