"""Every service lists, retries and discards its own dead letters, with its own rights: on real servers."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import asyncpg
import pytest
from contracts.schemas import example
from faststream.nats import NatsBroker
from servers import eventually

import auth.handlers
import billing.handlers
import metering.handlers
import notifier.handlers
from aragora.chassis import dead_letters
from aragora.chassis.bus import connect_bus
from aragora.chassis.consume import consume_policy
from aragora.chassis.dead_letters import KeptLetter, Letter
from aragora.chassis.sql import Pool
from aragora.contracts.topology import ACCOUNTS, CONSUMERS, EVENTS, retried_on
from aragora_nats.topology import apply_topology
from standalone.nats import EmbeddedNats

EVENT = {
    "auth": "aragora.billing.EntitlementsChanged.v1",
    "metering": "aragora.auth.UserErased.v1",
    "billing": "aragora.auth.MemberJoined.v1",
    "notifier": "aragora.auth.UserErased.v1",
}
"""What each service could not handle, and can now."""
DONE = {
    "auth": "SELECT count(*) FROM entitlements",
    "metering": "SELECT count(*) FROM erased_people",
    "billing": "SELECT count(*) FROM organization_members",
    "notifier": "SELECT count(*) FROM erased_people",
}
SUBSCRIBE: dict[str, Callable[[NatsBroker, Pool], None]] = {
    "auth": auth.handlers.subscribe,
    "metering": metering.handlers.follow_erasures,
    "billing": lambda broker, pool: billing.handlers.subscribe(broker, pool, lambda: datetime.now(UTC)),
    "notifier": lambda broker, pool: notifier.handlers.subscribe(broker, pool, lambda: datetime.now(UTC)),
}
StartNats = Callable[[], Awaitable[EmbeddedNats]]


def letter_of(service: str) -> Letter:
    _, author, event, _ = EVENT[service].split(".")
    body = example(EVENT[service])
    return Letter(
        subject=f"events.{author}.{event}.{body['subject']}",
        payload=json.dumps(body).encode(),
        reason="ValueError: a bug that is mended",
        org_id=body["subject"],
        source_stream=EVENTS.name,
        source_sequence=1,
    )


async def kept(pool: Pool, letter: Letter) -> KeptLetter:
    async with pool.acquire() as connection:
        await dead_letters.record(connection, [letter])
        (found,) = await dead_letters.page(connection)
        return found


async def letters(pool: Pool, status: dead_letters.Status) -> list[KeptLetter]:
    async with pool.acquire() as connection:
        return await dead_letters.page(connection, status=status)


@pytest.fixture
def url(
    service: str,
    auth_database_url: str,
    metering_database_url: str,
    billing_database_url: str,
    notifier_database_url: str,
) -> str:
    return {
        "auth": auth_database_url,
        "metering": metering_database_url,
        "billing": billing_database_url,
        "notifier": notifier_database_url,
    }[service]


@pytest.fixture
async def pool(url: str) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(url, min_size=0, max_size=5) as pool:
        yield pool


@pytest.fixture
async def bus(private_nats: StartNats) -> EmbeddedNats:
    server = await private_nats()
    operator = await server.connect()
    await apply_topology(operator.jetstream(), replicas=1, max_bytes=2**28)
    await operator.close()
    return server


@asynccontextmanager
async def worker(service: str, bus: EmbeddedNats, pool: Pool) -> AsyncIterator[None]:
    """Its consumers of events, as its worker has them; the first failure of a message makes it a dead letter."""
    (account,) = (each for each in ACCOUNTS if each.name == service)
    broker = connect_bus(bus.url(service), None, None, account, **consume_policy(pool, max_attempts=1))
    SUBSCRIBE[service](broker, pool)
    await broker.start()
    try:
        yield
    finally:
        await broker.stop()


def run(service: str, bus: EmbeddedNats, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the service, as somebody types it in a terminal of 80 columns."""
    settings = {
        "DATABASE_URL": url, "NATS_URL": bus.url(service), "ARAGORA_SEALING_KEYS": "k" * 40, "COLUMNS": "80",
        "ARAGORA_JWT_SECRET": "s" * 40,
    }  # fmt: skip
    command = [sys.executable, "-P", "-m", service, "dead-letters", *arguments]
    return subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("service", EVENT)
async def test_a_retried_letter_is_handled_by_its_service_and_heard_by_nobody_else(
    service: str, bus: EmbeddedNats, pool: Pool, url: str
):
    letter = await kept(pool, letter_of(service))
    retried = run(service, bus, url, "retry", str(letter.id))
    assert (retried.returncode, retried.stdout) == (0, f"{letter.id} is on its way again.\n"), retried.stderr
    async with worker(service, bus, pool):
        await eventually(lambda: pool.fetchval(DONE[service]))
    assert [one.id for one in await letters(pool, "retried")] == [letter.id]
    operator = await bus.connect()
    own = retried_on(service, letter.subject)
    for consumer in CONSUMERS:
        info = await operator.jetstream().consumer_info(consumer.stream, consumer.name)
        assert (consumer.retries == own) == (info.delivered.stream_seq == 1), consumer.name
        assert info.num_pending == 0
    await operator.close()


@pytest.mark.parametrize("service", ["billing", "metering"])
async def test_a_letter_that_fails_again_is_the_same_letter_open_again(service: str, bus: EmbeddedNats, pool: Pool):
    body = letter_of(service)
    letter = await kept(pool, Letter(subject=body.subject, payload=b"{}", reason="r", attempts=5))
    client = await bus.connect(service)
    async with worker(service, bus, pool), pool.acquire() as connection:
        at = datetime.now(UTC)
        assert await dead_letters.retry(connection, letter, service, client.jetstream(), at=at, by="a test")
        await eventually(lambda: letters(pool, "open"))
    (again,) = await letters(pool, "open")
    assert (again.id, again.subject, again.attempts) == (letter.id, letter.subject, 6)
    assert again.reason != "r"
    await client.close()


@pytest.mark.parametrize("service", ["notifier"])
async def test_letters_are_listed_and_shown_whole(service: str, bus: EmbeddedNats, pool: Pool, url: str):
    letter = await kept(pool, letter_of(service))
    listed = run(service, bus, url, "list")
    assert listed.stdout.splitlines()[0].startswith(f"{letter.id}  open  "), listed.stderr
    assert "a bug that is mended" in listed.stdout
    shown = run(service, bus, url, "show", str(letter.id)).stdout
    assert letter.subject in shown
    assert letter.payload.decode() in shown


@pytest.mark.parametrize("service", ["auth"])
async def test_what_the_bus_does_not_take_stays_open(service: str, bus: EmbeddedNats, pool: Pool, url: str):
    unheard = await kept(pool, Letter(subject="events.auth.Nothing.org_a", payload=b"{}", reason="r"))
    refused = run(service, bus, url, "retry", str(unheard.id))
    assert (refused.returncode, "discard the letter" in refused.stderr) == (1, True), refused.stderr
    assert run(service, bus, url, "discard", str(unheard.id)).returncode == 0
    again = run(service, bus, url, "retry", str(unheard.id))
    assert (again.returncode, "is discarded already" in again.stderr) == (1, True), again.stderr
    letter = await kept(pool, letter_of(service))
    operator = await bus.connect()
    await operator.jetstream().delete_stream(EVENTS.name)
    await operator.close()
    away = run(service, bus, url, "retry", str(letter.id))
    assert (away.returncode, "stays open" in away.stderr, "Traceback" in away.stderr) == (1, True, False), away.stderr
    assert [one.id for one in await letters(pool, "open")] == [letter.id]
