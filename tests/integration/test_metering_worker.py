"""The worker as a process: it drains, shares, survives, and lets nothing wait behind poison."""

import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from metering_platform import metering_platform, worker_process
from nats.aio.client import Client
from one_service import ALL_SCOPES, bearer
from servers import PostgresServer, eventually, scratch_dir
from usage import NOON, cloudevent, message, native

from aragora.billing.pricebook import PriceBook
from aragora.chassis.consume import consume_policy
from aragora.chassis.migrate import migrate
from aragora.contracts.envelope import decode
from aragora.contracts.events import UnpricedUsageSeen
from aragora.contracts.topology import CONSUMERS, EVENTS, USAGE, usage_partition, usage_subject
from aragora_nats.connecting import connect_once
from metering.handlers import SESSION_SETTINGS, Recorder, prepare_session, subscribe
from metering.log_months import open_due_month
from metering.settings import Settings
from metering.worker import connect_bus
from standalone import machine
from standalone.postgres import EmbeddedPostgres
from standalone.service import PythonService

Workers = Callable[..., PythonService]
PER_MESSAGE = 100


@pytest.fixture
async def folder() -> AsyncIterator[Path]:
    async with scratch_dir() as path:
        yield path


@pytest.fixture
async def bus(bus_url: str) -> AsyncIterator[Client]:
    client = await connect_once(bus_url)
    yield client
    await client.close()


