"""The edge: accepted usage on its way to the bus.

JetStream flushes to disk once per message, so messages, not events, are what is scarce. While a partition's message is
being written, the events of further requests gather and leave together in the next one: the busier the edge, the larger
the groups, and nobody waits for a timer.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from aragora.contracts.ids import new_id
from aragora.contracts.topology import (
    MAX_MESSAGE_BYTES,
    MAX_MESSAGE_EVENTS,
    PARTITIONS,
    usage_partition,
    usage_subject,
)
from aragora.contracts.usage import UsageRecorded
from metering import metrics

Publish = Callable[[str, bytes, dict[str, str]], Awaitable[object]]
"""Publishes (subject, payload, headers); returns when JetStream has it on disk."""

MAX_WAITING_EVENTS = 100_000
PUBLISH_TRIES = 3


class EdgeOverloaded(Exception):
    """More events wait for the bus than the edge may hold. Nothing was accepted: send the batch again in a moment."""


class BusUnavailable(Exception):
    """The bus did not confirm the events. Some may be on it: send the whole batch again, with the same ids."""


class _Lane:
    """One partition's queue. An entry is an event, who waits for it, and whether it is the last they wait for."""

    def __init__(self) -> None:
        self.queue: deque[tuple[bytes, asyncio.Future[None], bool]] = deque()
        self.sender: asyncio.Task[None] | None = None


class UsagePublisher:
    """Publishes usage in groups. One per process."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._lanes = [_Lane() for _ in range(PARTITIONS)]
        self._waiting = 0
        self._encoder = msgspec.json.Encoder()

    async def publish(self, events: Sequence[UsageRecorded]) -> None:
        """Return when every one of these events is on disk.

        Raises:
            EdgeOverloaded, BusUnavailable: see there.
        """
        if self._waiting + len(events) > MAX_WAITING_EVENTS:
            raise EdgeOverloaded
        by_partition: dict[int, list[bytes]] = {}
        for event in events:
            by_partition.setdefault(usage_partition(event.subject), []).append(self._encoder.encode(event))
        self._waiting += len(events)
        try:
            outcomes = await asyncio.gather(
                *(self._enqueue(partition, payloads) for partition, payloads in by_partition.items()),
                return_exceptions=True,
            )
        finally:
            self._waiting -= len(events)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        metrics.published_events.inc(len(events))

    def _enqueue(self, partition: int, payloads: list[bytes]) -> asyncio.Future[None]:
        lane = self._lanes[partition]
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lane.queue.extend((payload, waiter, False) for payload in payloads[:-1])
        lane.queue.append((payloads[-1], waiter, True))
        if lane.sender is None:
            lane.sender = asyncio.create_task(self._send(lane, usage_subject(partition)))
        return waiter

    async def _send(self, lane: _Lane, subject: str) -> None:
        try:
            while lane.queue:
                group: list[tuple[bytes, asyncio.Future[None], bool]] = []
                size = 2
                while lane.queue and len(group) < MAX_MESSAGE_EVENTS:
                    size += len(lane.queue[0][0]) + 1
                    if group and size > MAX_MESSAGE_BYTES:
                        break
                    group.append(lane.queue.popleft())
                failure = await self._send_group(subject, b"[" + b",".join(payload for payload, _, _ in group) + b"]")
                for _, waiter, last in group:
                    if failure and not waiter.done():
                        waiter.set_exception(failure)
                    elif last and not waiter.done():
                        waiter.set_result(None)
        finally:
            lane.sender = None

    async def _send_group(self, subject: str, payload: bytes) -> BusUnavailable | None:
        # The same id on every try: if only the confirmation was lost, JetStream drops the second copy.
        headers = {"Nats-Msg-Id": str(new_id())}
        for attempt in range(1, PUBLISH_TRIES + 1):
            try:
                await self._publish(subject, payload, headers)
            except Exception as error:  # noqa: BLE001 - whatever it was, the caller is told that nothing is certain
                if attempt == PUBLISH_TRIES:
                    unavailable = BusUnavailable(str(error))
                    unavailable.__cause__ = error
                    return unavailable
                await asyncio.sleep(0.05 * attempt)
            else:
                metrics.published_messages.inc()
                return None
        raise AssertionError("unreachable")
