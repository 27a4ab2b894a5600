"""The platform in processes of its own with Prometheus watching it, and a hand that breaks it in every way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
from mail_server import MailServer, mail_server
from nats.aio.client import Client
from one_service import ALL_SCOPES, bearer
from people import Site, surroundings
from prometheus_server import Prometheus, prometheus
from separate_services import PROCESSES, SERVICES, SeparateServices, separate_services
from servers import scratch_dir
from webhook_receiver import Receiver, receiver

from aragora_nats.connecting import connect_once
from standalone.stripe_simulator import catalogue
from standalone.stripe_simulator.simulator import RunningSimulator, running_simulator

PRICES = {"starter": 9_900, "professional": 29_900, "enterprise": 99_900}
"""In cents a month."""


@dataclass
class WatchedPlatform:
    """Everything within reach: `parts` to stop and start, `site` to use it as people do, and what it depends on."""

    parts: SeparateServices
    site: Site
    prometheus: Prometheus
    mail: MailServer
    stripe: RunningSimulator
    endpoint: Receiver

    def client(self, service: str) -> httpx.AsyncClient:
        """A client that may do everything, and waits as long as it takes."""
        return httpx.AsyncClient(base_url=self.site.urls[service], headers=bearer(ALL_SCOPES), timeout=60)

    @asynccontextmanager
    async def without(self, *parts: str) -> AsyncIterator[None]:
        """Some parts do not run."""
        for name in parts:
            await (self.parts.kill(name) if name in PROCESSES else self.parts.retire(name))
        try:
            yield
        finally:
            for name in reversed(parts):
                await self.parts.step(name)

    @asynccontextmanager
    async def database(self, service: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        """A session of somebody who has forgotten it, or does something heavy."""
        connection = await asyncpg.connect(self.parts.database_url(service))
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def locked(self, service: str, table: str, mode: str = "EXCLUSIVE") -> AsyncIterator[None]:
        """Whoever wants to write into a table waits; with `ACCESS EXCLUSIVE` also whoever reads it."""
        async with self.database(service) as session, session.transaction():
            await session.execute(f"LOCK TABLE {table} IN {mode} MODE")
            yield

    @asynccontextmanager
    async def publisher(self) -> AsyncIterator[Client]:
        """A connection to the bus that may publish whatever it wants."""
        client = await connect_once(self.parts.operator_url)
        try:
            yield client
        finally:
            await client.close()


async def lasting(seconds: float) -> None:
    """How long a fault takes: it is no fault before. Nothing is awaited by it."""
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), seconds)


@asynccontextmanager
async def going_on(
    act: Callable[[], Awaitable[object]], *, at_once: int = 1, every_seconds: float = 1
) -> AsyncIterator[None]:
    """Meanwhile so many do something again and again; that it fails is nothing to them."""

    async def again_and_again() -> None:
        while True:
            with suppress(httpx.HTTPError, AssertionError):
                await act()
            await lasting(every_seconds)

    busy = [asyncio.create_task(again_and_again()) for _ in range(at_once)]
    try:
        yield
    finally:
        for one in busy:
            one.cancel()
        await asyncio.gather(*busy, return_exceptions=True)


@asynccontextmanager
async def watched_platform() -> AsyncIterator[WatchedPlatform]:
    """Everything runs and is watched; `/readyz` is asked all the time, as Kubernetes does."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        stack.enter_context(surroundings())
        folder = await enter(scratch_dir())
        mail, stripe, endpoint = (
            await enter(mail_server(folder)),
            await enter(running_simulator()),
            await enter(receiver()),
        )
        for plan, cents in PRICES.items():
            catalogue.put_price(stripe.world, f"price_{plan}", plan.title(), cents)
        environment: dict[str, Any] = {
            **mail.settings,
            "ARAGORA_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
            "STRIPE_SECRET_KEY": stripe.secret_key,
            "STRIPE_WEBHOOK_SECRET": stripe.webhook_secret,
            "STRIPE_API_BASE": stripe.url,
            **{f"STRIPE_PRICE_{plan.upper()}": f"price_{plan}" for plan in PRICES},
        }
        parts = await enter(separate_services(environment=environment))
        await parts.start()
        client = await enter(httpx.AsyncClient(timeout=30))
        bus = await parts.operator()
        stack.push_async_callback(bus.close)
        site = Site({service: parts.url(f"{service}-api") for service in SERVICES}, bus, client)

        async def ask_whether_ready() -> None:
            await asyncio.gather(*map(parts.is_ready, PROCESSES))

        await enter(going_on(ask_whether_ready))
        addresses = {name: parts.url(name).removeprefix("http://") for name in PROCESSES}
        watching = await enter(prometheus(folder, addresses))
        yield WatchedPlatform(parts, site, watching, mail, stripe, endpoint)
