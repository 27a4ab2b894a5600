"""Real Postgres and NATS for the tests, and a way to wait without sleeping.

Both servers come, in this order, from

1. a URL: ARAGORA_TEST_POSTGRES_URL (a user that may create databases) and ARAGORA_TEST_NATS_URL (a user that may do
   everything). **All streams of that NATS server are deleted before every test**;
2. testcontainers, where Docker answers;
3. the embedded servers of `standalone`.

ARAGORA_TEST_SERVERS=embedded or =testcontainers leaves no choice between the last two. With pytest-xdist every worker
has servers of its own.
"""

import asyncio
import fcntl
import inspect
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from hypothesis import HealthCheck, settings

from aragora.contracts.topology import ACCOUNTS
from aragora_nats.configuration import configuration
from aragora_nats.connecting import connect_once
from standalone.nats import EmbeddedNats
from standalone.postgres import EmbeddedPostgres

NATS_PASSWORDS = {account.name: f"{account.name}-{secrets.token_urlsafe(12)}" for account in ACCOUNTS}
SMALL = {"shared_buffers": "128MB", "max_wal_size": "1GB", "min_wal_size": "80MB", "max_connections": "200"}
"""Settings of a Postgres that shares the machine with other tests."""

Found = TypeVar("Found")


@overload
async def eventually(
    condition: Callable[[], Awaitable[Found]], timeout_seconds: float = 10, *, what: str = ""
) -> Found: ...
@overload
async def eventually(condition: Callable[[], Found], timeout_seconds: float = 10, *, what: str = "") -> Found: ...
async def eventually(condition: Callable[[], Any], timeout_seconds: float = 10, *, what: str = "") -> Any:
    """Poll until the condition is true and return what it returned; past the deadline, fail with what it was last.

    The longer it takes, the rarer: who asks on and on keeps from its work what it waits for.
    """
    begun = time.monotonic()
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        waited_seconds = time.monotonic() - begun
        if waited_seconds > timeout_seconds:
            pytest.fail(f"not within {timeout_seconds} s: {what or inspect.getsource(condition).strip()} is {found!r}")
        await asyncio.sleep(min(max(0.01, waited_seconds / 4), 0.1))


async def cut(url: str, sessions: str) -> int:
    """End the sessions in a database whose `pid` the query gives. Returns how many, when this side has heard of it.

    Before that a pool may hand out a connection that is at its end: what comes next fails on it now and then, and says
    nothing about what was meant to be seen.
    """
    connection, witness = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        own = [connection.get_server_pid(), witness.get_server_pid()]
        found = await connection.fetch(f"SELECT pid FROM ({sessions}) AS s WHERE pid <> ALL($1::int[])", own)
        pids = [row["pid"] for row in found]
        end = "SELECT pg_terminate_backend(pid, $2) FROM unnest($1::int[]) AS pid"
        for wait_milliseconds in (0, 10_000):  # first all of them, then one after the other
            await connection.execute(end, pids, wait_milliseconds)
        await connection.execute(end, own[1:], 10_000)
        await eventually(witness.is_closed)  # whose end came after all others', and is heard of no sooner
    finally:
        await connection.close()
    return len(pids)


async def eventually_for_good(condition: Callable[[], Awaitable[bool]], timeout_seconds: float, *, what: str) -> None:
    """Poll until the condition was true ten times in a row, over a tenth of a second or more.

    For what consumers have pending: the bus counts a message there a moment after it has confirmed it.
    """
    in_a_row = 0

    async def lasts() -> bool:
        nonlocal in_a_row
        in_a_row = in_a_row + 1 if await condition() else 0
        return in_a_row >= 10

    await eventually(lasts, timeout_seconds, what=what)


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A Postgres server and the URL of a user that may create databases."""

    url: str

    def url_of(self, database: str) -> str:
        """The same user's URL of another database."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{database}"))

    async def create_database(self, template: str | None = None) -> str:
        """Create a database with a new name, as a copy of the template if one is given. Returns the name.

        The copy is of files: through the write-ahead log, which is the default, it takes ten times as long.
        """
        name = f"test_{secrets.token_hex(6)}"
        await self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template or "template1"}" STRATEGY file_copy')
        return name

    async def drop_database(self, name: str) -> None:
        """Drop it, whoever is still connected."""
        await self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@asynccontextmanager
