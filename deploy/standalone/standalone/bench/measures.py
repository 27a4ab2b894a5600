"""What is measured without HTTP: throughput, raw COPY, the baseline, rebuild."""

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO

import asyncpg
import msgspec
import psutil
import uvloop

from aragora.billing.pricebook import PriceBook
from metering import refold
from metering.handlers import SESSION_SETTINGS, Recorder, prepare_session
from metering.projections import COLUMNS
from standalone.bench.load import Shape, messages, publish
from standalone.datadir import Running

LAG_EVENTS = 400_000
"""How far publishers may be ahead of the projections: enough to keep every worker busy."""
RAW_COPY_ROWS = 250_000

Say = Callable[[str], None]


@dataclass
class Bench:
    """A running platform to measure, and where its memory went."""

    running: Running
    service_key: str
    database_url: str
    bus_url: str
    workers: int
    shape: Shape
    say: Say
    peak_mib: dict[str, float] = field(default_factory=dict)

    def look_at_memory(self) -> None:
        """Remember the largest resident memory that each process had. Postgres' is without what its backends share."""
        for name, pid in self.running.services.items():
            try:
                process = psutil.Process(pid)
                processes = [process, *process.children(recursive=True)]
                used = max(_own_bytes(one) for one in processes) if name == "postgres" else process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
            self.peak_mib[name] = max(self.peak_mib.get(name, 0), used / 2**20)


def _own_bytes(process: psutil.Process) -> int:
    memory = process.memory_info()
    return int(memory.rss - memory.shared)


@dataclass(frozen=True, slots=True)
class Sustained:
    """(events committed, seconds) as the run went on, and the rate over all of it after the warm-up."""

    per_second: float
    samples: tuple[tuple[int, float], ...]

    def rate_between(self, first: int, last: int) -> float:
        """Events per second from one count of events to another."""
        begin = next(sample for sample in self.samples if sample[0] >= first)
        end = next((sample for sample in self.samples if sample[0] >= last), self.samples[-1])
        return (end[0] - begin[0]) / (end[1] - begin[1])


@contextmanager
def publishers(bench: Bench, seed: int) -> Iterator[Callable[[int], None]]:
    """A publisher process, while the block runs. Tell what this gives how many events it may publish in all."""
    context = multiprocessing.get_context("spawn")
    published, allowed = context.Value("q", 0), context.Value("q", 0)
    stop = context.Event()
    process = context.Process(
        target=publish, args=(bench.bus_url, bench.shape, seed, published, allowed, stop), daemon=True
    )
    process.start()

    def allow(count: int) -> None:
        with allowed.get_lock():
            allowed.value = count

    try:
        yield allow
    finally:
        stop.set()
        process.join(60)


async def sustained(bench: Bench, events: int, seed: int, *, warm_up: int) -> Sustained:
    """Publish-to-committed-projection throughput while a publisher runs: `events` of them, after a warm-up."""
    connection = await asyncpg.connect(bench.database_url)
    start = await _committed(connection)
    samples: list[tuple[int, float]] = []
    with publishers(bench, seed) as allow:
        done, last_said = 0, time.perf_counter()
        while done < events + warm_up:
            allow(min(done + LAG_EVENTS, events + warm_up + LAG_EVENTS))
            await asyncio.sleep(0.2)
            done = await _committed(connection) - start
            samples.append((done, time.perf_counter()))
            if time.perf_counter() - last_said > 5:
                bench.look_at_memory()
                bench.say(f"  {done:,} of {events + warm_up:,} events committed")
                last_said = time.perf_counter()
        allow(0)
    await _until_drained(connection)
    await connection.close()
    result = Sustained(0, tuple(samples))
    return Sustained(result.rate_between(warm_up, events + warm_up), tuple(samples))


async def _committed(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("SELECT coalesce(sum(events), 0) FROM usage_monthly"))


async def _until_drained(connection: asyncpg.Connection) -> None:
    before = -1
    while (now := await _committed(connection)) != before:
        before = now
        await asyncio.sleep(1)


async def raw_copy(bench: Bench) -> float:
    """Rows per second of parallel COPY of the log's own rows into a plain table without an index, one connection per
    worker, each in a process of its own, sending prepared bytes.
    """
    connection = await asyncpg.connect(bench.database_url)
    await connection.execute("DROP TABLE IF EXISTS bench_raw_copy")
    await connection.execute("CREATE TABLE bench_raw_copy (LIKE usage_events)")
    rows = BytesIO()
    columns = ", ".join(COLUMNS)
    query = f"SELECT {columns}, log_month, recorded_at FROM usage_events LIMIT {RAW_COPY_ROWS}"  # noqa: S608
    await connection.copy_from_query(query, output=rows)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(bench.workers + 1)
    arguments = (bench.database_url, rows.getvalue(), (*COLUMNS, "log_month", "recorded_at"), barrier)
    processes = [context.Process(target=_copy, args=arguments, daemon=True) for _ in range(bench.workers)]
    for process in processes:
        process.start()
    barrier.wait()
    started_at = time.perf_counter()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - started_at
    copied = await connection.fetchval("SELECT count(*) FROM bench_raw_copy")
    await connection.execute("DROP TABLE bench_raw_copy")
    await connection.close()
    return float(copied / seconds)


def _copy(url: str, rows: bytes, columns: tuple[str, ...], barrier: "multiprocessing.synchronize.Barrier") -> None:
    async def copy() -> None:
        connection = await asyncpg.connect(url)
        barrier.wait()
        for _ in range(3):
            await connection.copy_to_table("bench_raw_copy", source=BytesIO(rows), columns=columns)
        await connection.close()

    uvloop.run(copy())


async def one_transaction_per_event(bench: Bench, seconds: float = 5) -> float:
    """The baseline: the same recording code, with one event per transaction, on as many connections as workers."""
    recorded = 0
    made = messages(bench.shape, seed=4000)
    now = datetime.now(UTC)
    async with asyncpg.create_pool(
        bench.database_url, min_size=bench.workers, max_size=bench.workers,
        init=prepare_session, server_settings=SESSION_SETTINGS,
    ) as pool:  # fmt: skip
        recorder = Recorder(pool, PriceBook.load())
        started_at = time.perf_counter()

        async def record() -> None:
            nonlocal recorded
            for subject, body in made:
                for event in msgspec.json.decode(body, type=list[msgspec.Raw]):
                    if time.perf_counter() - started_at > seconds:
                        return
                    await recorder.record([(subject, 0, bytes(event))], now)
                    recorded += 1

        await asyncio.gather(*(record() for _ in range(bench.workers)))
        return recorded / (time.perf_counter() - started_at)


async def rebuild(bench: Bench, connections: int) -> tuple[float, float, bool]:
    """(events per second of `verify`, of `rebuild`, whether the projections were equal to the log)."""
    started_at = time.perf_counter()
    verdict = await refold.verify(
        bench.database_url, connections=connections, progress=lambda *_: None, now=datetime.now(UTC)
    )
    verified_at = time.perf_counter()
    await refold.rebuild(bench.database_url, connections=connections, progress=lambda *_: None, now=datetime.now(UTC))
    rebuilt_at = time.perf_counter()
    return verdict.events / (verified_at - started_at), verdict.events / (rebuilt_at - verified_at), verdict.equal
