"""The Stripe simulator's webhooks: signatures that the SDK accepts, retries, and every way in which they may arrive."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import servers
import stripe
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from standalone.stripe_simulator.calls import call
from standalone.stripe_simulator.simulator import RunningSimulator, running_simulator
from standalone.stripe_simulator.webhooks import RETRY_SECONDS, Mode, signed


class Receiver:
    """A web server that verifies webhooks and keeps what it got; it refuses the first `refusals` of them."""

    def __init__(self) -> None:
        self.secret = ""
        self.refusals = 0
        self.got: list[str] = []
        self.port = 0

    async def take(self, request: Request) -> Response:
        event = stripe.Webhook.construct_event(
            await request.body(), request.headers["Stripe-Signature"], self.secret, tolerance=5
        )
        if self.refusals:
            self.refusals -= 1
            return Response(status_code=500)
        self.got.append(event.data.object["id"])
        return Response()


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    listener = socket.create_server(("127.0.0.1", 0))
    receiver.port = listener.getsockname()[1]
    app = Starlette(routes=[Route("/hook", receiver.take, methods=["POST"])])
    running = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    serving = asyncio.create_task(running.serve([listener]))
    await servers.eventually(lambda: running.started)
    yield receiver
    running.should_exit = True
    await serving


@asynccontextmanager
async def sending(server: Receiver, **mode: Any) -> AsyncIterator[tuple[RunningSimulator, Receiver]]:
    server.got, server.refusals = [], 0
    url = f"http://127.0.0.1:{server.port}/hook"
    begin = datetime(2026, 1, 31, tzinfo=UTC)
    async with running_simulator(now=begin, webhook_url=url, mode=Mode(**mode)) as simulator:
        server.secret = simulator.webhook_secret
        yield simulator, server


def customers(simulator: RunningSimulator, count: int) -> list[str]:
    return [call(simulator.world, "POST", "/v1/customers", {})["id"] for _ in range(count)]


async def test_they_arrive_signed_and_in_order(server: Receiver):
    async with sending(server) as (simulator, receiver):
        made = customers(simulator, 5)
        await servers.eventually(lambda: receiver.got == made)
        await servers.eventually(lambda: not any(event["pending_webhooks"] for event in simulator.world.events))


async def test_what_is_not_taken_is_sent_again(server: Receiver):
    async with sending(server, held=True) as (simulator, receiver):
        receiver.refusals = 2
        made = customers(simulator, 3)
        assert await simulator.deliver() == 1
        assert await simulator.deliver() == 2
        assert sorted(receiver.got) == made
        receiver.refusals = len(RETRY_SECONDS) + 1
        customers(simulator, 1)
        for _ in range(len(RETRY_SECONDS) + 1):
            assert await simulator.deliver() == 0
        assert simulator.deliveries.waiting == [], "in the end it is given up"


async def test_a_refused_webhook_comes_again_by_itself(server: Receiver):
    async with sending(server) as (simulator, receiver):
        receiver.refusals = 1
        made = customers(simulator, 2)
        await servers.eventually(lambda: sorted(receiver.got) == made)
        await servers.eventually(lambda: [one.status for one in simulator.deliveries.log] == [500, 200, 200])


async def test_twice_shuffled_late_and_dropped(server: Receiver):
    async with sending(server, held=True, twice=True, shuffled=True) as (simulator, receiver):
        made = customers(simulator, 20)
        assert await simulator.deliver() == 40
        assert sorted(receiver.got) == sorted(made * 2)
        assert receiver.got != sorted(receiver.got)
    async with sending(server, held=True, dropped=2, dropped_types=("customer.updated",)) as (simulator, receiver):
        made = customers(simulator, 4)
        call(simulator.world, "POST", f"/v1/customers/{made[0]}", {"description": "x"})
        assert await simulator.deliver() == 2
        assert receiver.got == made[2:]
        assert len(simulator.world.events) == 5, "they happened all the same"
    async with sending(server, late_seconds=0.05) as (simulator, receiver):
        made = customers(simulator, 2)
        await servers.eventually(lambda: receiver.got == made)


async def test_a_test_posts_them_itself_in_any_order():
    async with running_simulator(now=datetime(2026, 1, 31, tzinfo=UTC)) as simulator:
        customers(simulator, 2)
        for event in reversed(simulator.world.events):
            body, headers = simulator.signed(event)
            read = stripe.Webhook.construct_event(body, headers["Stripe-Signature"], simulator.webhook_secret)
            assert (read.id, read.livemode, read.api_version) == (event["id"], False, stripe.api_version)
            with pytest.raises(stripe.SignatureVerificationError):
                stripe.Webhook.construct_event(body, headers["Stripe-Signature"], "whsec_other")
            body, headers = signed(event, simulator.webhook_secret, 1)
            with pytest.raises(stripe.SignatureVerificationError, match="outside the tolerance"):
                stripe.Webhook.construct_event(body, headers["Stripe-Signature"], simulator.webhook_secret)


async def test_endpoints_are_made_by_the_api_and_choose_their_events(server: Receiver):
    async with sending(server, held=True) as (simulator, receiver):
        connections = stripe.HTTPXClient()
        client = stripe.StripeClient(
            simulator.secret_key, base_addresses={"api": simulator.url}, http_client=connections
        )
        (first,) = (await client.v1.webhook_endpoints.list_async()).data
        await client.v1.webhook_endpoints.delete_async(first.id)
        made = await client.v1.webhook_endpoints.create_async(
            {"url": first.url, "enabled_events": ["customer.created"]}
        )
        receiver.secret = made.secret or ""
        new = await client.v1.customers.create_async({"email": "a@example.com"})
        await client.v1.customers.update_async(new.id, {"email": "b@example.com"})
        assert await simulator.deliver() == 1
        assert receiver.got == [new.id]
        await connections.close_async()
