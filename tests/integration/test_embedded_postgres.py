from collections.abc import Awaitable, Callable

import asyncpg
import psutil
import pytest
from servers import eventually

from standalone.postgres import Database, EmbeddedPostgres
from standalone.problems import DataDirUnusable, StartFailed

StartPostgres = Callable[[], Awaitable[EmbeddedPostgres]]

METERING = Database("aragora_metering", "it's: a/strange@password")


async def _count(postgres: EmbeddedPostgres) -> int:
    connection = await asyncpg.connect(postgres.url_of(METERING))
    try:
        return int(await connection.fetchval("SELECT count(*) FROM facts"))
    finally:
        await connection.close()


async def _with_facts(postgres: EmbeddedPostgres) -> None:
    await postgres.create_databases([METERING])
    connection = await asyncpg.connect(postgres.url_of(METERING))
    await connection.execute("CREATE TABLE facts AS SELECT generate_series(1, 1000) AS fact")
    await connection.close()


async def test_what_was_committed_survives_a_kill_and_a_stop(private_postgres: StartPostgres) -> None:
    postgres = await private_postgres()
    await _with_facts(postgres)
    await postgres.kill()
    with pytest.raises(OSError):  # noqa: PT011  refused, reset: any will do
        await _count(postgres)
    await postgres.start()
    assert await _count(postgres) == 1000
    await postgres.stop()
    await postgres.start()
    assert await _count(postgres) == 1000


async def test_it_is_durable_checksummed_and_in_utf8(private_postgres: StartPostgres) -> None:
    postgres = await private_postgres()
    connection = await asyncpg.connect(postgres.url())
    settings = {row["name"]: row["setting"] for row in await connection.fetch("SELECT name, setting FROM pg_settings")}
    await connection.close()
    expected = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "server_encoding": "UTF8",
        "jit": "off",
        "TimeZone": "UTC",
        "listen_addresses": "127.0.0.1",
        "shared_buffers": "16384",
    }
    assert {name: settings[name] for name in expected} == expected


async def test_creating_databases_again_changes_nothing_but_the_password(private_postgres: StartPostgres) -> None:
    postgres = await private_postgres()
    await _with_facts(postgres)
    await postgres.create_databases([METERING])
    assert await _count(postgres) == 1000
    await postgres.create_databases([Database(METERING.name, "new")])
    with pytest.raises(asyncpg.InvalidPasswordError):
        await _count(postgres)


async def test_a_role_cannot_enter_anothers_database(private_postgres: StartPostgres) -> None:
    postgres = await private_postgres()
    stranger = Database("aragora_stranger", "x")
    await postgres.create_databases([METERING, stranger])
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(postgres.url(METERING.name, stranger.name, stranger.password))


async def test_a_server_that_outlived_its_parent_is_stopped_by_the_next_start(private_postgres: StartPostgres) -> None:
    postgres = await private_postgres()
    await _with_facts(postgres)
    left_behind = psutil.Process(postgres.pid)
    next_one = EmbeddedPostgres(postgres.data_dir, postgres._password, postgres.port)
    await next_one.start()
    try:
        assert await _count(next_one) == 1000
        await eventually(lambda: not left_behind.is_running())
    finally:
        await next_one.stop()


async def test_a_taken_port_is_said_with_the_log(private_postgres: StartPostgres) -> None:
    postgres = await private_postgres()
    other = EmbeddedPostgres(postgres.data_dir / "other", "x", postgres.port)
    with pytest.raises(StartFailed, match=r"(?s)Postgres ended with 1 while starting.*Address already in use"):
        await other.start()


async def test_another_version_and_another_password_are_refused(private_postgres: StartPostgres) -> None:
    postgres = await private_postgres()
    await postgres.stop()
    with pytest.raises(DataDirUnusable, match="superuser password"):
        await EmbeddedPostgres(postgres.data_dir, "wrong", postgres.port).start()
    (postgres.data_dir / "postgres" / "PG_VERSION").write_text("17\n")
    with pytest.raises(DataDirUnusable, match="was made by Postgres 17"):
        await postgres.start()


async def test_half_made_files_of_an_interrupted_first_start_are_made_anew(private_postgres: StartPostgres) -> None:
    postgres = await private_postgres()
    await postgres.stop()
    (postgres.data_dir / "postgres").rename(postgres.data_dir / "postgres.new")
    await postgres.start()
    assert not (postgres.data_dir / "postgres.new").exists()


async def test_names_that_would_need_quoting_are_refused(private_postgres: StartPostgres) -> None:
    postgres = await private_postgres()
    with pytest.raises(ValueError, match="not a plain SQL name"):
        await postgres.create_databases([Database('x"; DROP TABLE y; --', "x")])
