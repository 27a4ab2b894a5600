"""What metering's processes say about themselves, after each thing has happened once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import asyncpg
import pytest
from faststream.nats import NatsBroker
from limits import entitle, entitlements, limit
from metering_platform import MeteringPlatform, metering_platform, worker_process
from metrics_said import Said, said_here, scrape, wrong_in
from one_service import ALL_SCOPES, bearer
from servers import PostgresServer, eventually
from usage import cloudevent, message, native

from aragora.chassis.metrics import announce, keep_reading
from metering import metrics
from standalone import machine

RESERVATIONS = "/api/usage/reservations"


async def ask(platform: MeteringPlatform, path: str, body: Any = None) -> tuple[int, Any]:
    answer = await platform.client.post(path, json=body, headers=bearer(ALL_SCOPES))
    return answer.status_code, answer.json()


@pytest.fixture
async def platform(
    postgres_server: PostgresServer, metering_template: str, nats_server: str
) -> AsyncIterator[MeteringPlatform]:
    async with metering_platform(postgres_server, metering_template, nats_server, workers=0) as running:
        yield running


def has_read(said: Said) -> bool:
    """Whether it has read its database, and the bus."""
    return said.has("metering_period_close_overdue_seconds") and said.has("bus_consumer_pending_messages")


async def read_here(platform: MeteringPlatform) -> Said:
    """What a worker reads, which does so for the first time now."""
    stop, broker = asyncio.Event(), NatsBroker(platform.bus_url, logger=None)
    read, gauges = partial(metrics.read_overdue, close_days=3), [metrics.close_overdue]
    async with asyncpg.create_pool(platform.database_url, min_size=1, max_size=1) as pool, broker:
        await announce("metering", broker)
        reading = asyncio.create_task(keep_reading("metering", pool, broker, stop, read, gauges))

        def good() -> Said | None:
            found = said_here()
            return found if has_read(found) else None

        try:
            found = await eventually(good)
        finally:
            stop.set()
            await reading
    assert found is not None
    return found


async def test_each_thing_is_counted(platform: MeteringPlatform, org: str):
    port = machine.free_port()
    worker, at = worker_process("measured", platform.folder, platform.settings, port), f"http://127.0.0.1:{port}"
    await worker.start()
    try:
        now = datetime.now(UTC).isoformat()
        await entitle(platform.database_url, {org: entitlements(limit("api_calls", 2))}, datetime.now(UTC))
        question = {"org_id": org, "operations": [{"provider": "openai"}]}
        held = [await ask(platform, RESERVATIONS, question) for _ in range(3)]
        assert [status for status, _ in held] == [201, 201, 429]
        first, second = (answer["reservation_id"] for _, answer in held[:2])
        assert (await ask(platform, f"{RESERVATIONS}/{second}/release?org_id={org}"))[0] == 200
        assert (await ask(platform, RESERVATIONS, question | {"ttl_seconds": 1}))[0] == 201
        usage = native(org_id=org, occurred_at=now, reservation_id=first)
        await platform.record(usage, native(org_id=org, occurred_at=now, provider="acme", model="nobody-knows"))
        await platform.record(usage)
        await platform.bus.publish("usage.recorded.3", message(cloudevent(org_id=org, tokens_in=-7)))
        await platform.settled()

        async def expired() -> Said | None:
            said = await scrape(at)
            is_complete = said.of("relay_published_events_total", event="ReservationExpired") and has_read(said)
            return said if is_complete else None

        said, api = await eventually(expired, 20), await scrape(platform.url)
        assert said is not None
    finally:
        await worker.stop()
    read = await read_here(platform)
    for one in (said, api, read):
        assert wrong_in(one) == []
        assert one.of("build_info", component="metering") == 1
        assert one.of("bus_connected", component="metering") == 1
    assert {
        outcome: said.of("metering_events_total", outcome=outcome) for outcome in ("recorded", "repeated", "refused")
    } == {"recorded": 2, "repeated": 1, "refused": 1}
    assert said.of("metering_unpriced_events_total") == 1
    for name in ("metering_chunk_events", "metering_chunk_seconds", "metering_recorded_lag_seconds"):
        assert said.of(name, "count") == 3
    assert said.of("metering_recorded_lag_seconds", "sum") < 30
    assert said.of("bus_handler_seconds", "count") >= 3
    assert said.of("metering_reservations_total", outcome="settled") == 1
    for name, value in {"UnpricedUsageSeen": 1, "LimitReached": 3, "ReservationExpired": 1}.items():
        assert said.of("relay_published_events_total", event=name) == value, name
    for outcome in ("granted", "released"):
        assert api.of("metering_reservations_total", outcome=outcome) == {"granted": 3, "released": 1}[outcome]
    ended = [one.of("metering_reservations_total", outcome="expired") for one in (said, api)]
    assert sum(ended) == 1
    assert api.of("metering_limits_exceeded_total") == 1
    assert api.of("metering_limit_batch_questions", "count") == 5
    assert api.of("metering_limit_batch_seconds", "count") == 5
    assert api.of("metering_published_events_total") == 3
    assert api.of("metering_published_messages_total") == 2
    assert api.of("http_request_seconds", "count", route=RESERVATIONS, status="429") == 1
    assert api.of("service_ready", check="revocations") == 1
    assert read.of("dead_letters_open", component="metering") == 1
    assert (read.of("outbox_events"), read.of("outbox_oldest_seconds")) == (0, 0)
    assert read.of("metering_period_close_overdue_seconds") == 0
    for name in ("bus_consumer_pending_messages", "bus_consumer_unacknowledged_messages"):
        followed = {each.labels["consumer"] for each in read.samples if each.name == name}
        assert len({one for one in followed if one.startswith("metering-")}) == 6
        assert read.of(name, stream="USAGE") == 0
