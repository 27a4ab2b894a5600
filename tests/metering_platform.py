"""Metering as it runs in production: an API process and worker processes on real servers."""

import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import servers
from nats.js import JetStreamContext
from servers import PostgresServer, eventually

from aragora.billing.jwt_auth import create_access_token
from aragora.chassis.topology import apply_topology
from aragora.contracts.topology import USAGE
from standalone import machine
from standalone.nats import STREAM_MAX_BYTES, connect_once
from standalone.platform import answers
from standalone.service import PythonService

SCOPES = ("usage.write", "usage.read", "operator")
KEYS = {scope: f"svc_{secrets.token_urlsafe(32)}" for scope in SCOPES}
"""A service key for each scope, which has no other."""
ALL_SCOPES = f"svc_{secrets.token_urlsafe(32)}"
JSON = "application/json"
PROBLEM = "application/problem+json"


def service_keys() -> str:
    """What ARAGORA_SERVICE_KEYS says of these keys."""
    entries = [(scope.replace(".", "-"), key, scope) for scope, key in KEYS.items()]
    return ",".join(
        f"{name}:{hashlib.sha256(key.encode()).hexdigest()}:{scopes}"
        for name, key, scopes in [*entries, ("everything", ALL_SCOPES, "+".join(SCOPES))]
    )


@contextmanager
def jwt_secret() -> Iterator[str]:
    """A secret for access tokens, in this process' environment."""
    before = os.environ.get("ARAGORA_JWT_SECRET")
    os.environ["ARAGORA_JWT_SECRET"] = secret = secrets.token_hex(32)
    try:
        yield secret
    finally:
        if before is None:
            del os.environ["ARAGORA_JWT_SECRET"]
        else:
            os.environ["ARAGORA_JWT_SECRET"] = before


def token(user_id: str, org_id: str | None, role: str = "member") -> str:
    """A person's access token."""
    return create_access_token(user_id, f"{user_id}@example.com", org_id, role)


def bearer(credential: str | None) -> dict[str, str]:
    """The header that presents a credential; none for None."""
    return {} if credential is None else {"Authorization": f"Bearer {credential}"}


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


def checked(answer: httpx.Response) -> httpx.Response:
    """The answer, if it is not our mistake and, being an error, has the one shape of errors."""
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["Content-Type"] == PROBLEM
        problem = answer.json()
        assert problem.keys() == {"type", "title", "status", "detail", "errors"}
        assert problem["status"] == answer.status_code
        assert problem["detail"]
        assert all(each.keys() == {"index", "field", "message"} for each in problem["errors"])
    assert answer.headers["X-Correlation-ID"]
    return answer


@asynccontextmanager
async def metering_platform(
    postgres: PostgresServer, template: str, nats_url: str, *, account_url: str | None = None, workers: int = 1
) -> AsyncIterator[MeteringPlatform]:
    """Metering with a database of its own, on a bus whose streams are made anew.

    `nats_url` is the operator's. With `account_url` the processes use that one: metering's own.
    """
    async with AsyncExitStack() as stack:
        folder = await stack.enter_async_context(servers.scratch_dir())
        database = await postgres.create_database(template)
        stack.push_async_callback(postgres.drop_database, database)
        await servers.delete_streams(nats_url)
        operator = await connect_once(nats_url)
        stack.push_async_callback(operator.close)
        await apply_topology(operator.jetstream(), replicas=1, max_bytes=STREAM_MAX_BYTES)
        port = machine.free_port()
        url = f"http://127.0.0.1:{port}"
        settings = {
            "DATABASE_URL": postgres.url_of(database),
            "NATS_URL": account_url or nats_url,
            "ARAGORA_PORT": str(port),
            "ARAGORA_SERVICE_KEYS": service_keys(),
            "ARAGORA_JWT_SECRET": stack.enter_context(jwt_secret()),
        }
        api = PythonService("api", folder, ["metering", "api"], settings, lambda: answers(f"{url}/readyz"))
        started = [worker_process(f"worker-{number}", folder, settings) for number in range(workers)]
        for process in (api, *started):
            stack.push_async_callback(process.stop, 20)
            await process.start()
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=30))
        yield MeteringPlatform(
            client, url, settings["DATABASE_URL"], nats_url, operator.jetstream(), settings, folder, started
        )
