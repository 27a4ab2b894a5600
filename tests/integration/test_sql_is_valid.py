"""Every named query is one that Postgres understands, on the schema as it is migrated."""

from importlib.resources import files

import asyncpg

from aragora.chassis import sql
from metering import limit_fold, periods, refold
from metering.handlers import prepare_session


def named_queries(service: str) -> dict[str, str]:
    return {
        f"{package}/{file.name}: {name}": query
        for package in ("aragora.chassis", service)
        for file in files(package).joinpath("sql").iterdir()
        if file.name.endswith(".sql")
        for name, query in sql.load(package, f"sql/{file.name}")
    }


async def bind_temporary_tables(connection: sql.Connection) -> None:
    """What a worker's session has, what one that closes months has, and what the lead of a refold makes."""
    await prepare_session(connection)
    await connection.execute(periods.queries.make_periods_in_hand)
    await connection.execute(periods.queries.make_meters_in_hand)
    await connection.execute(limit_fold.queries.count_from, "2026-05-01")
    await connection.execute(limit_fold.queries.limit_totals)
    for statement in (
        refold.queries.make_daily_parts,
        refold.queries.make_refolded_daily,
        refold.queries.make_refolded_monthly,
        refold.queries.make_daily_differences,
        refold.queries.make_monthly_differences,
        refold.queries.make_limit_differences,
        refold.queries.make_user_differences,
        refold.queries.make_hold_differences,
    ):
        await connection.execute(statement)


async def refused(connection: sql.Connection, service: str) -> dict[str, str]:
    """The queries that Postgres does not understand, and what it says."""
    found = {}
    for name, query in named_queries(service).items():
        try:
            async with connection.transaction():
                await connection.prepare(query)
        except asyncpg.PostgresError as error:
            found[name] = str(error)
    return found


async def test_postgres_prepares_every_named_query(metering_database_url: str):
    connection = await asyncpg.connect(metering_database_url)
    try:
        async with connection.transaction():
            await bind_temporary_tables(connection)
            assert await refused(connection, "metering") == {}
    finally:
        await connection.close()


async def test_postgres_prepares_every_query_of_billing(billing_database_url: str):
    connection = await asyncpg.connect(billing_database_url)
    try:
        assert await refused(connection, "billing") == {}
        assert await connection.fetch("SELECT org_id, current_period_end FROM user_subscriptions") == []
    finally:
        await connection.close()


async def test_postgres_prepares_every_query_of_auth(auth_database_url: str):
    connection = await asyncpg.connect(auth_database_url)
    try:
        assert await refused(connection, "auth") == {}
    finally:
        await connection.close()


async def test_postgres_prepares_every_query_of_the_notifier(notifier_database_url: str):
    connection = await asyncpg.connect(notifier_database_url)
    try:
        assert await refused(connection, "notifier") == {}
    finally:
        await connection.close()


def test_the_queries_are_found():
    names = named_queries("metering")
    assert len(names) > 40
    assert "metering/fold.sql: fold_daily" in names
    assert "aragora.chassis/queries.sql: append_events" in names
    assert "billing/queries.sql: save_subscription" in named_queries("billing")
    assert "auth/keys.sql: verify_keys" in named_queries("auth")
    assert "notifier/queueing.sql: add_alerts" in named_queries("notifier")
