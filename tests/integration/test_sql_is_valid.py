"""Every named query is one that Postgres understands, on the schema as it is migrated."""

from importlib.resources import files

import asyncpg

from aragora.chassis import sql
from metering import refold
from metering.handlers import prepare_session

PACKAGES = ("aragora.chassis", "metering")


def named_queries() -> dict[str, str]:
    return {
        f"{package}/{file.name}: {name}": query
        for package in PACKAGES
        for file in files(package).joinpath("sql").iterdir()
        if file.name.endswith(".sql")
        for name, query in sql.load(package, f"sql/{file.name}")
    }


async def bind_temporary_tables(connection: sql.Connection) -> None:
    """What a worker's session has, and what the lead of a refold makes in its transaction."""
    await prepare_session(connection)
    for statement in (
        refold.queries.make_daily_parts,
        refold.queries.make_monthly_parts,
        refold.queries.make_refolded_daily,
        refold.queries.make_refolded_monthly,
        refold.queries.make_daily_differences,
        refold.queries.make_monthly_differences,
    ):
        await connection.execute(statement)


async def test_postgres_prepares_every_named_query(metering_database_url: str):
    connection = await asyncpg.connect(metering_database_url)
    refused = {}
    try:
        async with connection.transaction():
            await bind_temporary_tables(connection)
            for name, query in named_queries().items():
                try:
                    async with connection.transaction():
                        await connection.prepare(query)
                except asyncpg.PostgresError as error:
                    refused[name] = str(error)
    finally:
        await connection.close()
    assert refused == {}


def test_the_queries_are_found():
    names = named_queries()
    assert len(names) > 40
    assert "metering/fold.sql: fold_daily" in names
    assert "aragora.chassis/queries.sql: append_events" in names