async def scratch_dir() -> AsyncIterator[Path]:
    """A directory of its own, removed afterwards. Not pytest's: that one is closed to the user Postgres runs as."""
    path = Path(tempfile.mkdtemp(prefix="aragora-test-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@asynccontextmanager
async def starting_alone() -> AsyncIterator[None]:
    """Hold back others, in whatever process, that start an `aragora up`: two at once would find the same ports free."""
    with (Path(tempfile.gettempdir()) / "aragora-test-starting.lock").open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        yield


@asynccontextmanager
async def postgres_server() -> AsyncIterator[PostgresServer]:
    """A Postgres server for this run."""
    given = os.environ.get("ARAGORA_TEST_POSTGRES_URL")
    if given:
        yield PostgresServer(given)
    elif _in_containers():
        from testcontainers.community.postgres import PostgresContainer  # noqa: PLC0415  slow to import, seldom needed

        container = PostgresContainer("postgres:18", driver=None)
        container.with_command("postgres -c fsync=off -c max_connections=200")
        with container:
            yield PostgresServer(container.get_connection_url())
    else:
        async with scratch_dir() as folder:
            server = EmbeddedPostgres(folder, secrets.token_urlsafe(), settings=SMALL, durable=False)
            await server.start()
            try:
                yield PostgresServer(server.url())
            finally:
                await server.stop(10)


@asynccontextmanager
async def nats_server() -> AsyncIterator[str]:
    """A NATS server for this run: the URL of its operator."""
    given = os.environ.get("ARAGORA_TEST_NATS_URL")
    if given:
        if "PYTEST_XDIST_WORKER" in os.environ:
            raise pytest.UsageError("One NATS server for several workers: drop `-n` or ARAGORA_TEST_NATS_URL.")
        yield given
    elif _in_containers():
        from testcontainers.community.nats import NatsContainer  # noqa: PLC0415  slow to import, seldom needed

        config = configuration("/tmp/nats", 4222, NATS_PASSWORDS, host="0.0.0.0", monitoring_port=8222)  # noqa: S104, S108
        container = NatsContainer("nats:2.12").with_command("--config /nats.json")
        container.with_copy_into_container(config.encode(), "/nats.json")
        with container:
            host, port = container.nats_host_and_port()
            yield f"nats://operator:{NATS_PASSWORDS['operator']}@{host}:{port}"
    else:
        async with scratch_dir() as folder:
            server = EmbeddedNats(folder, NATS_PASSWORDS)
            await server.start()
            try:
                yield server.url()
            finally:
                await server.stop(10)


async def delete_streams(url: str) -> None:
    """Delete every stream, and with it its consumers and messages."""
    client = await connect_once(url)
    try:
        bus = client.jetstream()
        for stream in await bus.streams_info():
            if stream.config.name:
                await bus.delete_stream(stream.config.name)
    finally:
        await client.close()


def _in_containers() -> bool:
    choice = os.environ.get("ARAGORA_TEST_SERVERS", "")
    if choice not in {"", "embedded", "testcontainers"}:
        raise pytest.UsageError(f"ARAGORA_TEST_SERVERS is embedded or testcontainers, not {choice!r}.")
    return choice == "testcontainers" or (choice != "embedded" and _docker_answers())


def _docker_answers() -> bool:
    if not os.environ.get("DOCKER_HOST") and not Path("/var/run/docker.sock").exists():
        return False
    import docker  # type: ignore[import-untyped]  # noqa: PLC0415  slow to import, seldom needed

    try:
        client = docker.from_env(timeout=5)
    except docker.errors.DockerException:
        return False
    try:
        return bool(client.ping())
    except (docker.errors.DockerException, OSError):
        return False
    finally:
        client.close()


# Ryuk, which tidies up after a killed run, is one more image to pull; our own `with` tidies up after every other end.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
# No test meets a certificate of a public authority. To read all of those takes every HTTP client 30 ms.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = os.devnull
# By itself Hypothesis fails an example that takes 0.2 s: nothing promises that, and on a busy machine some do.
settings.register_profile("aragora", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("aragora")
