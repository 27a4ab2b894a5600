"""A cluster of three loses its leader again and again, under load: nothing acknowledged is lost, nothing is doubled.

The seed is printed; ARAGORA_FAULT_SEED replays it.
"""

import asyncio
import json
import os
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain

import asyncpg
import nats.errors
import pytest
import servers
from faults.cluster_load import Load, Pace
from faults.cluster_revocations import following, metering_bus, revoke
from faults.storm import projections
from metering_platform import worker_process
from nats_cluster import NatsCluster, Server, nats_cluster
from one_service import jwt_secret, service_keys
from servers import NATS_PASSWORDS, eventually, eventually_for_good

from aragora.contracts.topology import EVENTS, METERING_WORKERS, USAGE, usage_partition
from aragora.contracts.usage import USAGE_RECORDED, Usage, UsageRecorded
from metering import refold
from metering.edge import BusUnavailable, UsagePublisher
from standalone import machine
from standalone.platform import answers
from standalone.service import PythonService

APIS, WORKERS = 2, 2


EVENTS_PER_SECOND, SECONDS, LEAST_KILLS = 20_000, 120, 5


@dataclass
class Metering:
    """Its processes, on a cluster."""

    cluster: NatsCluster
    database_url: str
    apis: list[str]
    workers: list[PythonService]


@asynccontextmanager
async def metering(database_url: str) -> AsyncIterator[Metering]:
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(nats_cluster())
        folder = await stack.enter_async_context(servers.scratch_dir())
        settings = {
            "DATABASE_URL": database_url,
            "NATS_URL": cluster.addresses,
            "NATS_USER": "metering",
            "NATS_PASSWORD": NATS_PASSWORDS["metering"],
            "ARAGORA_SERVICE_KEYS": service_keys(),
            "ARAGORA_JWT_SECRET": stack.enter_context(jwt_secret()),
        }
        processes, urls = [], []
        for number in range(APIS):
            port = machine.free_port()
            urls.append(f"http://127.0.0.1:{port}")
            ready = lambda url=urls[-1]: answers(f"{url}/readyz")  # noqa: E731
            processes.append(
                PythonService(
                    f"api-{number}", folder, ["metering", "api"], settings | {"ARAGORA_PORT": str(port)}, ready
                )
            )
        workers = [worker_process(f"worker-{number}", folder, settings) for number in range(WORKERS)]
        for process in [*processes, *workers]:
            stack.push_async_callback(process.stop, 20)
        await asyncio.gather(*(process.start() for process in [*processes, *workers]))
        yield Metering(cluster, database_url, urls, workers)
        for log in sorted(folder.glob("logs/*.log")):
            lines = [line for line in log.read_text().splitlines() if '"level": "error"' in line or line[:1] != "{"]
            print(log.name, *lines[-5:], sep="\n  ")


async def test_a_leader_that_is_lost_is_hardly_noticed():
    """Who publishes waits, who follows hears of it a little later, who consumes goes on."""
    async with nats_cluster() as cluster, following(cluster) as heard, metering_bus(cluster) as broker:

        async def publish(subject: str, payload: bytes, headers: dict[str, str]) -> object:
            return await broker.publish(payload, subject, headers=headers, stream=USAGE.name, timeout=5)

        edge = UsagePublisher(publish)
        refusals: list[BusUnavailable] = []

        async def accepted(event_id: str) -> bool:
            try:
                await edge.publish([event(event_id)])
            except BusUnavailable as refusal:  # nobody leads for longer than the edge waits: who sent it sends it again
                refusals.append(refusal)
                return False
            return True

        await asyncio.gather(*(edge.publish([event(f"before-{number}")]) for number in range(100)))
        victim = await eventually(lambda: cluster.leader_of(USAGE.name))
        assert victim is not None
        await cluster.kill(victim)
        while_it_lasts = [eventually(partial(accepted, f"while-{number}"), 60) for number in range(100)]
        await asyncio.gather(*while_it_lasts, revoke(cluster, "t1"))
        await eventually(lambda: heard == ["t1"], 20)
        sent = {f"{when}-{number}" for when in ("before", "while") for number in range(100)}
        client = await broker.connect()
        lane = METERING_WORKERS[usage_partition("org_a") % len(METERING_WORKERS)]
        consumer = await client.jetstream().pull_subscribe_bind(lane.name, lane.stream)
        by_message: dict[int, list[str]] = {}  # one whose acknowledgement was lost comes twice, and is one
        while not sent.issubset(got := list(chain(*by_message.values()))):
            with suppress(nats.errors.TimeoutError, nats.errors.NoRespondersError):  # the consumer may have no leader
                for message in await consumer.fetch(100, timeout=10):
                    ids = [one["id"] for one in json.loads(message.data)]
                    by_message[message.metadata.sequence.stream] = ids
                    await message.ack_sync(timeout=5)
        # What was sent again has another message id: workers drop the copy.
        assert set(got) == sent if refusals else sorted(got) == sorted(sent)


