"""docs/citus.md says of metering's schema what is so."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/citus.md").read_text()
BLOCKS = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
PREPARE = BLOCKS[0]
QUERIES = [*ROOT.glob("services/metering/metering/sql/*.sql"), ROOT / "libs/chassis/aragora/chassis/sql/queries.sql"]
DISTRIBUTED = dict(re.findall(r"create_distributed_table\('(\w+)', 'org_id', colocate_with => '(\w+)'\)", PAGE))
REFERENCE = set(re.findall(r"create_reference_table\('(\w+)'\)", PAGE))
LEAD = "usage_daily"

UNIQUE_INDEXES = """
SELECT c.relname AS table, x.relname AS index, i.indisprimary AS is_primary,
       array_agg(a.attname::text) AS columns, bool_and(a.attnotnull) AS never_null
FROM pg_index i
JOIN pg_class c ON c.oid = i.indrelid
JOIN pg_class x ON x.oid = i.indexrelid
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
WHERE i.indisunique AND c.relnamespace = 'public'::regnamespace
GROUP BY 1, 2, 3
"""
TABLES = """
SELECT c.relname::text AS name, p.relname::text AS parent
FROM pg_class c LEFT JOIN pg_inherits h ON h.inhrelid = c.oid LEFT JOIN pg_class p ON p.oid = h.inhparent
WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace
"""
ORG_IDS = """
SELECT c.relname AS table, format_type(a.atttypid, a.atttypmod) AS type, l.collname AS collation,
       a.attnotnull AS never_null
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_collation l ON l.oid = a.attcollation
WHERE a.attname = 'org_id' AND c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace
"""
FOREIGN_KEYS = """
SELECT conrelid::regclass::text AS source, confrelid::regclass::text AS target,
       (SELECT array_agg(attname::text ORDER BY n) FROM unnest(conkey) WITH ORDINALITY AS k (num, n)
        JOIN pg_attribute ON attrelid = conrelid AND attnum = num) AS columns,
       (SELECT array_agg(attname::text ORDER BY n) FROM unnest(confkey) WITH ORDINALITY AS k (num, n)
        JOIN pg_attribute ON attrelid = confrelid AND attnum = num) AS target_columns
FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace
"""
TRIGGERS = """
SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger
WHERE NOT tgisinternal AND tgrelid NOT IN (SELECT inhrelid FROM pg_inherits)
"""
GENERATED = """
SELECT table_name || '.' || column_name || ' ' || data_type FROM information_schema.columns
WHERE table_schema = 'public' AND (is_identity = 'YES' OR column_default LIKE 'nextval%')
"""
FUNCTIONS = """
SELECT proname::text, prosecdef FROM pg_proc WHERE pronamespace = 'public'::regnamespace
"""


@pytest.fixture
async def database(metering_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(metering_database_url)
    await connection.execute("SELECT make_usage_partition('2026-01-01')")
    try:
        yield connection
    finally:
        await connection.close()


def local_tables() -> set[str]:
    (row,) = (line for line in PAGE.splitlines() if line.startswith("| local"))
    return set(re.findall(r"`(\w+)`", row.split("|")[2]))


async def test_every_table_has_its_place(database: asyncpg.Connection):
    rows = await database.fetch(TABLES)
    partitions = {row["name"] for row in rows if row["parent"] == "usage_events"}
    assert partitions
    assert {row["parent"] for row in rows} == {None, "usage_events"}
    assert {row["name"] for row in rows} - partitions == set(DISTRIBUTED) | REFERENCE | local_tables()
    assert not set(DISTRIBUTED) & REFERENCE
    assert not (set(DISTRIBUTED) | REFERENCE) & local_tables()


def test_the_list_and_the_statements_name_the_same_tables():
    said = {
        kind: set(re.findall(r"`(\w+)`", line.split("|")[2]))
        for kind in ("distributed", "reference")
        for line in PAGE.splitlines()
        if line.startswith(f"| {kind}")
    }
    assert said == {"distributed": set(DISTRIBUTED), "reference": REFERENCE}
    assert set(DISTRIBUTED.values()) == {"none", LEAD}
    assert [name for name, group in DISTRIBUTED.items() if group == "none"] == [LEAD]


async def test_an_organizations_rows_are_unique_within_it(database: asyncpg.Connection):
    partitions = {row["name"] for row in await database.fetch(TABLES) if row["parent"] == "usage_events"}
    indexes = [row for row in await database.fetch(UNIQUE_INDEXES) if row["table"] in {*DISTRIBUTED, *partitions}]
    assert [row["index"] for row in indexes if "org_id" not in row["columns"]] == []
    with_key = {row["table"] for row in indexes if row["is_primary"]}
    assert set(DISTRIBUTED) - with_key == {"usage_events"}, "whose partitions have unique indexes instead"
    for row in indexes:
        if row["table"] in partitions:  # what REPLICA IDENTITY USING INDEX asks for
            assert row["index"] == f"{row['table']}_org_id_id"
            assert row["never_null"]


async def test_foreign_keys_stay_within_an_organization(database: asyncpg.Connection):
    keys = await database.fetch(FOREIGN_KEYS)
    assert [(key["source"], key["target"]) for key in keys] == [("outbox", "events")]
    for key in keys:
        assert {key["source"], key["target"]} <= set(DISTRIBUTED)
        assert key["columns"].index("org_id") == key["target_columns"].index("org_id")


async def test_after_the_first_step_all_can_be_colocated(database: asyncpg.Connection):
    before = {row["table"]: row for row in await database.fetch(ORG_IDS)}
    assert all(before[table]["type"] == "text" and before[table]["never_null"] for table in DISTRIBUTED)
    assert {table for table in DISTRIBUTED if before[table]["collation"] != "C"} == {"events", "outbox"}
    await database.execute(PREPARE)
    after = {row["table"]: row["collation"] for row in await database.fetch(ORG_IDS)}
    assert {after[table] for table in DISTRIBUTED} == {"C"}
    again = re.search(r"ALTER TABLE outbox ADD CONSTRAINT .*?;", PAGE, re.DOTALL)
    assert again
    await database.execute(again[0])


async def test_triggers_numbers_and_functions_are_those_that_it_names(database: asyncpg.Connection):
    assert {row[0] for row in await database.fetch(TRIGGERS)} == {"usage_events", "closed_periods", "events"}
    assert [row[0] for row in await database.fetch(GENERATED)] == ["events.position bigint"]
    functions = {row["proname"]: row["prosecdef"] for row in await database.fetch(FUNCTIONS)}
    assert not any(functions.values())
    computing = {name for name in functions if not name.startswith(("refuse_", "make_"))}
    assert computing == {"quantity_of", "reached_percent", "spent_usd"}
    assert all(f"`{name}`" in PAGE for name in computing)


def test_statements_that_no_shard_can_do_are_listed():
    listed = set(re.findall(r"^\| `(\w+)` \((\w+\.sql)\)", PAGE, re.MULTILINE))
    found = set()
    for path in QUERIES:
        for name, text in re.findall(r"-- name: (\w+)\n(.*?)(?=-- name:|\Z)", path.read_text(), re.DOTALL):
            statement = re.sub(r"--.*", "", text)
            tables = set(re.findall(r"\b(?:FROM|JOIN|UPDATE|INTO|USING)\s+(\w+)", statement)) & set(DISTRIBUTED)
            locks = re.search(r"\bFOR (NO KEY )?(UPDATE|SHARE)\b", statement) and "org_id = $1" not in statement
            if tables and (locks or re.search(r"\b(xmin|ctid|tableoid)\b", statement)):
                found.add((name, path.name))
            if "set_config('aragora.erasing'" in statement:
                found.add((name, path.name))
    assert found == listed