@pytest.fixture
async def database(metering_database_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(metering_database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def new_worker(metering_database_url: str, bus_url: str, folder: Path) -> AsyncIterator[Workers]:
    """Makes workers, not yet started, which the test may leave running."""
    made: list[PythonService] = []
    settings = {"DATABASE_URL": metering_database_url, "NATS_URL": bus_url}

    def make(port: int | None = None) -> PythonService:
        made.append(worker_process(f"worker-{len(made)}", folder, settings, port))
        return made[-1]

    yield make
    for worker in made:
        await worker.stop(5)


async def publish(bus: Client, count: int, **fields: Any) -> int:
    """Messages of `PER_MESSAGE` events each, over all partitions. Returns the number of events."""
    for number in range(count):
        org_id = f"org_{number % 32}"
        events = [cloudevent(**{"org_id": org_id} | fields) for _ in range(PER_MESSAGE)]
        await bus.jetstream().publish(usage_subject(usage_partition(events[0]["subject"])), message(*events))
    return count * PER_MESSAGE


async def waiting(bus: Client) -> int:
    return (await bus.jetstream().stream_info(USAGE.name)).state.messages


async def held(bus: Client) -> int:
    """Messages that were delivered and not acknowledged."""
    infos = [await bus.jetstream().consumer_info(each.stream, each.name) for each in CONSUMERS]
    return sum(info.num_ack_pending or 0 for info in infos)


async def test_sigterm_commits_and_acknowledges_what_the_worker_holds(
    bus: Client, database: "asyncpg.Connection[asyncpg.Record]", new_worker: Workers
):
    sent = await publish(bus, 300)
    worker = new_worker()
    await worker.start()
    await eventually(lambda: database.fetchval("SELECT sum(events) FROM usage_monthly"), 30)
    os.kill(worker.pid, signal.SIGTERM)
    assert await worker.wait() == 0
    recorded = await database.fetchval("SELECT sum(events) FROM usage_monthly")

    async def the_rest_waits_for_others() -> bool:
        return await held(bus) == 0 and recorded + PER_MESSAGE * await waiting(bus) == sent

    await eventually(the_rest_waits_for_others, 5)  # long before the bus would take them back


async def test_sigterm_ends_a_worker_that_is_just_starting(new_worker: Workers, folder: Path):
    worker = new_worker()
    worker._ready = None
    await worker.start()
    log = folder / "logs" / "worker-0.log"
    await eventually(lambda: log.exists() and "worker_ready" in log.read_text(), 30)
    os.kill(worker.pid, signal.SIGTERM)
    await eventually(lambda: '"worker_stopped"' in log.read_text(), 15)
    assert await worker.wait() == 0


async def test_workers_share_the_load(bus: Client, new_worker: Workers):
    ports = machine.free_port(), machine.free_port()
    for port in ports:
        await new_worker(port).start()

    async def recorded(port: int) -> int:
        async with httpx.AsyncClient() as client:
            metrics = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        found = [line for line in metrics.splitlines() if line.startswith('metering_events_total{outcome="recorded"}')]
        return int(float(found[0].split()[1])) if found else 0

    sent = 0

    async def both() -> bool:
        nonlocal sent
        sent += await publish(bus, 20)
        return all([await recorded(port) for port in ports])

    await eventually(both, 30)

    async def all_recorded() -> bool:
        return sum([await recorded(port) for port in ports]) == sent

    await eventually(all_recorded, 30)


async def test_nothing_waits_behind_a_message_that_postgres_refuses(
    bus: Client, database: "asyncpg.Connection[asyncpg.Record]", new_worker: Workers
):
    await database.execute("ALTER TABLE usage_events ADD CONSTRAINT no_poison CHECK (model <> 'poison') NOT VALID")
    good = await publish(bus, 40)
    poison = await publish(bus, 1, model="poison", id="poison")
    good += await publish(bus, 40)
    assert poison
    worker = new_worker()
    await worker.start()

    async def all_good_recorded() -> bool:
        return bool(await database.fetchval("SELECT sum(events) FROM usage_monthly") == good)

    await eventually(all_good_recorded, 30)

    async def only_the_poison_waits() -> bool:
        return await waiting(bus) == 1

    await eventually(only_the_poison_waits)
    await eventually(lambda: database.fetchval("SELECT max(attempts) >= 1 FROM failed_deliveries"))
    await database.execute("ALTER TABLE usage_events DROP CONSTRAINT no_poison")  # somebody mended it

    async def nothing_waits() -> bool:
        return await waiting(bus) == 0

    await eventually(nothing_waits, 30)
    assert await database.fetchval("SELECT count(*) FROM usage_events WHERE model = 'poison'") == 1
    assert await database.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_what_postgres_refuses_for_good_is_a_dead_letter(
    bus: Client, bus_url: str, metering_database_url: str, database: "asyncpg.Connection[asyncpg.Record]"
):
    await database.execute("ALTER TABLE usage_events ADD CONSTRAINT no_poison CHECK (model <> 'poison') NOT VALID")
    good = await publish(bus, 10)
    body = message(cloudevent(model="poison"), cloudevent())
    await bus.jetstream().publish("usage.recorded.3", body)

    async def nothing_waits() -> bool:
        return await waiting(bus) == 0

    settings = Settings(database_url=metering_database_url, nats_url=bus_url)
    async with (
        asyncpg.create_pool(settings.database_url, init=prepare_session, server_settings=SESSION_SETTINGS) as pool,
        asyncpg.create_pool(settings.database_url) as side_pool,
    ):
        await open_due_month(side_pool, NOON)
        broker = connect_bus(settings, **consume_policy(side_pool, delays_seconds=(0.05,)))
        subscribe(broker, Recorder(pool, PriceBook.load()))
        await broker.start()
        try:
            letter = await eventually(
                lambda: database.fetchrow("SELECT payload, attempts, reason FROM dead_letters"), 30
            )
            await eventually(nothing_waits, 30)  # the letter is kept before the bus is told so
        finally:
            await broker.stop()
    assert letter is not None
    assert (letter["payload"], letter["attempts"]) == (body, 5)
    assert "no_poison" in letter["reason"]
    assert await database.fetchval("SELECT sum(events) FROM usage_monthly") == good


async def test_unpriced_usage_is_told_to_everybody_once(bus: Client, new_worker: Workers):
    workers = [new_worker(), new_worker()]
    for worker in workers:
        await worker.start()
    repeated = cloudevent(org_id="org_a", provider="acme-llm", model="m1", id="first")
    for _ in range(10):
        await bus.jetstream().publish("usage.recorded.1", message(repeated))
        await publish(bus, 4, org_id="org_a", provider="acme-llm", model="m1")
        await publish(bus, 1, org_id="org_b", provider="acme-llm", model="m1")

    async def settled() -> bool:
        return await waiting(bus) == 0

    await eventually(settled, 30)
    await workers[0].stop(20)
    await workers[1].stop(20)  # drains the relay too
    # Not all that was told: a worker that begins to close months only now says so of this one.
    told = await bus.jetstream().stream_info(EVENTS.name, subjects_filter="events.metering.UnpricedUsageSeen.*")
    subjects = [f"events.metering.UnpricedUsageSeen.{org_id}" for org_id in ("org_a", "org_b")]
    assert told.state.subjects == dict.fromkeys(subjects, 1)
    seen = [await bus.jetstream().get_last_msg(EVENTS.name, subject) for subject in subjects]
    envelope, event = decode(seen[0].data or b"")
    assert isinstance(event, UnpricedUsageSeen)
    assert (event.provider, event.model, event.month) == ("acme-llm", "m1", "2026-06")
    assert envelope.subject in {"org_a", "org_b"}
    assert "acme-llm" in event.reason


async def test_usage_is_accepted_while_postgres_is_away_and_recorded_when_it_is_back(
    private_postgres: Callable[[], Awaitable[EmbeddedPostgres]], nats_server: str
):
    postgres = await private_postgres()
    server = PostgresServer(postgres.url())
    template = await server.create_database()
    connection = await asyncpg.connect(server.url_of(template))
    await migrate(connection, "metering")
    await connection.close()
    async with metering_platform(server, template, nats_server) as platform:
        await platform.record(native(org_id="org_a", id="before"))
        await postgres.kill()
        answer = await platform.post(native(org_id="org_a", id="meanwhile"))
        assert answer.status_code == 202
        answer = await platform.client.get("/api/usage/events?org_id=org_a", headers=bearer(ALL_SCOPES))
        assert (answer.status_code, answer.headers["Content-Type"]) == (503, "application/problem+json")
        assert answer.headers["Retry-After"]
        assert json.loads((await platform.client.get("/readyz")).text) == {"status": "ready", "missing": ["postgres"]}
        assert (await platform.client.get("/healthz")).status_code == 200
        await postgres.start()
        await platform.settled()
        log = await platform.get("/api/usage/events", org_id="org_a")
        assert sorted(each["id"] for each in log.json()["events"]) == ["before", "meanwhile"]
        assert json.loads((await platform.client.get("/readyz")).text) == {"status": "ready"}
