"""The simulator inside a test's own event loop: a real server on a free port, with its world within reach."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import httpx
import uvicorn

from standalone.stripe_simulator import routes
from standalone.stripe_simulator.clock import Clock
from standalone.stripe_simulator.server import create_app
from standalone.stripe_simulator.shapes import Thing
from standalone.stripe_simulator.state import SECRET_KEY, WEBHOOK_SECRET, Simulator
from standalone.stripe_simulator.webhooks import Deliveries, Mode, signed
from standalone.stripe_simulator.world import Rules, World


class RunningSimulator(Simulator):
    """A simulator that is being served at `url`."""

    url: str = ""
    webhook_secret: str = WEBHOOK_SECRET

    async def advance(self, to: int | datetime) -> None:
        """Set the clock ahead to that moment; what falls due on the way happens at its own moment, in order."""
        self.world.advance(int(to.timestamp()) if isinstance(to, datetime) else to)
        await asyncio.sleep(0)

    async def deliver(self) -> int:
        """Send every webhook that waits. Returns how many were taken."""
        return await self.deliveries.deliver()

    def signed(self, event: Thing) -> tuple[bytes, dict[str, str]]:
        """The event as a webhook, for tests that post it themselves: body and headers."""
        return signed(event, self.webhook_secret, self.deliveries.signing_time())


@asynccontextmanager
async def running_simulator(
    *,
    now: int | datetime | None = None,
    webhook_url: str | None = None,
    seed: str = "",
    rules: Rules | None = None,
    mode: Mode | None = None,
    signing_time: Callable[[], int] | None = None,
) -> AsyncIterator[RunningSimulator]:
    """Serve a new, empty world on a free port of 127.0.0.1.

    Args:
        now: the moment at which the clock stands still, to be advanced by the test; None for real time.
        webhook_url: where webhooks go, signed with `webhook_secret`; None for nowhere.
        seed: goes into every id.
        rules: what Stripe's dashboard would set.
        mode: how unreliably webhooks arrive; `Mode(held=True)` sends none before `deliver`.
        signing_time: the time in signatures; real time by default.
    """
    moment = int(now.timestamp()) if isinstance(now, datetime) else now
    world = World(Clock(lambda: int(time.time()), stopped_at=moment), seed=seed, rules=rules)
    listener = socket.create_server(("127.0.0.1", 0))
    world.base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with httpx.AsyncClient(timeout=10) as client:
        wall = signing_time or (lambda: int(time.time()))
        simulator = RunningSimulator(world, Deliveries(world, client, wall, mode or Mode()), SECRET_KEY)
        simulator.url = world.base_url
        if webhook_url:
            routes.create_endpoint(world, {"url": webhook_url, "enabled_events": ["*"]}, simulator.webhook_secret)
        config = uvicorn.Config(
            create_app(simulator), log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=1
        )
        async with _serving(uvicorn.Server(config), listener):
            yield simulator


@asynccontextmanager
async def _serving(server: uvicorn.Server, listener: socket.socket) -> AsyncIterator[None]:
    """Serve without uvicorn's own loop, which minds the process's signals and looks up ten times a second only."""
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup([listener])
    try:
        yield
    finally:
        await server.shutdown([listener])
        listener.close()
