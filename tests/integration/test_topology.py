"""The declared topology on a real NATS server."""

from nats.js.api import AckPolicy, ConsumerConfig
from servers import eventually

from aragora.contracts.topology import CONSUMERS, STREAMS, USAGE, usage_subject
from aragora_nats.connecting import connect_once
from aragora_nats.topology import apply_topology


async def test_it_is_applied_and_applied_again(nats_url):
    client = await connect_once(nats_url)
    bus = client.jetstream()
    for _ in range(2):
        lines = await apply_topology(bus, replicas=1, max_bytes=2**28)
        assert len(lines) == len(STREAMS) + len(CONSUMERS)
    for consumer in CONSUMERS:
        info = await bus.consumer_info(consumer.stream, consumer.name)
        assert info.config.max_deliver == -1
        assert sorted(info.config.filter_subjects) == sorted(consumer.subjects)
    await client.close()


async def test_a_consumer_of_an_earlier_version_makes_room_and_its_messages_stay(nats_url):
    client = await connect_once(nats_url)
    bus = client.jetstream()
    await apply_topology(bus, replicas=1, max_bytes=2**28)
    for consumer in CONSUMERS:
        await bus.delete_consumer(consumer.stream, consumer.name)
    await bus.add_consumer(USAGE.name, ConsumerConfig(durable_name="earlier", ack_policy=AckPolicy.EXPLICIT))
    await bus.publish(usage_subject(3), b"[]")
    taken = await bus.pull_subscribe_bind("earlier", USAGE.name)
    await taken.fetch(1)
    assert "consumer earlier removed" in await apply_topology(bus, replicas=1, max_bytes=2**28)

    async def delivered_again():
        lane = CONSUMERS[3 % len(CONSUMERS)]
        return (await bus.consumer_info(lane.stream, lane.name)).num_pending == 1

    await eventually(delivered_again)
    await client.close()
