"""A service's role gets at its own database and nothing else, whoever uses its password.

The same for the databases of a platform on one machine and for those that the containers' script makes.
"""

import asyncio
import os
import secrets
import shutil
from asyncio.subprocess import PIPE, create_subprocess_exec
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from servers import SMALL, scratch_dir

from standalone.postgres import Database, EmbeddedPostgres, binaries

SERVICES = ("auth", "metering", "billing", "notifier")
DATABASES = {service: Database(f"aragora_{service}", f"p{secrets.token_urlsafe()}'\"") for service in SERVICES}
SCRIPT = Path(__file__).parents[2] / "deploy/docker/postgres/databases.sh"
SUPERUSER = secrets.token_urlsafe()

ATTEMPTS = (
    "CREATE DATABASE mine",
    "DROP DATABASE {other}",
    "ALTER DATABASE {other} OWNER TO {own}",
    "ALTER DATABASE {other} SET work_mem = '64kB'",
    "GRANT ALL ON DATABASE {other} TO {own}",
    "CREATE ROLE mine LOGIN",
    "CREATE ROLE mine SUPERUSER",
    "ALTER ROLE {own} SUPERUSER",
    "ALTER ROLE {own} CREATEDB CREATEROLE REPLICATION BYPASSRLS",
    "ALTER ROLE {other} PASSWORD 'mine'",
    "ALTER ROLE postgres PASSWORD 'mine'",
    "DROP ROLE {other}",
    "GRANT {other} TO {own}",
    "GRANT pg_read_server_files TO {own}",
    "SET ROLE {other}",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION {other}",
    "REASSIGN OWNED BY {other} TO {own}",
    "SELECT rolpassword FROM pg_authid",
    "SELECT passwd FROM pg_shadow",
    "ALTER SYSTEM SET archive_command = 'true'",
    "SET session_replication_role = replica",
    "SELECT pg_reload_conf()",
    "SELECT pg_read_file('postgresql.conf')",
    "SELECT pg_ls_dir('.')",
    "SELECT pg_ls_waldir()",
    "SELECT lo_import('/etc/hostname')",
    "COPY (SELECT 1) TO PROGRAM 'cat'",
    "COPY (SELECT 1) TO '/tmp/mine'",
    "CREATE TEMP TABLE t (a text); COPY t FROM '/etc/hostname'",
    "CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'libc', 'getpid'",
    "CREATE FUNCTION f() RETURNS int LANGUAGE internal AS 'pg_backend_pid'",
    "CREATE EXTENSION adminpack",
    "CREATE EVENT TRIGGER mine ON ddl_command_start EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE TABLESPACE mine LOCATION '/tmp'",
    "CREATE PUBLICATION mine FOR ALL TABLES",
    "CREATE SUBSCRIPTION mine CONNECTION 'dbname={other}' PUBLICATION p WITH (connect = false)",
    "SELECT pg_create_physical_replication_slot('mine')",
    "SELECT pg_create_logical_replication_slot('mine', 'pgoutput')",
    "SELECT pg_current_logfile()",
    "SELECT pg_switch_wal()",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{other}'",
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = '{other}'",
)

REFUSED = (asyncpg.InsufficientPrivilegeError, asyncpg.FeatureNotSupportedError)
"""It may not, or there is no such thing; anything else is a mistake in the attempt."""


async def by_the_standalone(server: EmbeddedPostgres) -> None:
    await server.create_databases(list(DATABASES.values()))


async def by_the_containers_script(server: EmbeddedPostgres) -> None:
    psql = shutil.which("psql", path=os.pathsep.join([str(binaries()), os.environ["PATH"]]))
    if psql is None:
        pytest.skip("There is no psql here: `make test-compose` runs the script in its container.")
    settings = {f"POSTGRES_PASSWORD_{name.upper()}": database.password for name, database in DATABASES.items()}
    settings |= {"PATH": os.pathsep.join([str(Path(psql).parent), os.environ["PATH"]])}
    settings |= {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGPASSWORD": SUPERUSER}
    for _ in range(2):  # repeating it is harmless
        script = await create_subprocess_exec("sh", str(SCRIPT), env=settings, stdout=PIPE, stderr=PIPE)
        out, err = await script.communicate()
        assert script.returncode == 0, (out + err).decode()


@pytest.fixture(scope="module", params=[by_the_standalone, by_the_containers_script], ids=lambda made: made.__name__)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[EmbeddedPostgres]:
    """A server with the platform's databases, each with somebody who works in it."""
    async with scratch_dir() as folder:
        running = EmbeddedPostgres(folder, SUPERUSER, settings=SMALL, durable=False)
        await running.start()
        try:
            await request.param(running)
            workers = await asyncio.gather(*(at_work(running, service) for service in SERVICES))
            yield running
            for worker in workers:
                assert await worker.fetchval("SELECT 1") == 1, "it was ended by a stranger"
                await worker.close()
        finally:
            await running.stop(10)


async def at_work(server: EmbeddedPostgres, service: str) -> "asyncpg.Connection[asyncpg.Record]":
    """What a service does: connect, and make what it needs."""
    connection = await asyncpg.connect(server.url_of(DATABASES[service]))
    await connection.execute("CREATE TABLE work AS SELECT 1 AS id")
    return connection


@pytest.mark.parametrize("service", SERVICES)
async def test_a_role_does_not_get_into_another_database(server: EmbeddedPostgres, service: str):
    own = DATABASES[service]
    for other in SERVICES:
        if other != service:
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for database"):
                await asyncpg.connect(server.url(DATABASES[other].name, own.name, own.password))
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(server.url(DATABASES[other].name, DATABASES[other].name, own.password))


@pytest.mark.parametrize("service", SERVICES)
async def test_a_role_has_no_power_over_the_server(server: EmbeddedPostgres, service: str):
    connection = await asyncpg.connect(server.url_of(DATABASES[service]))
    try:
        row = await connection.fetchrow(
            "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles "
            "WHERE rolname = current_user"
        )
        assert row is not None
        assert not any(row.values())
        assert await connection.fetch("SELECT roleid FROM pg_auth_members WHERE member = current_user::regrole") == []
        others = [database.name for database in DATABASES.values() if database.name != f"aragora_{service}"]
        let: list[str] = []
        for attempt in ATTEMPTS:
            for other in others if "{other}" in attempt else others[:1]:
                statement = attempt.format(own=f"aragora_{service}", other=other)
                transaction = connection.transaction()
                try:
                    if statement.startswith(("CREATE DATABASE", "DROP DATABASE", "ALTER SYSTEM", "CREATE TABLESPACE")):
                        await connection.execute(statement)
                    else:
                        await transaction.start()
                        await connection.execute(statement)
                except asyncpg.PostgresError as error:
                    if not isinstance(error, REFUSED):
                        let.append(f"{statement}: {error!r}")
                else:
                    let.append(statement)
                finally:
                    if connection.is_in_transaction():
                        await transaction.rollback()
        assert let == []
        told = await connection.fetch("SELECT DISTINCT query FROM pg_stat_activity WHERE usename <> current_user")
        assert {row["query"] for row in told} <= {"<insufficient privilege>"}
    finally:
        await connection.close()
