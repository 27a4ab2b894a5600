"""Ordered plain-SQL migrations.

A package keeps them in `sql/migrations/0001_what.sql`, numbered without gaps. Each is applied once, in one transaction,
under an advisory lock that makes concurrent starters wait for each other, and is recorded with its checksum in
`schema_migrations`. A migration that the database has and this code does not know is fine: old code runs on a new
schema.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from aragora.chassis.sql import Connection

_ADVISORY_LOCK = 0x617261676F7261  # "aragora" in ASCII: any number will do, as long as all services use the same
_TURN = "60s"  # how long to wait for another starter's migration
_LOCK = "5s"  # how long a migration may wait for a table in use; waiting longer would queue all traffic behind it
_FILE = re.compile(r"(\d{4})_[a-z0-9_]+\.sql\Z")
_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    package    text NOT NULL,
    version    integer NOT NULL,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (package, version)
)"""
_RECORDED = "SELECT version, checksum FROM schema_migrations WHERE package = $1"
_RECORD = "INSERT INTO schema_migrations (package, version, name, checksum) VALUES ($1, $2, $3, $4)"


class MigrationChanged(Exception):
    """A migration that this database already has was edited. Restore the file and put the change into a new one."""


class MigrationOutOfOrder(Exception):
    """Migrations are not numbered 0001, 0002, … without a gap, or one was slipped in before others already applied."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. `version` is the number its name begins with."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations_of(package: str) -> list[Migration]:
    """The migrations that a package carries, in order.

    Raises:
        MigrationOutOfOrder: the numbering has a gap or a double, or a file has another kind of name.
    """
    found: list[Migration] = []
    for file in sorted(files(package).joinpath("sql/migrations").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql"):
            match = _FILE.match(file.name)
            if match is None or int(match[1]) != len(found) + 1:
                raise MigrationOutOfOrder(f"{package}: {file.name} should be {len(found) + 1:04}_lower_case_words.sql")
            found.append(Migration(int(match[1]), file.name, file.read_text(encoding="utf-8")))
    return found


async def migrate(conn: Connection, *packages: str) -> list[str]:
    """Applies what is missing, the chassis' own migrations first; returns what was applied, as `package/file`.

    Raises:
        MigrationChanged: an applied migration was edited since.
        MigrationOutOfOrder: see `migrations_of`.
        asyncpg.LockNotAvailableError: a table was in use for over 5 s; nothing of that migration remains. Try again.
    """
    wanted = [(package, migrations_of(package)) for package in ("aragora.chassis", *packages)]
    return [name for package, migrations in wanted for name in await apply(conn, package, migrations)]


async def apply(conn: Connection, package: str, migrations: Sequence[Migration]) -> list[str]:
    """Applies the given migrations of one package. `migrate` is this for the files that packages carry."""
    applied = []
    for migration in migrations:
        async with conn.transaction():
            await conn.execute(f"SET LOCAL lock_timeout = '{_TURN}'")
            await conn.execute("SELECT pg_advisory_xact_lock($1)", _ADVISORY_LOCK)
            await conn.execute(_TABLE)
            recorded = {row["version"]: row["checksum"] for row in await conn.fetch(_RECORDED, package)}
            if migration.version in recorded:
                if recorded[migration.version] != migration.checksum:
                    raise MigrationChanged(f"{package}/{migration.name} was edited after it was applied: restore it")
                continue
            if migration.version <= max(recorded, default=0):
                raise MigrationOutOfOrder(
                    f"{package}/{migration.name} comes before migrations that are applied already"
                )
            await conn.execute(f"SET LOCAL lock_timeout = '{_LOCK}'")
            await conn.execute(migration.sql)
            await conn.execute(_RECORD, package, migration.version, migration.name, migration.checksum)
        applied.append(f"{package}/{migration.name}")
    return applied
