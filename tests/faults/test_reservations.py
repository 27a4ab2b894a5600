"""A thousand reservations at once against one limit, over several processes, one of which is killed half-way.

Each is asked for under an idempotency key, over HTTP or on the bus, and once more elsewhere until somebody answers.
Meanwhile usage settles some of them. What is held and used together never exceeds the limit, and in the end exactly as
many were admitted as the limit allows. The seed is printed; ARAGORA_FAULT_SEED replays it.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
import nats.errors
import pytest
from limits import entitle, entitlements, limit
from metering_platform import MeteringPlatform, metering_platform
from nats.aio.client import Client
from one_service import ALL_SCOPES, bearer
from servers import PostgresServer, eventually, scratch_dir
from usage import cloudevent, message

from aragora.contracts.ids import new_id
from aragora.contracts.topology import usage_partition, usage_subject
from aragora_nats.connecting import connect_once
from metering import refold
from standalone import machine
from standalone.platform import answers
from standalone.service import PythonService

REQUESTS = 1000
AT_ONCE = 64
SETTLED_SHARE = 0.4


@dataclass
class Apis:
    """Three processes of the API on one database and bus, two of which may be killed."""

    platform: MeteringPlatform
    bus: Client
    http: httpx.AsyncClient
    urls: list[str]
    mortal: list[PythonService]


@pytest.fixture(scope="module")
async def apis(postgres_server: PostgresServer, metering_template: str, nats_server: str) -> AsyncIterator[Apis]:
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(metering_platform(postgres_server, metering_template, nats_server))
        folder = await stack.enter_async_context(scratch_dir())
        bus = await connect_once(nats_server)
        stack.push_async_callback(bus.close)
        limits = httpx.Limits(max_connections=AT_ONCE)
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=5, limits=limits, headers=bearer(ALL_SCOPES)))
        found = Apis(platform, bus, http, [platform.url], [])
        for number in (1, 2):
            port = machine.free_port()
            found.urls.append(f"http://127.0.0.1:{port}")
            found.mortal.append(_api(f"api-{number}", folder, platform, port))
            stack.push_async_callback(found.mortal[-1].stop, 20)
        await asyncio.gather(*(api.start() for api in found.mortal))
        yield found


def _api(name: str, folder: Any, platform: MeteringPlatform, port: int) -> PythonService:
    settings = {**platform.settings, "ARAGORA_PORT": str(port)}
    return PythonService(
        name, folder, ["metering", "api"], settings, lambda: answers(f"http://127.0.0.1:{port}/readyz")
    )


@dataclass
class Run:
    """One organization with one limit, and a thousand who want something of it."""

    apis: Apis
    rnd: random.Random
    org: str
    allowed: int
    admitted: dict[str, str] = field(default_factory=dict)
    happened: Counter[str] = field(default_factory=Counter)
    half_way: asyncio.Event = field(default_factory=asyncio.Event)
    finished: bool = False
    most: int = 0

    async def ask(self, number: int) -> None:
        """Reserve one call, wherever somebody answers; settle some of what was admitted."""
        key = str(number)
        body = {
            "org_id": self.org,
            "operations": [{"provider": "openai"}],
            "idempotency_key": key,
            "ttl_seconds": 600,
        }
        while (status_and_answer := await self._ask_somebody(body)) is None:
            self.happened["asked again"] += 1
        status, answer = status_and_answer
        assert status in (200, 201, 429), answer
        self.happened[f"status {status}"] += 1
        if sum(self.happened[f"status {each}"] for each in (200, 201, 429)) >= REQUESTS * 0.4:
            self.half_way.set()
        if status != 429:
            self.admitted[key] = answer["reservation_id"]
            if self.rnd.random() < SETTLED_SHARE:
                await self._use(answer["reservation_id"])

    async def _ask_somebody(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """The answer of one process, or None if it gave none: whether it decided is not known then."""
        where = self.rnd.choice([*self.apis.urls, "the bus"])
        try:
            if where == "the bus":
                reply = await self.apis.bus.request(
                    "rpc.metering.reserve", httpx.Request("POST", "http://x", json=body).content, timeout=2
                )
                found = httpx.Response(200, content=reply.data).json()
                status, answer = found["status"], found["answer"]
            else:
                response = await self.apis.http.post(f"{where}/api/usage/reservations", json=body)
                status, answer = response.status_code, response.json()
        except (httpx.TransportError, nats.errors.Error, TimeoutError):
            return None
        return None if status == 503 else (status, answer)

    async def _use(self, reservation_id: str) -> None:
        moment = datetime.now(UTC).isoformat()
        used = cloudevent(org_id=self.org, reservation_id=reservation_id, occurred_at=moment)
        subject = usage_subject(usage_partition(self.org))
        await self.apis.bus.jetstream().publish(subject, message(used), headers={"Nats-Msg-Id": str(new_id())})
        self.happened["used"] += 1

    async def kill_one(self) -> None:
        """SIGKILL a process of the API in the middle of it all, and start it again."""
        await self.half_way.wait()
        api = self.rnd.choice(self.apis.mortal)
        api.hurry()
        await api.wait()
        self.happened["killed"] += 1
        await api.start()

    async def observe(self) -> None:
        """What is used and held, over and over, each time at one instant."""
        connection = await asyncpg.connect(self.apis.platform.database_url)
        try:
            is_last = False
            while not is_last:
                is_last = self.finished  # once more when all is done, however rarely it was its turn before
                used_and_held = await connection.fetchval(
                    """
                    SELECT coalesce((SELECT sum(used) FROM limit_usage WHERE org_id = $1), 0)
                         + coalesce((SELECT sum(held) FROM limit_holds WHERE org_id = $1), 0)
                    """,
                    self.org,
                )
                self.most = max(self.most, used_and_held)
                assert used_and_held <= self.allowed
                self.happened["observed"] += 1
        finally:
            await connection.close()

    async def all_ask(self) -> None:
        waiting = list(range(REQUESTS))
        self.rnd.shuffle(waiting)

        async def ask_one_after_another() -> None:
            while waiting:
                await self.ask(waiting.pop())

        observing = asyncio.create_task(self.observe())
        killing = asyncio.create_task(self.kill_one())
        try:
            async with asyncio.timeout(120):
                await asyncio.gather(*(ask_one_after_another() for _ in range(AT_ONCE)))
                await killing
            await self.apis.platform.settled()
        finally:
            self.finished = True
            killing.cancel()
            with suppress(asyncio.CancelledError):
                await killing
            await observing

    async def judge(self) -> None:
        """Admitted are as many as the limit allows, each once, and the database knows the same ones."""
        print(self.happened)
        assert self.happened["killed"] == 1
        assert self.happened["status 429"] == REQUESTS - self.allowed
        assert len(self.admitted) == len(set(self.admitted.values())) == self.allowed
        assert self.most == self.allowed
        connection = await asyncpg.connect(self.apis.platform.database_url)
        try:
            rows = await connection.fetch("SELECT id, state FROM reservations WHERE org_id = $1", self.org)
            assert {row["id"] for row in rows} == set(self.admitted.values())
            states = Counter(row["state"] for row in rows)
            assert states == Counter(settled=self.happened["used"], open=self.allowed - self.happened["used"])
            used = await connection.fetchval("SELECT used FROM limit_usage WHERE org_id = $1", self.org)
            held = await connection.fetchval("SELECT held FROM limit_holds WHERE org_id = $1", self.org)
            assert (used, held) == (states["settled"], states["open"])
        finally:
            await connection.close()
        now = datetime.now(UTC)
        verdict = await refold.verify(
            self.apis.platform.database_url, connections=1, progress=lambda *_: None, now=now
        )  # fmt: skip
        assert verdict.equal, verdict.differences


async def thousand_ask(apis: Apis) -> None:
    seed = int(os.environ.get("ARAGORA_FAULT_SEED") or random.randrange(2**32))
    print(f"seed {seed} (replay: ARAGORA_FAULT_SEED={seed})")
    rnd = random.Random(seed)
    run = Run(apis, rnd, f"org_{new_id().hex}", rnd.randrange(100, 900))
    allowance = {run.org: entitlements(limit("api_calls", run.allowed))}
    await entitle(apis.platform.database_url, allowance, datetime.now(UTC))
    await eventually(lambda: _all_ready(apis), what="every API answers")
    await run.all_ask()
    await run.judge()


async def _all_ready(apis: Apis) -> bool:
    return all([await answers(f"{url}/readyz") for url in apis.urls])


@pytest.mark.parametrize("_run", range(2))
async def test_as_many_are_admitted_as_the_limit_allows(apis: Apis, _run: int):
    await thousand_ask(apis)


@pytest.mark.long
@pytest.mark.parametrize("_run", range(20))
async def test_as_many_are_admitted_as_the_limit_allows_twenty_times(apis: Apis, _run: int):
    await thousand_ask(apis)
