"""When nobody can tell whether a limit allows it: refused, or let through if the operator says so; nobody hangs."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
import nats.errors
import psutil
import pytest
from limits import entitle, entitlements, limit
from nats.aio.client import Client
from one_service import ALL_SCOPES, bearer, jwt_secret, service_keys
from servers import eventually, scratch_dir
from usage import native

from aragora.chassis.migrate import migrate
from aragora.chassis.probes import READINESS_SECONDS
from metering.limit_desk import DEADLINE_SECONDS
from standalone import machine
from standalone.nats import EmbeddedNats
from standalone.platform import answers, apply_streams
from standalone.postgres import EmbeddedPostgres
from standalone.service import PythonService

Servers = tuple[Callable[[], Awaitable[EmbeddedPostgres]], Callable[[], Awaitable[EmbeddedNats]]]

ORG = "org_acme"
RESERVE: dict[str, Any] = {"org_id": ORG, "operations": [{"provider": "openai"}]}
READY_WITHOUT = {"status": "ready", "missing": ["postgres"]}
READ_SECONDS = 25
PATIENCE_SECONDS = DEADLINE_SECONDS + 2
"""The longest that anybody may wait for an answer, on a machine that others use too."""


@dataclass
class Api:
    """One process of the API on servers of its own, which the test may stop."""

    postgres: EmbeddedPostgres
    nats: EmbeddedNats
    http: httpx.AsyncClient

    async def ask(self, path: str, body: dict[str, Any], **params: str) -> httpx.Response:
        began = time.monotonic()
        answer = await self.http.post(f"/api/usage/{path}", json=body, params=params)
        assert time.monotonic() - began < PATIENCE_SECONDS
        return answer

    async def works(self) -> bool:
        return (await self.ask("limits/check", RESERVE)).json().get("allowed") is True

    async def decides(self) -> bool:
        answer = await self.ask("limits/check", RESERVE)
        return answer.status_code == 200 and not answer.json()["undecided"]


@asynccontextmanager
async def running_api(servers: Servers, *, fail_open: bool) -> AsyncIterator[Api]:
    async with AsyncExitStack() as stack:
        postgres, bus = await servers[0](), await servers[1]()
        await apply_streams(bus)
        connection = await asyncpg.connect(postgres.url())
        await migrate(connection, "metering")
        await connection.close()
        await entitle(postgres.url(), {ORG: entitlements(limit("api_calls", 1000))}, datetime.now(UTC))
        folder = await stack.enter_async_context(scratch_dir())
        port = machine.free_port()
        settings = {
            "DATABASE_URL": postgres.url(),
            "NATS_URL": bus.url("metering"),
            "ARAGORA_PORT": str(port),
            "ARAGORA_SERVICE_KEYS": service_keys(),
            "ARAGORA_JWT_SECRET": stack.enter_context(jwt_secret()),
            "ARAGORA_LIMITS_FAIL_OPEN": str(fail_open),
        }
        url = f"http://127.0.0.1:{port}"
        api = PythonService("api", folder, ["metering", "api"], settings, lambda: answers(f"{url}/readyz"))
        stack.push_async_callback(api.stop, 20)
        await api.start()
        client = httpx.AsyncClient(base_url=url, headers=bearer(ALL_SCOPES), timeout=30)
        yield Api(postgres, bus, await stack.enter_async_context(client))


async def all_undecided(api: Api, reservation_id: str, *, fail_open: bool) -> None:
    """What is asked while Postgres is away."""
    for path in ("limits/check", "reservations"):
        answer = await api.ask(path, RESERVE)
        if fail_open:
            assert answer.status_code == 200, answer.text
            assert answer.json()["undecided"] is True
            assert answer.json().get("allowed", True) is True
            assert answer.json().get("reservation_id") is None
        else:
            refused(answer)
    refused(await api.ask(f"reservations/{reservation_id}/release", {}, org_id=ORG))
    refused(await api.ask(f"reservations/{reservation_id}/extend", {"ttl_seconds": 60}, org_id=ORG))
    wrong = await api.ask("reservations", RESERVE | {"operations": []})
    assert wrong.status_code == 422


def refused(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["Retry-After"] == "1"
    assert "cannot be decided" in answer.json()["detail"]


@pytest.mark.parametrize("fail_open", [False, True])
async def test_without_postgres(private_postgres: Any, private_nats: Any, *, fail_open: bool):
    async with running_api((private_postgres, private_nats), fail_open=fail_open) as api:
        keyed = RESERVE | {"idempotency_key": "k", "ttl_seconds": 3600}
        before = await api.ask("reservations", keyed)
        assert before.status_code == 201
        named = before.json()["reservation_id"]
        await api.postgres.kill()
        assert await readiness(api) == READY_WITHOUT
        assert (await api.ask("events", native(org_id=ORG))).status_code == 202
        await all_undecided(api, named, fail_open=fail_open)
        together = await asyncio.gather(*(api.ask("reservations", RESERVE) for _ in range(40)))
        assert {answer.status_code for answer in together} == {200 if fail_open else 503}
        await api.postgres.start()
        await eventually(api.decides, 20)
        again = await api.ask("reservations", keyed)
        assert (again.status_code, again.json()["reservation_id"]) == (200, named)
        assert again.json()["limits"][0]["held"] == 1


async def test_while_postgres_says_nothing_nobody_waits_for_long(private_postgres: Any, private_nats: Any):
    async with running_api((private_postgres, private_nats), fail_open=False) as api:
        assert await api.works()
        server = psutil.Process(api.postgres.pid)
        server.suspend()  # first and for longest: so no child is gone that is named here, also if it ends by itself
        children = server.children(recursive=True)
        try:
            for each in children:
                os.kill(each.pid, signal.SIGSTOP)
            for count in (20, 1):  # the second finds no connection
                together = await asyncio.gather(*(api.ask("reservations", RESERVE) for _ in range(count)))
                assert {answer.status_code for answer in together} == {503}
            assert (await api.ask("events", native(org_id=ORG))).status_code == 202
            began = time.monotonic()
            reading = asyncio.create_task(api.http.get("/api/usage/events", params={"org_id": ORG}))
            for _ in range(2):
                assert await readiness(api) == READY_WITHOUT
            assert ((await reading).status_code, time.monotonic() - began < READ_SECONDS) == (503, True)
        finally:
            for each in children:
                os.kill(each.pid, signal.SIGCONT)
            server.resume()
        await eventually(api.decides, 20)
        await eventually(lambda: is_ready(api), 20)


async def readiness(api: Api) -> Any:
    """What it says of itself, in time, whatever its database does."""
    began = time.monotonic()
    answer = await api.http.get("/readyz")
    assert time.monotonic() - began < READINESS_SECONDS + 1
    assert answer.status_code == 200, answer.text
    return answer.json()


async def is_ready(api: Api) -> bool:
    return await readiness(api) == {"status": "ready"}


async def test_without_nats_limits_are_decided_over_http_and_on_the_bus_again_afterwards(
    private_postgres: Any, private_nats: Any
):
    async with running_api((private_postgres, private_nats), fail_open=False) as api:
        assert (await ask_on_the_bus(api.nats, "before"))["status"] == 201
        await api.nats.kill()
        for _ in range(3):
            assert (await api.ask("reservations", RESERVE)).status_code == 201
        await api.nats.start()

        async def answered() -> Any:
            try:
                return await ask_on_the_bus(api.nats, "after")
            except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
                return None

        answer = await eventually(answered, 20)
        assert answer["status"] in (201, 200)  # 200: the first answer was lost on the way
        assert answer["answer"]["limits"][0]["held"] == 5


async def ask_on_the_bus(bus: EmbeddedNats, key: str) -> Any:
    client: Client = await bus.connect("publisher")
    try:
        body = httpx.Request("POST", "http://x", json=RESERVE | {"idempotency_key": key}).content
        reply = await client.request("rpc.metering.reserve", body, timeout=3)
        return httpx.Response(200, content=reply.data).json()
    finally:
        await client.close()
