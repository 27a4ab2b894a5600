"""Every service as in production: each in processes of its own, with its own database and user of the bus."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import servers
from nats.aio.client import Client
from nats.errors import Error as NatsError
from one_service import ALL_SCOPES, bearer, jwt_secret, service_keys
from postgres_cluster import PostgresPair
from servers import NATS_PASSWORDS, SMALL, eventually

from standalone import machine
from standalone.nats import EmbeddedNats
from standalone.platform import answers, apply_streams
from standalone.postgres import Database, EmbeddedPostgres
from standalone.problems import StartFailed
from standalone.service import PythonService
from standalone.supervisor import Supervisor

SERVICES = ("auth", "metering", "billing", "notifier")
PROCESSES = tuple(f"{service}-{role}" for service in SERVICES for role in ("api", "worker"))
STEPS = ("postgres", "nats", "topology", *(f"{service}-migrate" for service in SERVICES), *PROCESSES)
"""Everything that somebody has to start, in an order in which nothing has to wait."""


class SeparateServices:
    """Everything on servers of its own. `take` takes the steps in any order; a crashed process starts again.

    Args:
        folder: for everything.
        secret: what signs tokens.
        postgres: other than a small one of its own.
        environment: what all processes and migrations are told beside their settings.
    """

    def __init__(
        self,
        folder: Path,
        secret: str,
        postgres: EmbeddedPostgres | PostgresPair | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.said: list[str] = []
        self._folder = folder
        self._environment = dict(environment or {})
        self._databases = {service: Database(f"aragora_{service}", secrets.token_urlsafe()) for service in SERVICES}
        self._postgres = postgres or EmbeddedPostgres(folder, secrets.token_urlsafe(), settings=SMALL, durable=False)
        self._nats = EmbeddedNats(folder, NATS_PASSWORDS)
        self._secret = secret
        self._sealing_key = secrets.token_hex(32)
        self._ports: dict[str, int] = {}
        self._databases_made = asyncio.Event()
        self._supervisors: dict[str, Supervisor] = {}
        self.processes = {name: self._process(name, self._environment) for name in PROCESSES}

    def _settings(self, service: str) -> dict[str, str]:
        return {
            "DATABASE_URL": self.database_url(service),
            "NATS_URL": self._nats.address,
            "NATS_USER": service,
            "NATS_PASSWORD": NATS_PASSWORDS[service],
            "ARAGORA_SERVICE_KEYS": service_keys(),
            "ARAGORA_JWT_SECRET": self._secret,
            **({"ARAGORA_SEALING_KEYS": self._sealing_key} if service in ("auth", "notifier") else {}),
        }

    def database_url(self, service: str) -> str:
        """A service's own database, as itself."""
        return self._postgres.url_of(self._databases[service])

    def _process(self, name: str, environment: Mapping[str, str]) -> PythonService:
        service, role = name.split("-")[:2]
        self._ports[name] = machine.free_port()
        port = {"api": "ARAGORA_PORT", "worker": "ARAGORA_WORKER_PORT"}[role]
        settings = self._settings(service) | {port: str(self._ports[name]), **environment}
        return PythonService(name, self._folder, [service, role], settings)

    def add(self, name: str, environment: Mapping[str, str]) -> None:
        """One more process, such as `auth-api-next`, for `step` to start."""
        self.processes[name] = self._process(name, environment)

    async def step(self, name: str) -> None:
        """Start a part. Returns when it works, or has noticed that something is not there yet: it crashed, or waits."""
        if name in self.processes:
            await self._supervise(name, self.processes[name])
            await eventually(lambda: self._came_to_something(name), 30, what=name)
        elif name == "postgres":
            await self._supervise(name, self._postgres)
            await self._postgres.create_databases(list(self._databases.values()))
            self._databases_made.set()
        elif name == "nats":
            await self._supervise(name, self._nats)
        elif name == "topology":
            await eventually(self._topology_applied, 60)
        elif not await self.migrated(name.partition("-")[0], self._environment):
            await self._databases_made.wait()
            await eventually(lambda: self.migrated(name.partition("-")[0], self._environment), 60)

    async def take(self, steps: Sequence[str]) -> None:
        """Take steps in this order. Processes that come next to each other start side by side, and come to something
        before a server starts after them. Jobs are tried until they succeed.
        """
        async with asyncio.TaskGroup() as jobs:
            starting: list[asyncio.Task[None]] = []
            for name in steps:
                if name in ("postgres", "nats"):
                    await asyncio.gather(*starting)
                    starting.clear()
                    await self.step(name)
                    continue
                step = jobs.create_task(self.step(name))
                if name in PROCESSES:
                    starting.append(step)

    async def start(self) -> None:
        """Start everything in order: servers, jobs, processes. Returns when all can work."""
        await self.step("postgres")
        await self.step("nats")
        await asyncio.gather(self.step("topology"), *(self.step(f"{service}-migrate") for service in SERVICES))
        await asyncio.gather(*map(self.step, PROCESSES))
        await self.ready()

    async def _supervise(
        self, name: str, process: PythonService | EmbeddedPostgres | PostgresPair | EmbeddedNats
    ) -> None:
        self._supervisors[name] = Supervisor(self.said.append)
        await self._supervisors[name].start(process)

    async def _came_to_something(self, name: str) -> bool:
        crashed = any(line.startswith(f"{name} ended") for line in self.said)
        return crashed or "bus_error" in self.log(name) or await answers(f"{self.url(name)}/healthz")

    async def _topology_applied(self) -> bool:
        try:
            return bool(await apply_streams(self._nats))
        except (NatsError, OSError, TimeoutError):
            return False

    async def migrated(self, service: str, environment: Mapping[str, str]) -> bool:
        """Whether the service's migrations succeed now."""
        settings = self._settings(service) | dict(environment)
        job = PythonService(f"{service}-migrate", self._folder, [service, "migrate"], settings)
        try:
            return bool(await job.run_once())
        except StartFailed:
            return False

    async def is_ready(self, name: str) -> bool:
        """Whether a process says that it can work."""
        return await answers(f"{self.url(name)}/readyz")

    async def ready(self, names: Sequence[str] = PROCESSES) -> None:
        """Return when these processes can work."""
        for name in names:
            await eventually(partial(self.is_ready, name), 60, what=f"{name} is ready")

    async def kill(self, name: str) -> None:
        """SIGKILL a process, and let nobody start it again."""
        process = self.processes[name]
        process.hurry()
        await process.wait()
        await self._supervisors.pop(name).stop()

    async def restart_bus(self) -> None:
        """Stop NATS in good order. Its supervisor starts it again, with a configuration written anew."""
        again = "nats runs again."
        before = self.said.count(again)
        await self._nats.stop()
        await eventually(lambda: self.said.count(again) > before, 30, what=again)

    async def retire(self, name: str) -> None:
        """SIGTERM a process: it finishes what it holds, and nobody starts it again."""
        await self._supervisors.pop(name).stop()

    async def stop(self) -> None:
        """Stop everything: the processes, then their servers."""
        for name in (*self.processes, "nats", "postgres"):
            if name in self._supervisors:
                await self._supervisors.pop(name).stop()

    def log(self, name: str) -> str:
        """What a process has logged."""
        return (self._folder / "logs" / f"{name}.log").read_text()

    def url(self, name: str) -> str:
        """Where a process answers."""
        return f"http://127.0.0.1:{self._ports[name]}"

    def client(self, service: str) -> httpx.AsyncClient:
        """A client of a service's API, with a key that may do everything."""
        return httpx.AsyncClient(base_url=self.url(f"{service}-api"), headers=bearer(ALL_SCOPES), timeout=10)

    @property
    def operator_url(self) -> str:
        """The bus, for its operator."""
        return self._nats.url()

    async def operator(self) -> Client:
        """The bus as its operator sees it; to be closed."""
        return await self._nats.connect()


@asynccontextmanager
async def separate_services(
    postgres: PostgresPair | None = None, environment: Mapping[str, str] | None = None
) -> AsyncIterator[SeparateServices]:
    """Nothing is started yet; whatever the test starts is stopped. See `SeparateServices`."""
    async with AsyncExitStack() as stack:
        folder = await stack.enter_async_context(servers.scratch_dir())
        parts = SeparateServices(folder, stack.enter_context(jwt_secret()), postgres, environment)
        stack.push_async_callback(parts.stop)
        yield parts
