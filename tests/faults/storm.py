"""A platform that is killed again and again while publishers go on, and what it has recorded in spite of that."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import nats
import psutil
from metering_platform import worker_process
from nats.aio.client import Client
from oracle import SUMMED, Event, Totals, Workload
from servers import eventually, eventually_for_good

from aragora.chassis.migrate import migrate
from aragora.contracts.ids import new_id
from aragora.contracts.topology import CONSUMERS, USAGE
from metering.log_months import open_due_month
from standalone.nats import EmbeddedNats
from standalone.postgres import EmbeddedPostgres
from standalone.problems import StartFailed
from standalone.service import PythonService

Act = Callable[[], Awaitable[None]]

DATABASE = "metering"
PHASES = ("COPY", "INSERT INTO usage_events", "INSERT INTO usage_daily", "COMMIT", None)
"""What a worker is killed in the middle of, where it can be caught there; None: whatever it is doing."""


class Storm:
    """Publishers, workers and servers, and the hand that kills them."""

    def __init__(self, postgres: EmbeddedPostgres, bus: EmbeddedNats, rnd: random.Random) -> None:
        self.postgres = postgres
        self.bus = bus
        self.database_url = postgres.url(DATABASE)
        self.happened: Counter[str] = Counter()
        self.died_by_itself = 0
        self.recorded = 0
        self.backlog = 0
        self._rnd = rnd
        self._workers: list[PythonService] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._ready: set[PythonService] = set()
        self._killed: set[int] = set()
        self._stopping = False
        self._moved = asyncio.Condition()

    def __str__(self) -> str:
        bus = f"{self.backlog} messages in the stream"
        return f"{self.recorded} recorded, {bus}, {len(self._ready)} workers run; {self.happened}"

    async def prepare(self) -> None:
        """Make the database, with the log month of now."""
        server = await asyncpg.connect(self.postgres.url())
        await server.execute(f"CREATE DATABASE {DATABASE}")
        await server.close()
        connection = await asyncpg.connect(self.database_url)
        await migrate(connection, "metering")
        await connection.close()

    async def start_workers(self, count: int, folder: Path) -> None:
        """Start workers, each with a keeper that starts it again whenever it ends."""
        settings = {"DATABASE_URL": self.database_url, "NATS_URL": self.bus.url("metering")}
        self._workers = [worker_process(f"worker-{number}", folder, settings) for number in range(count)]
        await asyncio.gather(*(worker.start() for worker in self._workers))
        self._ready = set(self._workers)
        self._keepers = [asyncio.create_task(self._keep(worker)) for worker in self._workers]

    async def _keep(self, worker: PythonService) -> None:
        while True:
            pid, code = worker.pid, await worker.wait()
            self._ready.discard(worker)
            if self._stopping:
                assert code == 0, f"{worker.name} ended with {code} when told to stop"
                return
            self.died_by_itself += pid not in self._killed
            while worker not in self._ready:
                try:
                    await worker.start()
                    self._ready.add(worker)
                except StartFailed:
                    self.happened["worker started in vain"] += 1

    async def stop_workers(self) -> None:
        """SIGTERM to all: each must end well."""
        await eventually(lambda: len(self._ready) == len(self._workers), 60, what="every worker runs again")
        self._stopping = True
        await asyncio.gather(*(worker.stop(60) for worker in self._workers))
        await asyncio.gather(*self._keepers)

    async def abandon(self) -> None:
        """Leave nothing running, whatever happened."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(worker.stop(1) for worker in self._workers))

    # Publishing.

    async def publish(self, messages: Sequence[tuple[str, bytes]], *, publishers: int, window: int) -> None:
        """Publish all, each under one message id until the bus confirms it; at most `window` messages wait."""
        waiting = deque((subject, body, str(new_id())) for subject, body in messages)
        await asyncio.gather(*(self._publish_from(waiting, window) for _ in range(publishers)))

    async def _publish_from(self, waiting: deque[tuple[str, bytes, str]], window: int) -> None:
        client = await nats.connect(
            self.bus.url("publisher"),
            inbox_prefix=b"_INBOX.publisher",
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.05,
            error_cb=_quietly,
        )
        try:
            while waiting:
                message = waiting.popleft()
                async with self._moved:
                    await self._moved.wait_for(lambda: self.backlog < window)
                self.backlog += 1
                while not await _confirmed(client, *message):
                    self.happened["messages published again"] += 1
        finally:
            await client.close()

    async def watch(self) -> None:
        """Keep `recorded` (events) and `backlog` (messages) up to date, through every crash, until cancelled."""
        while True:
            with suppress(Exception):  # servers are being killed: whatever breaks, look again
                await self._watch_until_it_breaks()
            await asyncio.sleep(0.02)

    async def _watch_until_it_breaks(self) -> None:
        async with AsyncExitStack() as stack:
            connection = await asyncpg.connect(self.database_url, timeout=5)
            stack.callback(connection.terminate)
            client = await self.bus.connect()
            stack.push_async_callback(client.close)
            while True:
                recorded = await connection.fetchval("SELECT coalesce(sum(events), 0) FROM usage_monthly", timeout=5)
                stream = await client.jetstream().stream_info(USAGE.name)
                async with self._moved:
                    self.recorded, self.backlog = int(recorded), stream.state.messages
                    self._moved.notify_all()
                await asyncio.sleep(0.01)

    async def until_recorded(self, events: int) -> None:
        """Return when so many events are in the projections."""
        async with self._moved:
            await self._moved.wait_for(lambda: self.recorded >= events)

    async def until_settled(self) -> None:
        """Return when every message was delivered and acknowledged.

        The consumers say so, not the stream: NATS that is killed between an acknowledgement and the removal of its
        message may leave the message lying there. Nobody gets it again.
        """
        client = await self.bus.connect()
        try:
            await eventually_for_good(
                lambda: _nothing_pending(client), 300, what="everything is recorded and acknowledged"
            )
        except BaseException:
            infos = [await client.jetstream().consumer_info(each.stream, each.name) for each in CONSUMERS]
            print(self, *infos, sep="\n")
            raise
        finally:
            await client.close()

    # Killing.

    def plan(self, count: int, worker_kills: int) -> list[tuple[int, Act]]:
        """What to do, each after how many recorded events: all of it, in any order, while much is still to come."""
        acts: list[Act] = [self.kill_postgres, self.kill_nats, self.turn_the_month]
        acts += [self.kill_a_worker] * worker_kills
        self._rnd.shuffle(acts)
        return list(zip(sorted(self._rnd.sample(range(count // 20, count * 9 // 10), len(acts))), acts, strict=True))

    async def kill_a_worker(self) -> None:
        """SIGKILL a worker, in the middle of a recording transaction if one can be caught there."""
        phase = self._rnd.choice(PHASES)
        caught = await self._caught_in(phase) if phase else None
        await eventually(lambda: self._ready, 60, what="a worker runs")
        worker = caught or self._rnd.choice([each for each in self._workers if each in self._ready])
        self._killed.add(worker.pid)
        worker.hurry()
        self.happened["worker"] += 1
        self.happened[f"worker in {phase if caught else 'any state'}"] += 1

    async def _caught_in(self, phase: str) -> PythonService | None:
        connection = await asyncpg.connect(self.database_url)
        try:
            for _ in range(300):
                port = await connection.fetchval(
                    "SELECT client_port FROM pg_stat_activity WHERE application_name = 'metering-worker' "
                    "AND state = 'active' AND query ILIKE $1 ORDER BY random() LIMIT 1",
                    f"%{phase}%",
                )
                for worker in self._ready:
                    if port and port in _ports_of(worker.pid):
                        return worker
            return None
        finally:
            await connection.close()

    async def kill_postgres(self) -> None:
        """SIGKILL Postgres with all its processes, and start it again."""
        await self.postgres.kill()
        self.happened["postgres"] += 1
        await self.postgres.start()

    async def kill_nats(self) -> None:
        """SIGKILL NATS, and start it again."""
        await self.bus.kill()
        self.happened["nats"] += 1
        await self.bus.start()

    async def turn_the_month(self) -> None:
        """Open the next log month while everybody is recording, as the first worker of a new month does."""
        async with asyncpg.create_pool(self.database_url, min_size=1, max_size=1) as pool:
            await open_due_month(pool, datetime.now(UTC).replace(day=1) + timedelta(days=32))
        self.happened["month"] += 1


async def _confirmed(client: Client, subject: str, body: bytes, message_id: str) -> bool:
    try:
        await client.jetstream().publish(subject, body, timeout=2, headers={"Nats-Msg-Id": message_id})
    except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError):
        await eventually(lambda: client.is_connected, 60)
        return False
    return True


async def _nothing_pending(client: Client) -> bool:
    # Metering's own: what it says of closed months waits for a billing that nobody has started.
    own = [each for each in CONSUMERS if each.name.startswith("metering-")]
    infos = [await client.jetstream().consumer_info(each.stream, each.name) for each in own]
    return not any((info.num_pending or 0) + (info.num_ack_pending or 0) for info in infos)


async def _quietly(_: Exception) -> None:
    return


def _ports_of(pid: int) -> set[int]:
    with suppress(psutil.Error):
        return {connection.laddr.port for connection in psutil.Process(pid).net_connections()}
    return set()


# What was recorded.

Rows = dict[tuple[str, ...], dict[str, Any]]


async def projections(connection: "asyncpg.Connection[asyncpg.Record]") -> tuple[Rows, Rows]:
    """The rows of `usage_daily` and `usage_monthly`, by key."""
    keys = ("org_id", "day", "user_id", "event_type", "provider", "model"), ("org_id", "month")
    queries = f"SELECT day::text, {', '.join(DAILY)} FROM usage_daily", "SELECT * FROM usage_monthly"
    daily, monthly = [_keyed(await connection.fetch(query), key) for query, key in zip(queries, keys, strict=True)]
    return daily, monthly


DAILY = (
    "org_id", "user_id", "event_type", "provider", "model", "events", "debates", "api_calls", "seconds", "cost_usd",
    "unpriced_events", "failed_events", "timed_events", *SUMMED,
)  # fmt: skip


def _keyed(rows: Sequence[asyncpg.Record], key: tuple[str, ...]) -> Rows:
    keyed: Rows = {}
    for row in rows:
        values: dict[str, Any] = dict(row)
        keyed[tuple(values.pop(name) for name in key)] = values
    return keyed


async def expected(connection: "asyncpg.Connection[asyncpg.Record]", load: Workload) -> Totals:
    """What must be recorded, given which one of an id's versions came first: the log says that, and nothing else."""
    logged = await connection.fetch(
        "SELECT org_id, id, occurred_at FROM usage_events JOIN unnest($1::text[], $2::text[]) AS w (o, i) "
        "ON org_id = o AND id = i",
        *map(list, zip(*load.versions, strict=True)),
    )
    assert len(logged) == len(load.versions)
    for row in logged:
        versions = load.versions[row["org_id"], row["id"]]
        first: list[Event] = [each for each in versions if each.occurred_at == row["occurred_at"]]
        assert first, f"{row['id']} is in the log with a timestamp that nobody sent"
        load.totals.add(first[0])
    return load.totals
