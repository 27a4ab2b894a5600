"""Applies the declared topology to a NATS server: creates what is missing, updates what differs.

It deletes one thing only: a consumer of a work-queue stream that is no longer declared, since such a stream has no room
for two consumers of one subject. What that consumer had not acknowledged stays in the stream, for the others.
"""

from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from aragora.contracts.topology import CONSUMERS, STREAMS, Consumer, Stream


async def apply_topology(bus: JetStreamContext, *, replicas: int, max_bytes: int) -> list[str]:
    """Make the server's streams and consumers what `aragora.contracts.topology` says.

    Args:
        bus: JetStream of a user that may change streams.
        replicas: copies of every stream: 1 on one machine, 3 in a cluster.
        max_bytes: disk that each stream may take. A full `USAGE` refuses new messages: it never drops
            waiting ones. A full `EVENTS` drops its oldest, heard or not.

    Returns:
        One line per thing that was created, updated or removed.
    """
    done = [await _apply_stream(bus, stream, replicas=replicas, max_bytes=max_bytes) for stream in STREAMS]
    for stream in STREAMS:
        if stream.work_queue:
            done += await _remove_undeclared(bus, stream)
    return done + [await _apply_consumer(bus, consumer) for consumer in CONSUMERS]


async def _remove_undeclared(bus: JetStreamContext, stream: Stream) -> list[str]:
    declared = {consumer.name for consumer in CONSUMERS if consumer.stream == stream.name}
    found = {info.name for info in await bus.consumers_info(stream.name)}
    for name in sorted(found - declared):
        await bus.delete_consumer(stream.name, name)
    return [f"consumer {name} removed" for name in sorted(found - declared)]


async def _apply_stream(bus: JetStreamContext, stream: Stream, *, replicas: int, max_bytes: int) -> str:
    config = StreamConfig(
        name=stream.name,
        subjects=list(stream.subjects),
        description=stream.description,
        retention=RetentionPolicy.WORK_QUEUE if stream.work_queue else RetentionPolicy.LIMITS,
        discard=DiscardPolicy.NEW if stream.work_queue else DiscardPolicy.OLD,
        storage=StorageType.FILE,
        max_age=stream.max_age.total_seconds() if stream.max_age else 0,
        max_bytes=max_bytes,
        duplicate_window=stream.duplicate_window.total_seconds(),
        num_replicas=replicas,
    )
    try:
        await bus.stream_info(stream.name)
    except NotFoundError:
        await bus.add_stream(config)
        return f"stream {stream.name} created"
    await bus.update_stream(config)
    return f"stream {stream.name} up to date"


async def _apply_consumer(bus: JetStreamContext, consumer: Consumer) -> str:
    await bus.add_consumer(
        consumer.stream,
        ConsumerConfig(
            durable_name=consumer.name,
            description=consumer.description,
            filter_subjects=list(consumer.subjects),
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=consumer.ack_wait.total_seconds(),
            max_deliver=-1,
            max_ack_pending=consumer.max_ack_pending,
        ),
    )
    return f"consumer {consumer.name} up to date"
