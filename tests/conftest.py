"""The servers that tests share, and what each test gets of its own. `servers` says where they come from."""

import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
import servers
from auth_platform import AuthPlatform, auth_platform
from billing_platform import BillingPlatform, billing_platform
from composed import Composed, composed
from mailing_world import MailingWorld, mailing_world
from metering_platform import MeteringPlatform, metering_platform
from servers import PostgresServer
from webhook_lanes import LanesWorld, lanes_world
from webhook_receiver import Receiver, receiver

from aragora.chassis.migrate import migrate
from aragora.contracts.ids import new_id
from aragora_nats.configuration import STREAM_MAX_BYTES
from aragora_nats.connecting import connect_once
from aragora_nats.topology import apply_topology
from standalone.nats import EmbeddedNats
from standalone.postgres import EmbeddedPostgres

LONGEST_FIRST = (
    "system/test_schemathesis.py",
    "system/test_revocation_everywhere.py",
    "faults/test_reservations.py",
    "system/test_separate_services.py",
    "integration/test_limit_model.py",
    "system/test_standalone.py",
    "faults/test_exactly_once.py",
    "integration/test_metering_worker.py",
    "system/test_every_route.py",
    "integration/test_embedded_postgres.py",
    "faults/test_reservations_undecided.py",
    "system/test_standalone_services.py",
    "integration/test_billing_paid_changes.py",
    "integration/test_ingest_forms.py",
    "system/test_readme_tour.py",
    "faults/test_reminders_over_restarts.py",
    "faults/test_notifier_crashes.py",
    "system/test_logs_hold_no_secrets.py",
    "integration/test_webhook_permutations.py",
    "integration/test_year.py",
    "integration/test_auth_timing.py",
    "faults/test_stripe_crashes.py",
)
"""Files that take from 20 s to minutes. Side by side they begin first, so that none of them is left over at the end.
Those of the whole system, which start many processes, stand between others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    place = {here / path: number for number, path in enumerate(LONGEST_FIRST)}
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: place.get(item.path, len(place)))
    for item in items:
        if item.get_closest_marker("alone") and not {here / "system", here / "faults"} & set(item.path.parents):
            raise pytest.UsageError(f"{item.nodeid}: `make test` looks in system and faults for what runs alone.")


@pytest.fixture(scope="session")
async def postgres_server() -> AsyncIterator[PostgresServer]:
    """The run's Postgres server."""
    async with servers.postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
async def nats_server() -> AsyncIterator[str]:
    """The run's NATS server: its operator's URL."""
    async with servers.nats_server() as url:
        yield url


