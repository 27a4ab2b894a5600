"""`aragora bench`: one run of all measures, on a platform of its own in a scratch directory."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from standalone import credentials, datadir, machine
from standalone.bench import auth_measures, http_measures, limit_measures, measures
from standalone.bench.http_measures import median, percentile
from standalone.bench.load import Shape
from standalone.bench.measures import Bench
from standalone.bench.report import Figure, Report, this_machine
from standalone.platform import Options, Platform, answers
from standalone.service import PythonService
from standalone.service_settings import environment

WINDOW = 1_500_000
"""Events over which "empty" and "full" throughput are compared."""
WARM_UP = 200_000
QUESTIONS_AT_ONCE = 256
NOTICE_WORKERS = 4
"""Workers that race for the thresholds, where `LimitReached` is measured."""

Say = Callable[[str], None]


async def run(*, events: int, workers: int | None, shape: Shape, say: Say) -> Report:
    """Measure everything. The log grows to about `events` events on the way.

    Raises:
        StandaloneError: the platform could not be started; the message says why.
    """
    scratch = Path(tempfile.mkdtemp(prefix="aragora-bench-", dir="/var/tmp"))
    secrets = credentials.read_or_make(scratch)
    options = Options(
        scratch,
        port=machine.free_port(),
        workers=workers,
        postgres_port=machine.free_port(),
        nats_port=machine.free_port(),
    )
    platform = Platform(options, secrets, say)
    try:
        running = await platform.start()
        bench = Bench(
            running=datadir.last_run(scratch) or running,  # with the processes' ids
            service_key=secrets.service_key,
            database_url=environment(secrets, running)["DATABASE_URL"],
            bus_url=f"nats://operator:{secrets.bus['operator']}@127.0.0.1:{running.nats_port}",
            workers=options.worker_count,
            shape=shape,
            say=say,
        )
        settings = environment(secrets, running, "metering")
        missing = range(options.worker_count, NOTICE_WORKERS)
        more = [
            PythonService(f"extra-worker-{number}", scratch, ["metering", "worker"], settings) for number in missing
        ]
        ports = {service: machine.free_port() for service in credentials.SERVICES}
        apis = [_api(service, port, scratch, environment(secrets, running, service)) for service, port in ports.items()]
        return await _measure(bench, events, more, await _measure_auth(bench, apis, list(ports.items())))
    finally:
        await platform.stop()
        shutil.rmtree(scratch, ignore_errors=True)


def _api(service: str, port: int, folder: Path, settings: dict[str, str]) -> PythonService:
    """A process with the API of one service alone, as in production."""

    async def ready() -> bool:
        return await answers(f"http://127.0.0.1:{port}/readyz")

    return PythonService(f"{service}-api", folder, [service, "api"], settings | {"ARAGORA_PORT": str(port)}, ready)


async def _measure(
    bench: Bench, events: int, more_workers: Sequence[PythonService], auth: tuple[Figure, ...]
) -> Report:
    cores, say = machine.cores(), bench.say
    floor = 100_000 if cores >= 4 else 60_000

    await limit_measures.limit_everybody(bench)
    say("Sustained throughput, from an empty log on")
    first = await measures.sustained(bench, max(WINDOW, events - WINDOW), seed=1, warm_up=WARM_UP)
    empty = first.rate_between(WARM_UP, WARM_UP + WINDOW)
    say("Raw COPY of the same rows")
    raw_copy = await measures.raw_copy(bench)
    say("One transaction per event")
    single = await measures.one_transaction_per_event(bench)
    say("HTTP ingest")
    http_single = await http_measures.http_ingest(bench, 1, connections=64)
    http_batched = await http_measures.http_ingest(bench, 500, connections=8)
    say("Freshness at 20,000 events/s")
    fresh = await http_measures.freshness(bench)
    say("Throughput with the log full")
    last = await measures.sustained(bench, WINDOW, seed=2, warm_up=WARM_UP)
    say("Usage query")
    query = await http_measures.usage_query(bench)
    limits = await _measure_limits(bench, more_workers)
    say("Verify and rebuild")
    verified, rebuilt, equal = await measures.rebuild(bench, connections=cores)

    ratio, kept = 100 * empty / raw_copy, 100 * last.per_second / empty
    fresh_p99, query_p99 = percentile(fresh, 99), percentile(query, 99)
    figures = (
        Figure("sustained, publish to committed projection", empty, "events/s", f"≥ {floor:,}", empty >= floor),
        Figure(f"raw COPY, {bench.workers} connections, no index", raw_copy, "rows/s"),
        Figure("sustained / raw COPY", ratio, "%", "≥ 25 %", ratio >= 25),
        Figure("one transaction per event", single, "events/s"),
        Figure("batching gains", empty / single, "times"),
        Figure("HTTP ingest, one event per request, 64 connections", http_single, "events/s"),
        Figure("HTTP ingest, 500 events per request, 8 connections", http_batched, "events/s"),
        Figure("freshness at 20,000 events/s, median", median(fresh), "ms"),
        Figure("freshness at 20,000 events/s, p99", fresh_p99, "ms", "< 500 ms", fresh_p99 < 500),
        Figure(f"sustained with {events:,} events in the log", last.per_second, "events/s"),
        Figure("full / empty", kept, "%", "≥ 90 %", kept >= 90),
        Figure("usage query, median", median(query), "ms"),
        Figure("usage query, p99", query_p99, "ms", "< 20 ms", query_p99 < 20),
        *limits,
        *auth,
        Figure("verify", verified, "events/s"),
        Figure("rebuild", rebuilt, "events/s", "≥ 500,000", rebuilt >= 500_000),
        Figure("projections equal to the log afterwards", int(equal), "", "1", equal),
    )
    return Report(
        day=datetime.now(UTC).date(),
        machine=this_machine(),
        load=f"{bench.workers} workers, {bench.shape}, with limits on {', '.join(limit_measures.METERS)} for each",
        figures=figures,
        curve=_curve(first, last),
        raw_copy=raw_copy,
        memory_mib=bench.peak_mib,
    )


async def _measure_limits(bench: Bench, more_workers: Sequence[PythonService]) -> tuple[Figure, ...]:
    say, everybody = bench.say, limit_measures.organizations(bench)
    hot = everybody[:1]
    say("Checks and reservations at a steady rate")
    checks = await limit_measures.questions(bench, "check", everybody, per_second=2_000)
    hot_calm = await limit_measures.questions(bench, "reserve", hot, per_second=1_000)
    http_calm = await limit_measures.questions(bench, "reserve", hot, per_second=1_000, over_http=True)
    say("Reservations as fast as they are answered")
    hot_fast = await limit_measures.questions(bench, "reserve", hot, at_once=QUESTIONS_AT_ONCE)
    many = await limit_measures.questions(bench, "reserve", everybody, at_once=QUESTIONS_AT_ONCE)
    http_fast = await limit_measures.questions(bench, "reserve", hot, over_http=True)
    bench.look_at_memory()
    say(f"From an event to LimitReached, with {bench.workers + len(more_workers)} workers")
    for worker in more_workers:
        await worker.start()
    try:
        noticed, once = await limit_measures.notices(bench)
    finally:
        for worker in more_workers:
            await worker.stop()
    calm_p99, check_p99 = percentile(hot_calm.milliseconds, 99), percentile(checks.milliseconds, 99)
    notice_p99 = percentile(noticed, 99)
    at_once = f"{QUESTIONS_AT_ONCE} at once"
    return (
        Figure(f"reservations of one organization, {at_once}", hot_fast.per_second, "/s", "≥ 3,000",
               hot_fast.per_second >= 3_000),
        Figure("reservations of one organization at 1,000/s, median", median(hot_calm.milliseconds), "ms"),
        Figure("reservations of one organization at 1,000/s, p99", calm_p99, "ms", "< 25 ms", calm_p99 < 25),
        Figure(f"reservations of {len(everybody)} organizations, {at_once}", many.per_second, "/s", "≥ 5,000",
               many.per_second >= 5_000),
        Figure("checks at 2,000/s, median", median(checks.milliseconds), "ms"),
        Figure("checks at 2,000/s, p99", check_p99, "ms", "< 10 ms", check_p99 < 10),
        Figure("reservations of one organization over HTTP, 64 connections", http_fast.per_second, "/s"),
        Figure("the same at 1,000/s, p99", percentile(http_calm.milliseconds, 99), "ms"),
        Figure("80 % crossed to LimitReached at 20,000 events/s, median", median(noticed), "ms"),
        Figure("80 % crossed to LimitReached at 20,000 events/s, p99", notice_p99, "ms", "< 1,000 ms",
               notice_p99 < 1_000),
        Figure("each threshold told exactly once", int(once), "", "1", once),
    )  # fmt: skip


async def _measure_auth(
    bench: Bench, apis: Sequence[PythonService], addresses: Sequence[tuple[str, int]]
) -> tuple[Figure, ...]:
    cores, say = machine.cores(), bench.say
    say("Signing in")
    people = await auth_measures.register(bench)
    signed_in, alone, beside = await auth_measures.sign_ins(bench, people)
    say("Verifying tokens and API keys")
    first, again = await auth_measures.verifications()
    keys = await auth_measures.key_verifications(bench, people[0])
    say(f"Revoking, with {1 + len(apis)} API processes")
    for api in apis:
        await api.start()
    try:
        refused = await auth_measures.revocations(bench, people[-auth_measures.REVOCATIONS :], addresses)
    finally:
        for api in apis:
            await api.stop()
    per_core, refused_p99 = signed_in / cores, percentile(refused, 99)
    return (
        Figure("sign-ins, per core", per_core, "/s", "≥ 20", per_core >= 20),
        Figure("who am I, p99, alone", percentile(alone, 99), "ms"),
        Figure("who am I, p99, beside these sign-ins", percentile(beside, 99), "ms"),
        Figure("tokens verified, first time, one core", first, "/s", "≥ 20,000", first >= 20_000),
        Figure("tokens verified, again, one core", again, "/s", "≥ 20,000", again >= 20_000),
        Figure("API keys verified by auth, 64 at once", keys, "/s"),
        Figure(f"revoked to refused by {1 + len(apis)} API processes, median", median(refused), "ms"),
        Figure(f"revoked to refused by {1 + len(apis)} API processes, p99", refused_p99, "ms", "< 1,000 ms",
               refused_p99 < 1_000),
    )  # fmt: skip


def _curve(*runs: measures.Sustained) -> tuple[tuple[int, float], ...]:
    """Throughput in steps of a twenty-fifth of all events."""
    total = sum(run.samples[-1][0] for run in runs)
    step = max(1, total // 25)
    curve: list[tuple[int, float]] = []
    before = 0
    for run in runs:
        last = run.samples[-1][0]
        begins = range(WARM_UP, last - step, step)
        curve += [(before + begin + step, run.rate_between(begin, begin + step)) for begin in begins]
        before += last
    return tuple(curve)
