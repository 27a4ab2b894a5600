"""The edge: accepted usage on its way to the bus.

JetStream flushes to disk once per message, so messages, not events, are what is scarce. While a partition's message is
being written, the events of further requests gather and leave together in the next one: the busier the edge, the larger
the groups, and nobody waits for a timer.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from aragora.chassis import tracing
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
PAUSES_SECONDS = (0.05, 0.2, 0.5, *[1.0] * 9)
"""Between tries. While a cluster has no leader, which is for 4 to 9 seconds, every try is refused at once."""
PUBLISH_TRIES = len(PAUSES_SECONDS) + 1
PATIENCE_SECONDS = 10.0
"""After so long nothing is tried again: a bus that says nothing takes 5 seconds for each try."""


class EdgeOverloaded(Exception):
    """More events wait for the bus than the edge may hold. Nothing was accepted: send the batch again in a moment."""


class BusUnavailable(Exception):
    """The bus did not confirm the events. Some may be on it: send the whole batch again, with the same ids."""


_Entry = tuple[bytes, asyncio.Future[None], bool, tracing.Headers]
"""An event, who waits for it, whether it is the last they wait for, and from which request it came."""


class _Lane:
    """One partition's queue."""

    def __init__(self) -> None:
        self.queue: deque[_Entry] = deque()
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
        origin = tracing.outgoing()
        self._waiting += len(events)
        try:
            outcomes = await asyncio.gather(
                *(self._enqueue(partition, payloads, origin) for partition, payloads in by_partition.items()),
                return_exceptions=True,
            )
        finally:
            self._waiting -= len(events)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        metrics.published_events.inc(len(events))

    def _enqueue(self, partition: int, payloads: list[bytes], origin: tracing.Headers) -> asyncio.Future[None]:
        lane = self._lanes[partition]
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lane.queue.extend((payload, waiter, False, origin) for payload in payloads[:-1])
        lane.queue.append((payloads[-1], waiter, True, origin))
        if lane.sender is None:
            lane.sender = asyncio.create_task(self._send(lane, usage_subject(partition)))
        return waiter

    async def _send(self, lane: _Lane, subject: str) -> None:
        try:
            while lane.queue:
                group: list[_Entry] = []
                size = 2
                while lane.queue and len(group) < MAX_MESSAGE_EVENTS:
                    size += len(lane.queue[0][0]) + 1
                    if group and size > MAX_MESSAGE_BYTES:
                        break
                    group.append(lane.queue.popleft())
                payload = b"[" + b",".join(entry[0] for entry in group) + b"]"
                origins = [origin for _, _, last, origin in group if last]
                if not group[-1][2]:  # the rest of its request leaves with the next message
                    origins.append(group[-1][3])
                with tracing.continuing("UsageRecorded publish", "PRODUCER", origins):
                    failure = await self._send_group(subject, payload)
                for _, waiter, last, _ in group:
                    if failure and not waiter.done():
                        waiter.set_exception(failure)
                    elif last and not waiter.done():
                        waiter.set_result(None)
        finally:
            lane.sender = None

    async def _send_group(self, subject: str, payload: bytes) -> BusUnavailable | None:
        # The same id on every try: if only the confirmation was lost, JetStream drops the second copy.
        headers = {"Nats-Msg-Id": str(new_id()), **tracing.outgoing()}
        began = time.monotonic()
        for pause_seconds in (*PAUSES_SECONDS, None):
            try:
                await self._publish(subject, payload, headers)
            except Exception as error:  # noqa: BLE001 - whatever it was, the caller is told that nothing is certain
                if pause_seconds is None or time.monotonic() - began > PATIENCE_SECONDS:
                    unavailable = BusUnavailable(str(error))
                    unavailable.__cause__ = error
                    return unavailable
                await asyncio.sleep(pause_seconds)
            else:
                metrics.published_messages.inc()
                return None
        raise AssertionError("unreachable")
