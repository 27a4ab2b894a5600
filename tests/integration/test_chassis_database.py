"""Connections end when the other side has vanished; of several hosts, one that has vanished keeps nobody."""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import asyncpg
import pytest
from servers import eventually
from vanishing import Vanishing

from aragora.chassis import database
from aragora.chassis.sql import Connection
from aragora.chassis.transient import is_transient

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Only on Linux a host vanishes without privileges.")

AT_WORK = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1) AND wait_event IN ('advisory', 'PgSleep')"
THERE = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1)"
NOTICED_SECONDS = 20
"""With the times of `soon` it is two to four; kernels' timers are not exact, and machines are busy."""


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "IDLE_SECONDS", 1)
    monkeypatch.setattr(database, "INTERVAL_SECONDS", 1)
    monkeypatch.setattr(database, "QUESTIONS", 1)


@pytest.fixture
async def between(empty_database_url: str) -> AsyncIterator[Vanishing]:
    """Stands before the database."""
    async with Vanishing(urlsplit(empty_database_url).port or 5432).running() as running:
        yield running


@pytest.fixture
async def direct(empty_database_url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(empty_database_url)
    yield connection
    await connection.close()


async def at_work(direct: Connection, pids: list[int]) -> bool:
    return bool(await direct.fetchval(AT_WORK, pids) == len(pids))


@pytest.mark.usefixtures("soon")
async def test_who_waits_for_a_vanished_server_hears_of_it(
    between: Vanishing, direct: Connection, empty_database_url: str
):
    async with (
        database.open_pool(between.url(empty_database_url), min_size=3, max_size=3) as pool,
        AsyncExitStack() as on,
    ):
        _idle, waits, asks = [await on.enter_async_context(pool.acquire()) for _ in range(3)]
        waiting = asyncio.create_task(waits.execute("SELECT pg_sleep(600)"))
        await eventually(lambda: at_work(direct, [waits.get_server_pid()]))
        between.vanish()
        async with asyncio.timeout(NOTICED_SECONDS):
            answers = await asyncio.gather(waiting, asks.execute("SELECT 1"), return_exceptions=True)
            await eventually(lambda: pool.get_size() == 0, NOTICED_SECONDS)
        assert [isinstance(each, Exception) and is_transient(each) for each in answers] == [True, True]


@pytest.mark.usefixtures("soon")
async def test_what_a_vanished_client_had_is_free_again(
    between: Vanishing, direct: Connection, empty_database_url: str
):
    url = between.url(empty_database_url)
    async with database.open_pool(url, min_size=3, max_size=3) as pool, AsyncExitStack() as on:
        has, wants, works = [await on.enter_async_context(pool.acquire()) for _ in range(3)]
        pids = [each.get_server_pid() for each in (has, wants, works)]
        await has.execute("SELECT pg_advisory_lock(28)")
        asked = [
            asyncio.create_task(wants.execute("SELECT pg_advisory_lock(28)")),
            asyncio.create_task(works.execute("SELECT pg_sleep(600)")),
        ]
        await eventually(lambda: at_work(direct, pids[1:]))
        between.vanish()

        async def gone() -> bool:
            return bool(await direct.fetchval(THERE, pids) == 0)

        await eventually(gone, NOTICED_SECONDS)
        assert await direct.fetchval("SELECT pg_try_advisory_lock(28)")
        await asyncio.gather(*asked, return_exceptions=True)


async def test_a_host_that_has_vanished_does_not_keep_from_the_next(between: Vanishing, empty_database_url: str):
    parts = urlsplit(empty_database_url)
    user, _, here = parts.netloc.rpartition("@")
    url = parts._replace(netloc=f"{user}@127.0.0.1:{between.port},{here}").geturl()
    between.vanish()
    async with database.open_pool(url, min_size=0, max_size=3, timeout=6) as pool:
        began = time.monotonic()
        async with pool.acquire():
            assert 3 <= time.monotonic() - began < 6, "half of the time is for each"
            began = time.monotonic()
            async with pool.acquire(), pool.acquire():
                assert time.monotonic() - began < 3, "who answered is asked first"
    async with database.open_pool(url, min_size=0, max_size=3, timeout=60) as pool:
        with pytest.raises(TimeoutError):
            async with pool.acquire(timeout=1):
                pytest.fail("the first host has answered")
        began = time.monotonic()
        async with pool.acquire():
            assert time.monotonic() - began < 30, "who had little patience has taught it"


async def test_a_refusal_of_the_last_host_is_told(empty_database_url: str):
    parts = urlsplit(empty_database_url)
    user, _, here = parts.netloc.rpartition("@")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = parts._replace(netloc=f"{user}@{here},127.0.0.1:{taken.getsockname()[1]}").geturl()
        with pytest.raises(ConnectionRefusedError):
            await database.connect(f"{url}?target_session_attrs=standby")
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await database.connect(f"{empty_database_url}_that_is_not_there")


async def test_each_side_asks_the_other_after_ten_seconds(empty_database_url: str):
    connection = await database.connect(empty_database_url, server_settings={"application_name": "asking"})
    try:
        rows = await connection.fetch("SELECT name, setting FROM pg_settings WHERE name ~ '^(tcp_|client_conn)'")
        assert {row["name"]: row["setting"] for row in rows} == {
            "client_connection_check_interval": "10000",
            "tcp_keepalives_count": "3",
            "tcp_keepalives_idle": "10",
            "tcp_keepalives_interval": "5",
            "tcp_user_timeout": "25000",
        }
        assert await connection.fetchval("SHOW application_name") == "asking"
        assert isinstance(connection, asyncpg.Connection)
        connected = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
        options = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
        assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        asked = [connected.getsockopt(socket.IPPROTO_TCP, getattr(socket, each)) for each in options]
        assert asked == [10, 5, 3, 25_000]
    finally:
        await connection.close()
