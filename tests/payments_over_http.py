"""Billing's API in the test's own process, beside a Stripe simulator: what people and Stripe post, and are told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx
import servers
from one_service import ALL_SCOPES, bearer, jwt_secret, service_keys
from paying_world import StripeWorld, stripe_world
from servers import PostgresServer

from aragora.chassis import app as chassis_app
from aragora.chassis.security import parse_service_keys
from aragora_nats.configuration import STREAM_MAX_BYTES
from aragora_nats.connecting import connect_once
from aragora_nats.topology import apply_topology
from billing import main
from billing.worker import now_utc
from standalone.stripe_simulator.simulator import running_simulator

PAGES = {"success_url": "https://app.example.com/success", "cancel_url": "https://app.example.com/cancel"}


@dataclass
class PaymentsSite:
    """The API, by a client that needs no socket."""

    world: StripeWorld
    client: httpx.AsyncClient

    async def ask(
        self, method: str, path: str, body: Any = None, *, key: str | None = ALL_SCOPES, **params: Any
    ) -> httpx.Response:
        """A request, whatever it is answered with."""
        return await self.client.request(method, path, json=body, params=params, headers=bearer(key))

    async def read(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """The `data` of a good answer."""
        answer = await self.ask(method, path, body, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    async def check_out(self, key: str, plan: str = "professional", **more: Any) -> Any:
        """Begin to pay, as the owner whose token this is."""
        return await self.read("POST", "/api/billing/checkout", {"plan": plan, **PAGES, **more}, key=key)

    async def post_webhook(self, body: bytes, headers: dict[str, str]) -> httpx.Response:
        """Post what Stripe would."""
        return await self.client.post("/api/webhooks/stripe", content=body, headers=headers)

    async def tell(self, event: dict[str, Any]) -> httpx.Response:
        """Post an event that the simulator signs."""
        return await self.post_webhook(*self.world.simulator.signed(event))


@asynccontextmanager
async def payments_site(world: StripeWorld, nats_url: str, **settings: Any) -> AsyncIterator[PaymentsSite]:
    """The API beside this world, with its clock. Other settings are named as in `Settings`."""
    given = world.settings.model_copy(update={"nats_url": nats_url, "service_keys": service_keys(), **settings})

    def clock() -> datetime:
        return world.now

    app = chassis_app.create_app(
        title=main.TITLE,
        version=main.VERSION,
        routers=main.routers,
        lifespans=[main.lifespan(given, clock)],
        service_keys=parse_service_keys(given.service_keys),
    )
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://billing") as client:

            async def ready() -> bool:
                return (await client.get("/readyz")).is_success

            await servers.eventually(ready, 20)
            yield PaymentsSite(world, client)


@asynccontextmanager
async def new_site(
    postgres: PostgresServer, template: str, nats_url: str, **settings: Any
) -> AsyncIterator[PaymentsSite]:
    """The API, a simulator and a database of their own, on a bus whose streams are made anew.

    Time stands still at the moment at which it begins, which is real, as people's tokens are.
    """
    await servers.delete_streams(nats_url)
    operator = await connect_once(nats_url)
    await apply_topology(operator.jetstream(), replicas=1, max_bytes=STREAM_MAX_BYTES)
    await operator.close()
    database = await postgres.create_database(template)
    with jwt_secret():
        async with (
            running_simulator(now=now_utc().replace(microsecond=0)) as simulator,
            stripe_world(postgres.url_of(database), simulator) as world,
            payments_site(world, nats_url, **settings) as site,
        ):
            simulator.deliveries.signing_time = world.simulator.world.time_of
            yield site
    await postgres.drop_database(database)