@pytest.fixture
async def empty_database_url(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """A new, empty database of this test's own."""
    name = await postgres_server.create_database()
    yield postgres_server.url_of(name)
    await postgres_server.drop_database(name)


@pytest.fixture(scope="session")
async def metering_template(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """The name of a database with metering's schema, to copy."""
    async with _template(postgres_server, "metering") as name:
        yield name


@pytest.fixture(scope="session")
async def billing_template(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """The name of a database with billing's schema, to copy."""
    async with _template(postgres_server, "billing") as name:
        yield name


@pytest.fixture(scope="session")
async def auth_template(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """The name of a database with auth's schema, to copy."""
    async with _template(postgres_server, "auth") as name:
        yield name


@pytest.fixture(scope="session")
async def notifier_template(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """The name of a database with the notifier's schema, to copy."""
    async with _template(postgres_server, "notifier") as name:
        yield name


@asynccontextmanager
async def _template(postgres_server: PostgresServer, package: str) -> AsyncIterator[str]:
    name = await postgres_server.create_database()
    connection = await asyncpg.connect(postgres_server.url_of(name))
    try:
        await migrate(connection, package)
    finally:
        await connection.close()
    yield name
    await postgres_server.drop_database(name)


@pytest.fixture
async def metering_database_url(postgres_server: PostgresServer, metering_template: str) -> AsyncIterator[str]:
    """A new database of this test's own, with metering's schema."""
    name = await postgres_server.create_database(metering_template)
    yield postgres_server.url_of(name)
    await postgres_server.drop_database(name)


@pytest.fixture
async def billing_database_url(postgres_server: PostgresServer, billing_template: str) -> AsyncIterator[str]:
    """A new database of this test's own, with billing's schema."""
    name = await postgres_server.create_database(billing_template)
    yield postgres_server.url_of(name)
    await postgres_server.drop_database(name)


@pytest.fixture
async def auth_database_url(postgres_server: PostgresServer, auth_template: str) -> AsyncIterator[str]:
    """A new database of this test's own, with auth's schema."""
    name = await postgres_server.create_database(auth_template)
    yield postgres_server.url_of(name)
    await postgres_server.drop_database(name)


@pytest.fixture
async def notifier_database_url(postgres_server: PostgresServer, notifier_template: str) -> AsyncIterator[str]:
    """A new database of this test's own, with the notifier's schema."""
    name = await postgres_server.create_database(notifier_template)
    yield postgres_server.url_of(name)
    await postgres_server.drop_database(name)


@pytest.fixture(scope="session")
async def running_auth(postgres_server: PostgresServer, auth_template: str) -> AsyncIterator[AuthPlatform]:
    """Auth as it runs in production: an API process and a worker process, shared by all tests, which meet as strangers.

    On a bus of its own: other tests begin by deleting all streams of the one that is shared.
    """
    async with servers.scratch_dir() as folder:
        nats = EmbeddedNats(folder, servers.NATS_PASSWORDS)
        await nats.start()
        try:
            async with auth_platform(postgres_server, auth_template, nats.url()) as running:
                yield running
        finally:
            await nats.stop(10)


@pytest.fixture(scope="module")
async def platform(
    postgres_server: PostgresServer, metering_template: str, nats_server: str
) -> AsyncIterator[MeteringPlatform]:
    """Metering as it runs in production: an API process and a worker process, shared by a module's tests."""
    async with metering_platform(postgres_server, metering_template, nats_server) as running:
        yield running


@pytest.fixture(scope="module")
async def running_billing(
    postgres_server: PostgresServer, billing_template: str, nats_server: str
) -> AsyncIterator[BillingPlatform]:
    """Billing as it runs in production: an API process and a worker process, shared by a module's tests."""
    async with billing_platform(postgres_server, billing_template, nats_server) as running:
        yield running


@pytest.fixture(scope="session")
async def containers() -> AsyncIterator[Composed]:
    """The platform in containers, which the tests of a run share."""
    async with composed() as running:
        yield running


@pytest.fixture
def org() -> str:
    """An organization that nobody else has."""
    return f"org_{new_id().hex}"


@pytest.fixture
def user() -> str:
    """A person whom nobody else knows."""
    return f"user_{new_id().hex}"


@pytest.fixture
async def nats_url(nats_server: str) -> str:
    """The NATS server without any stream: the operator's URL."""
    await servers.delete_streams(nats_server)
    return nats_server


@pytest.fixture
async def bus_url(nats_url: str) -> str:
    """The NATS server with the platform's topology, empty: the operator's URL."""
    client = await connect_once(nats_url)
    try:
        await apply_topology(client.jetstream(), replicas=1, max_bytes=STREAM_MAX_BYTES)
    finally:
        await client.close()
    return nats_url


@pytest.fixture
async def private_postgres() -> AsyncIterator[Callable[[], Awaitable[EmbeddedPostgres]]]:
    """Starts durable Postgres servers that the test may kill and start again."""
    async with AsyncExitStack() as stack:

        async def start() -> EmbeddedPostgres:
            folder = await stack.enter_async_context(servers.scratch_dir())
            server = EmbeddedPostgres(folder, secrets.token_urlsafe(), settings=servers.SMALL)
            stack.push_async_callback(server.stop, 10)
            await server.start()
            return server

        yield start


@pytest.fixture
async def private_nats() -> AsyncIterator[Callable[[], Awaitable[EmbeddedNats]]]:
    """Starts NATS servers that the test may kill and start again. `url(account)` gives each account's URL."""
    async with AsyncExitStack() as stack:

        async def start() -> EmbeddedNats:
            folder = await stack.enter_async_context(servers.scratch_dir())
            server = EmbeddedNats(folder, servers.NATS_PASSWORDS)
            stack.push_async_callback(server.stop, 10)
            await server.start()
            return server

        yield start


@pytest.fixture(scope="module")
async def running_mailing(
    postgres_server: PostgresServer, notifier_template: str, nats_server: str
) -> AsyncIterator[MailingWorld]:
    """A notifier and a mail server, shared by a module's tests."""
    async with mailing_world(postgres_server, notifier_template, nats_server) as running:
        yield running


@pytest.fixture
async def office(running_mailing: MailingWorld) -> MailingWorld:
    """The notifier of which the test sends the mail, with nothing in its queue."""
    await running_mailing.begin_anew()
    return running_mailing


@pytest.fixture(scope="module")
async def running_lanes(postgres_server: PostgresServer, notifier_template: str) -> AsyncIterator[LanesWorld]:
    """Webhook lanes, shared by a module's tests."""
    async with lanes_world(postgres_server, notifier_template) as running:
        yield running


@pytest.fixture
async def webhooks(running_lanes: LanesWorld) -> AsyncIterator[LanesWorld]:
    """Webhook lanes without the endpoints of other tests, and in the present."""
    yield running_lanes
    await running_lanes.pool.execute("DELETE FROM webhook_endpoints")
    running_lanes.clock.ahead = timedelta()


@pytest.fixture
async def hook() -> AsyncIterator[Receiver]:
    """A receiver of webhooks."""
    async with receiver() as running:
        yield running
