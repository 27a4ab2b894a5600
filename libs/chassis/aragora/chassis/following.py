"""Following events in this very process: each process hears all of them, unlike durable consumers, which share."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from aragora.contracts.ids import new_id
from aragora.contracts.topology import EVENTS

HEARTBEAT_SECONDS = 1.0
SILENCE_SECONDS = 2.5
"""After so long without even a heartbeat the consumer is gone, as it is when the bus has been started again."""
RETRY_SECONDS = 0.5
OVERLAP = timedelta(minutes=1)
"""What was heard last is heard again after an interruption: the clocks of a cluster's servers may differ so far."""

_log = structlog.get_logger(__name__)


async def follow(
    client: Client, subject: str, since: datetime, hear: Callable[[bytes], None], caught_up: asyncio.Event
) -> None:
    """Hears all that was published on a subject of the events since a moment, in order, and goes on for ever.

    `caught_up` is set when `hear` has got everything that was there. What was lost on the way, or said while the bus
    was away, is fetched again: so `hear` may get a message twice. One that it does not understand is passed over.
    """
    heard_up_to: int | None = None
    while True:
        try:
            async with _consumer(client, subject, since, heard_up_to) as (subscription, waiting):
                if not waiting:
                    caught_up.set()
                async for message in _unbroken(subscription):
                    _hear(message, hear)
                    heard_up_to = message.metadata.sequence.stream
                    since = max(since, message.metadata.timestamp - OVERLAP)
                    if not message.metadata.num_pending:
                        caught_up.set()
            _log.warning("a message was lost on the way; going on from there", subject=subject)
        except Exception as error:  # noqa: BLE001  who no longer follows no longer knows: whatever it is, go on
            _log.warning("following interrupted; going on from there", subject=subject, reason=repr(error))
            heard_up_to = None  # the stream may be another one by now: moments count, numbers do not
            await asyncio.sleep(RETRY_SECONDS)


@asynccontextmanager
async def _consumer(
    client: Client, subject: str, since: datetime, heard_up_to: int | None
) -> AsyncIterator[tuple[Subscription, int]]:
    """A consumer of our own, which ends by itself soon after us, and how many messages wait for it."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    try:
        created = await client.jetstream().add_consumer(
            EVENTS.name,
            ConsumerConfig(
                name=f"follow-{new_id().hex}",
                filter_subject=subject,
                deliver_subject=inbox,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE if heard_up_to else DeliverPolicy.BY_START_TIME,
                opt_start_seq=heard_up_to + 1 if heard_up_to else None,
                opt_start_time=None if heard_up_to else since,
                ack_policy=AckPolicy.NONE,
                idle_heartbeat=HEARTBEAT_SECONDS,
                inactive_threshold=10 * HEARTBEAT_SECONDS,
                mem_storage=True,
                num_replicas=1,
            ),
        )
        yield subscription, created.num_pending or 0
    finally:
        with suppress(nats.errors.Error):
            await subscription.unsubscribe()


async def _unbroken(subscription: Subscription) -> AsyncIterator[Msg]:
    """The messages, for as long as none is missing: each has its number, and a heartbeat says how many there were."""
    count = 0
    while True:
        message = await subscription.next_msg(timeout=SILENCE_SECONDS)
        is_heartbeat = not message.reply
        if is_heartbeat:
            sent = int((message.headers or {}).get("Nats-Last-Consumer", count))
        else:
            count += 1
            sent = message.metadata.sequence.consumer
        if sent != count:
            return
        if not is_heartbeat:
            yield message


def _hear(message: Msg, hear: Callable[[bytes], None]) -> None:
    try:
        hear(message.data)
    except Exception as error:  # noqa: BLE001  it must not keep us from the next one
        _log.error("an event is not understood here", subject=message.subject, reason=type(error).__name__)
