"""What a test of one service needs around it: a database, a bus with nothing on it, settings, a folder, credentials."""

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import servers
from nats.aio.client import Client
from servers import PostgresServer

from aragora.billing.jwt_auth import create_access_token
from aragora_nats.configuration import STREAM_MAX_BYTES
from aragora_nats.connecting import connect_once
from aragora_nats.topology import apply_topology
from standalone import machine
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


@dataclass(frozen=True)
class Surroundings:
    """`operator` may do everything on the bus; `client` asks the API that listens at `url` once it is started."""

    folder: Path
    url: str
    settings: dict[str, str]
    operator: Client
    client: httpx.AsyncClient
    stack: AsyncExitStack

    async def start(self, *processes: PythonService) -> None:
        """Start processes, side by side; the end of the test stops them."""
        for process in processes:
            self.stack.push_async_callback(process.stop, 20)
        await asyncio.gather(*(process.start() for process in processes))


@asynccontextmanager
async def surroundings(
    postgres: PostgresServer, template: str, nats_url: str, account_url: str | None = None
) -> AsyncIterator[Surroundings]:
    """`nats_url` is the operator's. With `account_url` the service's processes use that one: the service's own."""
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
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=30))
        async with AsyncExitStack() as processes:
            yield Surroundings(folder, url, settings, operator, client, processes)
