import asyncio

import asyncpg
import pytest

from aragora.chassis import sql
from aragora.chassis.migrate import Migration, MigrationChanged, MigrationOutOfOrder, apply, migrate, migrations_of

ONE = Migration(1, "0001_one.sql", "CREATE TABLE one (n integer); INSERT INTO one VALUES (1);")
TWO = Migration(2, "0002_two.sql", "UPDATE one SET n = n + 1")


@pytest.fixture
async def conn(empty_database_url):
    connection = await asyncpg.connect(empty_database_url)
    yield connection
    await connection.close()


async def test_the_chassis_comes_first_and_a_second_run_does_nothing(conn):
    assert await migrate(conn) == [
        "aragora.chassis/0001_events.sql",
        "aragora.chassis/0002_inbox.sql",
        "aragora.chassis/0003_dead_letters.sql",
    ]
    assert await migrate(conn) == []
    for _, query in sql.load("aragora.chassis"):
        await conn.prepare(query)


async def test_four_at_once_apply_each_migration_once(conn, empty_database_url):
    connections = [await asyncpg.connect(empty_database_url) for _ in range(4)]
    try:
        applied = await asyncio.gather(*(apply(one, "demo", [ONE, TWO]) for one in connections))
    finally:
        await asyncio.gather(*(one.close() for one in connections))
    assert sorted(name for names in applied for name in names) == ["demo/0001_one.sql", "demo/0002_two.sql"]
    assert await conn.fetchval("SELECT n FROM one") == 2


async def test_a_failing_migration_leaves_nothing_and_stops_there(conn):
    broken = Migration(2, "0002_two.sql", "INSERT INTO one VALUES (2); SELECT 1/0")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await apply(conn, "demo", [ONE, broken, Migration(3, "0003_three.sql", "DROP TABLE one")])
    assert await conn.fetch("SELECT n FROM one") == [(1,)]
    assert await apply(conn, "demo", [ONE, TWO]) == ["demo/0002_two.sql"]


async def test_an_edited_migration_is_refused(conn):
    await apply(conn, "demo", [ONE])
    with pytest.raises(MigrationChanged, match=r"demo/0001_one\.sql was edited"):
        await apply(conn, "demo", [Migration(1, "0001_one.sql", "SELECT 1"), TWO])
    assert await conn.fetchval("SELECT n FROM one") == 1


async def test_old_code_runs_on_a_new_schema(conn):
    await apply(conn, "demo", [ONE, TWO])
    assert await apply(conn, "demo", [ONE]) == []


async def test_a_migration_slipped_in_before_applied_ones_is_refused(conn):
    alone = Migration(2, "0002_two.sql", "SELECT 2")
    await apply(conn, "demo", [alone])
    with pytest.raises(MigrationOutOfOrder, match="comes before"):
        await apply(conn, "demo", [ONE, alone])


async def test_a_table_in_use_does_not_hold_up_the_traffic_behind_it(conn, empty_database_url, monkeypatch):
    monkeypatch.setattr("aragora.chassis.migrate._LOCK", "50ms")
    await apply(conn, "demo", [ONE])
    other = await asyncpg.connect(empty_database_url)
    try:
        async with other.transaction():
            await other.execute("LOCK TABLE one IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await apply(conn, "demo", [ONE, TWO])
    finally:
        await other.close()
    assert await apply(conn, "demo", [ONE, TWO]) == ["demo/0002_two.sql"]


@pytest.mark.parametrize("names", [["0002_two"], ["0001_one", "0003_three"], ["0001_one", "0001_uno"], ["first"]])
def test_files_are_numbered_without_gap_or_double(names, tmp_path, monkeypatch):
    folder = tmp_path / "numbered" / "sql" / "migrations"
    folder.mkdir(parents=True)
    for name in names:
        (folder / f"{name}.sql").write_text("SELECT 1")
    (folder / "README.md").write_text("is no migration")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MigrationOutOfOrder, match=r"should be 000[12]_"):
        migrations_of("numbered")