def event(event_id: str) -> UsageRecorded:
    time = datetime(2026, 5, 3, tzinfo=UTC)
    usage = Usage(event_type="api_call")
    return UsageRecorded(
        id=event_id, subject="org_a", time=time, data=usage, type=USAGE_RECORDED, source="/test", specversion="1.0"
    )


@pytest.mark.long
@pytest.mark.timeout(1800)
# nats-py 2.16 leaves its socket open where a server takes a connection and says nothing.
@pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning")
@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
async def test_no_leader_is_missed_at_20_000_events_per_second(metering_database_url: str):
    seed = int(os.environ.get("ARAGORA_FAULT_SEED") or random.randrange(2**32))
    print(f"seed {seed}")
    rnd = random.Random(seed)
    async with metering(metering_database_url) as running, following(running.cluster) as heard:
        load = Load(rnd, Pace(EVENTS_PER_SECOND, SECONDS))
        storm = Storm(running.cluster, rnd, heard)
        published = asyncio.create_task(load.publish(running.apis, running.cluster))
        try:
            await storm.rage(published)
            await published
        finally:
            published.cancel()
            print(load, storm, sep="\n")
        await until_recorded(running)
        await judge(running, load)
        assert storm.kills >= LEAST_KILLS


class Storm:
    """Ends whoever leads, waits until another does, lets it come back, waits until it has caught up, and so on."""

    def __init__(self, cluster: NatsCluster, rnd: random.Random, heard: list[str]) -> None:
        self.kills = 0
        self._cluster = cluster
        self._rnd = rnd
        self._heard = heard
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def __str__(self) -> str:
        told = (f"{what} {' '.join(f'{each:.1f}' for each in seconds)} s" for what, seconds in self._seconds.items())
        return f"{self.kills} times the leader was lost; {'; '.join(told)}"

    async def rage(self, published: "asyncio.Task[None]") -> None:
        """Until all is published: kills, and now and then a server that says nothing any more."""
        while not published.done():
            find = self._cluster.meta_leader() if self.kills % 3 == 1 else self._cluster.leader_of(USAGE.name)
            victim = await find
            if victim is None:
                continue
            is_frozen = self.kills % 5 == 3
            self.kills += 1
            if is_frozen:
                self._cluster.freeze(victim)
            else:
                await self._cluster.kill(victim)
            token = f"token-{self.kills}"
            await asyncio.gather(
                self._timed("without a leader", eventually(partial(self._led_by_another, victim), 60)),
                self._timed("until a revocation was heard", self._told(token)),
            )
            if is_frozen:
                await asyncio.wait([published], timeout=10)
                self._cluster.thaw(victim)
            else:
                await self._cluster.start_server(victim)
            await self._timed("behind", self._cluster.until_whole())
            await asyncio.wait([published], timeout=self._rnd.uniform(1, 4))

    async def _timed(self, what: str, happens: Awaitable[object]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await happens
        self._seconds[what].append(loop.time() - began)

    async def _told(self, token: str) -> None:
        await revoke(self._cluster, token)
        await eventually(lambda: token in self._heard, 60)

    async def _led_by_another(self, victim: Server) -> bool:
        return await self._cluster.leader_of(USAGE.name) not in (None, victim)


async def until_recorded(running: Metering) -> None:
    """Return when everything was recorded and acknowledged."""
    client = await running.cluster.connect()

    async def settled() -> bool:
        infos = await client.jetstream().consumers_info(USAGE.name)
        return not any((info.num_pending or 0) + (info.num_ack_pending or 0) for info in infos)

    try:
        await eventually_for_good(settled, 600, what="everything is recorded and acknowledged")
    finally:
        await client.close()


async def judge(running: Metering, load: Load) -> None:
    """Hold what was recorded against what was sent."""
    totals = load.totals()
    connection = await asyncpg.connect(running.database_url)
    try:
        daily, monthly = await projections(connection)
        assert await connection.fetchval("SELECT count(*) FROM usage_events") == load.sent
        assert monthly == totals.monthly
        assert daily.keys() == totals.daily.keys()
        assert [key for key in daily if daily[key] != totals.daily[key]] == []
        assert await connection.fetchval("SELECT count(*) FROM dead_letters") == 0

        async def outbox() -> bool:
            return await connection.fetchval("SELECT count(*) FROM outbox") == 0

        await eventually(outbox, 30)
        appended = await connection.fetchval("SELECT count(*) FROM events")
    finally:
        await connection.close()
    client = await running.cluster.connect()
    said = (await client.jetstream().stream_info(EVENTS.name, subjects_filter="events.metering.>")).state.subjects
    assert sum((said or {}).values()) == appended
    await client.close()
    verdict = await refold.verify(running.database_url, connections=2, progress=lambda *_: None, now=datetime.now(UTC))
    assert verdict.equal, verdict.differences
    assert verdict.events == load.sent
