"""The simulator as a web server: `python -m standalone.stripe_simulator`."""

import argparse
import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from standalone.stripe_simulator import api, catalogue, control, pages, routes
from standalone.stripe_simulator.clock import Clock
from standalone.stripe_simulator.state import SECRET_KEY, WEBHOOK_SECRET, Simulator
from standalone.stripe_simulator.webhooks import Deliveries
from standalone.stripe_simulator.world import World

NOTICE = "a stand-in for tests and demos; not Stripe"


class SaysWhatItIs:
    """Puts the header `Stripe-Simulator` on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, with the header."""

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"stripe-simulator", NOTICE.encode())]
            await send(message)

        await self.app(scope, receive, marked)


def create_app(simulator: Simulator) -> Starlette:
    """The whole server. While it runs, its webhooks go out and what falls due happens."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(simulator.deliveries.run()), asyncio.create_task(_keep_time(simulator))]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    app = Starlette(
        routes=[
            Route("/v1/{path:path}", api.v1, methods=["GET", "POST", "DELETE"]),
            *control.routes,
            *pages.routes,
        ],
        middleware=[Middleware(SaysWhatItIs)],
        lifespan=lifespan,
    )
    app.state.simulator = simulator
    return app


async def _keep_time(simulator: Simulator) -> None:
    while True:
        simulator.world.run_due()
        await asyncio.sleep(0.5)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="stripe_simulator", description=f"A Stripe simulator: {NOTICE}.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=12111)
    parser.add_argument("--public-url", help="where browsers reach it, if that is not its host and port")
    parser.add_argument("--webhook-url", help="where signed webhooks go")
    parser.add_argument("--secret-key", default=SECRET_KEY)
    parser.add_argument("--webhook-secret", default=WEBHOOK_SECRET)
    parser.add_argument("--seed", default=f"{int(time.time()):x}", help="goes into every id; by default the start time")
    parser.add_argument("--price", action="append", default=[], metavar="ID=NAME=CENTS", help="a monthly price to have")
    asyncio.run(_serve(parser.parse_args(arguments)))


async def _serve(options: argparse.Namespace) -> None:
    world = World(Clock(lambda: int(time.time())), seed=options.seed)
    world.base_url = options.public_url or f"http://{options.host}:{options.port}"
    for price in options.price:
        price_id, name, amount = price.split("=")
        catalogue.put_price(world, price_id, name, int(amount))
    if options.webhook_url:
        routes.create_endpoint(world, {"url": options.webhook_url, "enabled_events": ["*"]}, options.webhook_secret)
    async with httpx.AsyncClient(timeout=10) as client:
        simulator = Simulator(world, Deliveries(world, client, lambda: int(time.time())), options.secret_key)
        config = uvicorn.Config(create_app(simulator), host=options.host, port=options.port, log_level="warning")
        await uvicorn.Server(config).serve()
