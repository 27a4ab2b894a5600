"""The version before this one: the last code before a service's schema or an event was changed, as git has it."""

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EVENTS = "libs/contracts/aragora/contracts/events"
MIGRATIONS = ":(glob)**/sql/migrations/*.sql"

PROVE = """
import importlib, json, sys
print(json.dumps({name: importlib.import_module(name).__file__ for name in sys.argv[1:]}))
"""
APPLY_TOPOLOGY = """
import asyncio, os, nats
from {module} import apply_topology
async def apply():
    client = await nats.connect(os.environ["NATS_URL"])
    print(await apply_topology(client.jetstream(), replicas=1, max_bytes=int(os.environ["MAX_BYTES"])))
    await client.close()
asyncio.run(apply())
"""
CONFIGURE_BUS = """
import json, os, sys
from {module} import configuration
store_dir, port, passwords = json.loads(sys.argv[1])
print(configuration(store_dir, port, passwords))
"""
VERIFY = """
import asyncio, json, os
from datetime import UTC, datetime
from metering import refold
url, now = os.environ["DATABASE_URL"], datetime.now(UTC)
verdict = asyncio.run(refold.verify(url, connections=1, progress=lambda *_: None, now=now))
print(json.dumps([verdict.equal, verdict.events]))
"""


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def find_previous() -> str | None:
    """The newest commit from which an upgrade to this code changes the schema of a service that is there already, or an
    event. None where git does not tell: no repository, or a shallow clone.

    A commit with a migration that was edited later does not count: nobody ever had that schema in production.
    """
    changes = _git("log", "--first-parent", "--format=%H", "--", MIGRATIONS, EVENTS).split()
    for commit in ("HEAD", *(f"{change}^" for change in changes)):
        if not _git("rev-parse", "--verify", "--quiet", commit):
            return None
        differing = [line.split("\t") for line in _git("diff", "--no-renames", "--name-status", commit).splitlines()]
        migrations = [(status, path) for status, path in differing if "/sql/migrations/" in path]
        if any(status != "A" for status, _ in migrations):
            continue
        grown = [path for _, path in migrations if _git("ls-tree", commit, f"{Path(path).parent}/")]
        if grown or any(path.startswith(EVENTS) for _, path in differing):
            return _git("rev-parse", commit).strip()
    return None


@dataclass(frozen=True)
class PreviousVersion:
    """Its code, in a folder. What is run with `environment` is that code, and this version's libraries of others."""

    commit: str
    folder: Path

    @classmethod
    def unpacked(cls, commit: str, folder: Path) -> "PreviousVersion":
        """Take a commit's code into a folder."""
        packed = subprocess.run(
            ["git", "-C", str(ROOT), "archive", commit, "libs", "services", "deploy"], capture_output=True, check=True
        )
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(folder, filter="data")
        return cls(commit, folder)

    @property
    def services(self) -> list[str]:
        """The services that it has, in the order of their names."""
        return sorted(path.name for path in (self.folder / "services").iterdir())

    @property
    def environment(self) -> Mapping[str, str]:
        """What makes a Python process find this code first: editable installs come later on its path."""
        packages = sorted(path.parent for path in self.folder.glob("*/*/pyproject.toml"))
        return {"PYTHONPATH": os.pathsep.join(map(str, packages))}

    def run(self, code: str, *arguments: str, **environment: str) -> str:
        """What a program that uses this code prints."""
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, *arguments],
            env={**os.environ, **self.environment, **environment}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def prove(self) -> None:
        """It is truly the old code that runs, none of today's."""
        libraries = ("aragora.contracts.topology", "aragora.chassis.relay", "aragora.billing.rating")
        files: dict[str, str] = json.loads(self.run(PROVE, *libraries, *(f"{one}.settings" for one in self.services)))
        assert [name for name, file in files.items() if not Path(file).is_relative_to(self.folder)] == []

    def apply_topology(self, operator_url: str, max_bytes: int) -> None:
        """Make the streams and consumers that it declares."""
        is_the_bus_own = (self.folder / "deploy/nats/aragora_nats/topology.py").exists()
        module = "aragora_nats.topology" if is_the_bus_own else "aragora.chassis.topology"
        self.run(APPLY_TOPOLOGY.format(module=module), NATS_URL=operator_url, MAX_BYTES=str(max_bytes))

    def bus_configuration(self, store_dir: str, port: int, passwords: Mapping[str, str]) -> str:
        """What it tells a NATS server: the users of then, and what they may do."""
        has_own_package = (self.folder / "deploy/nats/aragora_nats").exists()
        module = "aragora_nats.configuration" if has_own_package else "standalone.nats"
        return self.run(CONFIGURE_BUS.format(module=module), json.dumps([store_dir, port, dict(passwords)]))

    def verify(self, database_url: str) -> tuple[bool, int]:
        """Whether its own `verify` finds the projections equal to the log, and of how many events."""
        found: Any = json.loads(self.run(VERIFY, DATABASE_URL=database_url))
        return found[0], found[1]
