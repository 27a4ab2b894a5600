"""The platform in containers, as `make compose-up` starts it, with a project, ports, secrets and volumes of its own."""

import asyncio
import os
import secrets
import shlex
import shutil
import stat
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx
import pytest
from auth_platform import CHEAP_HASHES, PASSWORD
from one_service import ALL_SCOPES, jwt_secret, service_keys
from people import Site
from servers import eventually, scratch_dir

from aragora_nats.connecting import connect_once
from standalone import machine
from standalone.service_settings import OPERATOR_EMAIL

ROOT = Path(__file__).parents[1]
SERVICES = ("auth", "metering", "billing", "notifier")
PROCESSES = tuple(f"{service}-{role}" for service in SERVICES for role in ("api", "worker"))
CONTAINERS = (*PROCESSES, "gateway", "nats", "postgres")
"""Everything that goes on running, without what is only for trying out."""
AT_HAND = """\
#!/bin/sh
case $1 in
  key) sed -n 's/^ARAGORA_SERVICE_KEY=//p' "$COMPOSE_ENV_FILES" ;;
  password) sed -n 's/^ARAGORA_OPERATOR_PASSWORD=//p' "$COMPOSE_ENV_FILES" ;;
  messages) exec docker compose exec -T auth-worker auth "$@" </dev/null ;;
  verify) exec docker compose exec -T metering-worker metering verify </dev/null ;;
  *) exit 2 ;;
esac
"""
"""What `.venv/bin/aragora` does for a platform on this machine, as far as the tour asks for it."""


@dataclass(frozen=True)
class Composed:
    """A running platform in containers. `environment` is that in which `docker compose` means it."""

    folder: Path
    environment: Mapping[str, str]
    made: Mapping[str, str]
    """What its env file says."""

    @property
    def project(self) -> str:
        """What Compose calls it."""
        return self.made["COMPOSE_PROJECT_NAME"]

    @property
    def url(self) -> str:
        """Where the gateway answers."""
        return f"http://127.0.0.1:{self.made['ARAGORA_PORT']}"

    @property
    def nats_url(self) -> str:
        """Where the bus answers."""
        return f"nats://127.0.0.1:{self.made['TEST_NATS_PORT']}"

    def database_url(self, service: str) -> str:
        """A service's database, as the service itself."""
        password, port = self.made[f"POSTGRES_PASSWORD_{service.upper()}"], self.made["TEST_POSTGRES_PORT"]
        return f"postgresql://aragora_{service}:{password}@127.0.0.1:{port}/aragora_{service}"

    async def run(self, *command: str, timeout_seconds: float = 120) -> str:
        """What a command prints, which may not fail."""
        running = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=self.environment,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        printed, _ = await asyncio.wait_for(running.communicate(), timeout_seconds)
        assert running.returncode == 0, f"{shlex.join(command)}: {printed.decode()}"
        return printed.decode()

    async def compose(self, *arguments: str, timeout_seconds: float = 120) -> str:
        """What `docker compose` prints."""
        return await self.run("docker", "compose", *arguments, timeout_seconds=timeout_seconds)

    async def container(self, service: str) -> str:
        """The id of a service's only container."""
        return (await self.compose("ps", "--all", "--quiet", service)).strip()

    async def inspect(self, service: str, template: str) -> str:
        """What Docker says of a container."""
        return (await self.run("docker", "inspect", "--format", template, await self.container(service))).strip()

    async def is_healthy(self, service: str) -> bool:
        """Whether it runs and works."""
        return await self.inspect(service, "{{.State.Status}} {{.State.Health.Status}}") == "running healthy"

    async def healthy(self, names: Sequence[str] = CONTAINERS, timeout_seconds: float = 120) -> None:
        """Return when all of these work."""
        for name in names:
            await eventually(lambda name=name: self.is_healthy(name), timeout_seconds, what=f"{name} is healthy")  # type: ignore[misc]

    async def events_of(self, service: str, org_id: str) -> list[str]:
        """The names of an organization's domain events in a service's event store, in order."""
        connection = await asyncpg.connect(self.database_url(service))
        try:
            rows = await connection.fetch("SELECT type FROM events WHERE org_id = $1 ORDER BY position", org_id)
            return [row["type"] for row in rows]
        finally:
            await connection.close()

    @asynccontextmanager
    async def site(self) -> AsyncIterator[Site]:
        """The platform as people and programs see it: behind one address."""
        password = self.made["NATS_PASSWORD_OPERATOR"]
        bus = await connect_once(self.nats_url, user="operator", password=password)
        try:
            async with httpx.AsyncClient(timeout=30) as client:
                yield Site(dict.fromkeys(SERVICES, self.url), bus, client, OPERATOR_EMAIL)
        finally:
            await bus.close()


def chosen(secret: str) -> dict[str, str]:
    """What is set before the first start, which makes the rest."""
    return {
        "COMPOSE_PROJECT_NAME": f"aragora-test-{secrets.token_hex(4)}",
        "ARAGORA_PORT": str(machine.free_port()),
        "STRIPE_SIMULATOR_PORT": str(machine.free_port()),
        "TEST_NATS_PORT": str(machine.free_port()),
        "TEST_POSTGRES_PORT": str(machine.free_port()),
        # Where Docker puts this machine. People in tests come from addresses of their own, which begin with 10.
        "ARAGORA_GATEWAY_TRUSTS": "172.16.0.0/12 192.168.0.0/16",
        "ARAGORA_OPERATOR_EMAIL": OPERATOR_EMAIL,
        "ARAGORA_OPERATOR_PASSWORD": PASSWORD,
        "ARAGORA_JWT_SECRET": secret,
        "ARAGORA_SERVICE_KEY": ALL_SCOPES,
        "ARAGORA_SERVICE_KEYS": service_keys(),
        **CHEAP_HASHES,
    }


@asynccontextmanager
async def composed() -> AsyncIterator[Composed]:
    """Up, until the test has seen enough; then nothing of it is left. Images are built, or those of ARAGORA_VERSION."""
    if shutil.which("docker") is None:
        pytest.skip("Docker is not installed: this looks at containers.")
    with jwt_secret() as secret:
        async with scratch_dir() as folder:
            file = folder / "env"
            file.write_text("".join(f"{name}={value}\n" for name, value in chosen(secret).items()))
            environment = {
                **os.environ,
                "COMPOSE_ENV_FILES": str(file),
                "COMPOSE_FILE": "docker-compose.yml:tests/compose/published.yml",
                "COMPOSE_ANSI": "never",
            }
            for name in ("ARAGORA_JWT_SECRET", "DATABASE_URL", "NATS_URL"):
                environment.pop(name, None)
            (folder / "bin").mkdir()
            for name, text in (("aragora", AT_HAND), ("python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')):
                (folder / "bin" / name).write_text(text)
                (folder / "bin" / name).chmod(stat.S_IRWXU)
            starting = Composed(folder, environment, {})
            try:
                await starting.run("sh", "deploy/docker/up.sh", "--simulate-stripe", timeout_seconds=1800)
                made = dict(line.split("=", 1) for line in file.read_text().splitlines())
                yield Composed(folder, environment, made)
            finally:
                await starting.compose("down", "--volumes", "--remove-orphans", timeout_seconds=300)
