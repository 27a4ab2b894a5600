"""A Postgres primary and its standby, which swap their turns by force: the primary is killed, the standby promoted.

Every commit waits for the standby (`synchronous_commit = on`, `synchronous_standby_names` names whoever follows): what
was acknowledged is on both. Clients are told both addresses and take the one that may be written to.
"""

import asyncio
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

import asyncpg
from servers import SMALL, eventually

from standalone import machine, unprivileged
from standalone.child import Child, Program, log_for
from standalone.postgres import SUPERUSER, Database, EmbeddedPostgres

EVERYBODY, NOBODY = "*", ""
"""As `synchronous_standby_names`. With the first a commit waits for whoever follows, also while nobody does."""


class Node(EmbeddedPostgres):
    """One of the two servers. It follows the other one while its `standby.signal` is there."""

    def __init__(self, folder: Path, password: str, port: int, other_port: int) -> None:
        self._followed = f"host=127.0.0.1 port={other_port} user={SUPERUSER} password={password}"
        settings = SMALL | {
            "primary_conninfo": f"{self._followed} application_name={folder.name}",
            "synchronous_standby_names": EVERYBODY,
            "wal_keep_size": "2GB",
            "wal_retrieve_retry_interval": "100ms",
        }
        super().__init__(folder, password, port, settings)

    async def copy(self, of: "Node") -> None:
        """Become a standby with a new copy of the other one's files."""
        shutil.rmtree(self._cluster, ignore_errors=True)
        self._cluster.mkdir(parents=True, mode=0o700)
        if self._user is not None:
            unprivileged.open_way_to(self._user, self._cluster)
            unprivileged.give(self._user, self._cluster)
        address = ["-h", "127.0.0.1", "-p", str(of.port), "-U", SUPERUSER]
        await self._run("pg_basebackup", "-D", str(self._cluster), *address, "--checkpoint=fast", "--no-sync")
        self._wait_for_orders()

    async def rewind(self, to: "Node") -> None:
        """Become a standby by taking back what the other one, promoted meanwhile, never had."""
        source = f"{self._followed} dbname=postgres"
        await to.execute("CHECKPOINT")  # so that its files say on which timeline it is
        await self._run("pg_rewind", "-D", str(self._cluster), f"--source-server={source}", "--no-sync")
        self._wait_for_orders()

    async def promote(self) -> None:
        """Take writes from now on."""
        await self.execute("SELECT pg_promote()")

    async def wait_for_followers(self, names: str) -> None:
        """For whom its commits wait. A standby can be told too: it holds from the promotion on."""
        await self.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        await self.execute("SELECT pg_reload_conf()")

    async def execute(self, statement: str) -> object:
        """The first value of a statement's answer, as the superuser."""
        connection = await asyncpg.connect(self.url(), timeout=10)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    def _wait_for_orders(self) -> None:
        signal = self._cluster / "standby.signal"
        signal.touch()
        if self._user is not None:
            os.chown(signal, self._user.uid, self._user.gid)

    async def _run(self, program: str, *arguments: str) -> None:
        env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "PGPASSWORD": self._password}
        child = Child(
            Program(program, [str(self._bin / program), *arguments], env, user=self._user),
            log_for(self.data_dir, program),
        )
        await child.start()
        assert await child.wait() == 0, child.log.last_lines()


class PostgresPair:
    """The two servers as one to whom it is enough to reach whichever may be written to."""

    name = "postgres"

    def __init__(self, folder: Path) -> None:
        password, ports = secrets.token_urlsafe(), (machine.free_port(), machine.free_port())
        self.primary = Node(folder / "first", password, *ports)
        self.standby = Node(folder / "second", password, *reversed(ports))
        self._hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        self._ended = asyncio.Event()

    @property
    def pid(self) -> int:
        """The primary's process id."""
        return self.primary.pid

    def url_of(self, database: Database) -> str:
        """A database, on whichever server may be written to."""
        login = f"{database.name}:{database.password}"
        return f"postgresql://{login}@{self._hosts}/{database.name}?target_session_attrs=read-write"

    async def start(self) -> None:
        """Start the primary and its standby; returns when commits wait for the standby, and it is there."""
        await self.primary.start()
        await self.standby.copy(self.primary)
        await self.standby.start()
        await self.until_in_step()

    async def create_databases(self, databases: Sequence[Database]) -> None:
        """See `EmbeddedPostgres`."""
        await self.primary.create_databases(databases)

    async def until_in_step(self) -> None:
        """Return when whatever the primary acknowledges is on the standby too: before that, nobody may be promoted."""
        question = "SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"

        async def in_step() -> bool:
            return await self.primary.execute(question) == 1

        await eventually(in_step, 60, what="the standby is in step")

    async def fail_over(self, *, waiting: bool) -> None:
        """SIGKILL the primary with all its processes, and promote the standby, which has everything acknowledged.

        Args:
            waiting: commits on the new primary wait until the old one is back; else it works alone meanwhile.
        """
        await self.primary.kill()
        await self.standby.wait_for_followers(EVERYBODY if waiting else NOBODY)
        await self.standby.promote()
        self.primary, self.standby = self.standby, self.primary

    async def rejoin(self, *, rewinding: bool) -> None:
        """The one that was killed comes back as a standby, for which commits wait: its files are rewound, or copied."""
        if rewinding:
            await self.standby.rewind(self.primary)
        else:
            await self.standby.copy(self.primary)
        await self.standby.start()
        await self.primary.wait_for_followers(EVERYBODY)
        await self.until_in_step()

    async def wait(self) -> int:
        """Wait until both were stopped: what becomes of a killed one, the test decides."""
        await self._ended.wait()
        return 0

    async def stop(self, timeout_seconds: float = 10) -> None:
        """Stop both. The standby first: the primary's last words would wait for it."""
        self._ended.set()
        await self.standby.stop(timeout_seconds)
        await self.primary.stop(timeout_seconds)

    def hurry(self) -> None:
        """Immediate shutdown of both."""
        self.standby.hurry()
        self.primary.hurry()
