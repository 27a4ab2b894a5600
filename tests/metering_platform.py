"""Metering as it runs in production: an API process and worker processes on real servers."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from nats.js import JetStreamContext
from one_service import ALL_SCOPES, JSON, bearer, checked, surroundings
from servers import PostgresServer, eventually

from aragora.contracts.topology import USAGE
from standalone import machine
from standalone.platform import answers
from standalone.service import PythonService


def worker_process(name: str, folder: Path, settings: Mapping[str, str], port: int | None = None) -> PythonService:
    """A metering worker, not yet started; it is ready when it consumes. `port`: of its probes and metrics."""
    port = port or machine.free_port()
    return PythonService(
        name,
        folder,
        ["metering", "worker"],
        {**settings, "ARAGORA_WORKER_PORT": str(port)},
        lambda: answers(f"http://127.0.0.1:{port}/readyz"),
    )


async def is_settled(bus: JetStreamContext) -> bool:
    """Whether everything that was published was recorded and acknowledged: then the work queue holds nothing."""
    return (await bus.stream_info(USAGE.name)).state.messages == 0


@dataclass
class MeteringPlatform:
    """A running API and its workers. Every answer of `post` and `get` is checked: no 5xx, errors in one shape."""

    client: httpx.AsyncClient
    url: str
    database_url: str
    bus_url: str
    bus: JetStreamContext
    settings: Mapping[str, str]
    folder: Path
    workers: list[PythonService] = field(default_factory=list)

    async def post(
        self, body: Any, content_type: str | None = JSON, *, key: str | None = ALL_SCOPES, **headers: str
    ) -> httpx.Response:
        """Send usage: bytes as they are, anything else as JSON."""
        given = bearer(key) | ({"Content-Type": content_type} if content_type else {}) | headers
        content = body if isinstance(body, bytes) else httpx.Request("POST", "http://x", json=body).content
        return checked(await self.client.post("/api/usage/events", content=content, headers=given))

    async def get(self, path: str, *, key: str | None = ALL_SCOPES, **params: Any) -> httpx.Response:
        """Ask; absent (None) parameters are left out."""
        given = {name: value for name, value in params.items() if value is not None}
        return checked(await self.client.get(path, params=given, headers=bearer(key)))

    async def record(self, *events: dict[str, Any]) -> None:
        """Send native events, and return when they are recorded."""
        answer = await self.post(list(events))
        assert answer.status_code == 202, answer.text
        await self.settled()

    async def settled(self) -> None:
        """Return when everything that was published is recorded."""
        await eventually(lambda: is_settled(self.bus), 30, what="settled")

    async def published(self) -> int:
        """Messages that the bus ever took."""
        return (await self.bus.stream_info(USAGE.name)).state.last_seq

    def log(self, name: str = "api") -> str:
        """What a process has logged."""
        return (self.folder / "logs" / f"{name}.log").read_text()


@asynccontextmanager
async def metering_platform(
    postgres: PostgresServer, template: str, nats_url: str, *, account_url: str | None = None, workers: int = 1
) -> AsyncIterator[MeteringPlatform]:
    """Metering with a database of its own, on a bus whose streams are made anew.

    `nats_url` is the operator's. With `account_url` the processes use that one: metering's own.
    """
    async with surroundings(postgres, template, nats_url, account_url) as around:
        folder, settings = around.folder, around.settings
        api = PythonService("api", folder, ["metering", "api"], settings, lambda: answers(f"{around.url}/readyz"))
        started = [worker_process(f"worker-{number}", folder, settings) for number in range(workers)]
        await around.start(api, *started)
        yield MeteringPlatform(
            around.client, around.url, settings["DATABASE_URL"], nats_url, around.operator.jetstream(), settings,
            folder, started,
        )  # fmt: skip
