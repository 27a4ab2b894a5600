"""Stripe's stand-in as a part of the platform: `python -m standalone.stripe_stand_in`.

It is the simulator, with the catalog's prices, and with a memory: billing remembers its customers for as long as the
data directory lives, and asks it about them after a restart. So its state is a file there, written before anything that
changed it is answered.
"""

import asyncio
import os
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aragora.contracts.ids import new_id
from standalone import datadir
from standalone.datadir import Running
from standalone.problems import DataDirUnusable, NotRunning, StandaloneError
from standalone.stripe_settings import prices
from standalone.stripe_simulator import catalogue, routes
from standalone.stripe_simulator.clock import Clock
from standalone.stripe_simulator.server import create_app
from standalone.stripe_simulator.state import Simulator
from standalone.stripe_simulator.webhooks import Deliveries, Waiting
from standalone.stripe_simulator.world import World

FILE_NAME = "stripe_simulator.pickle"
_OF_THIS_RUN = {"clock", "observers", "base_url"}
"""Of a world, what is not remembered: the clock is by how far it was set ahead."""


def open_simulator(data_dir: Path, running: Running, client: httpx.AsyncClient) -> Simulator:
    """The simulator as it was when it ended, or a new one; with the prices and the webhooks of this run.

    Raises:
        DataDirUnusable: what was written cannot be read.
        CatalogUnusable: nobody knows what is sold.
    """
    told = running.stripe
    world = World(Clock(lambda: int(time.time())), seed=new_id().hex[:12])
    world.base_url = told["STRIPE_API_BASE"]
    deliveries = Deliveries(world, client, lambda: int(time.time()))
    simulator = Simulator(world, deliveries, told["STRIPE_SECRET_KEY"])
    recall(data_dir / FILE_NAME, simulator)
    endpoint = f"{running.url}/api/webhooks/stripe"
    for known in world.table("webhook_endpoint").values():
        known["url"] = endpoint
    if not world.table("webhook_endpoint"):
        wanted = {"url": endpoint, "enabled_events": ["*"]}
        routes.create_endpoint(world, wanted, told["STRIPE_WEBHOOK_SECRET"])
    for price in prices():
        sold = catalogue.put_price(world, price.price_id, price.name, price.cents)
        sold |= {"unit_amount": price.cents, "unit_amount_decimal": str(price.cents)}  # the catalog may have changed
    return simulator


def recall(path: Path, simulator: Simulator) -> None:
    """Make the simulator what was written, if anything was. Raises `DataDirUnusable`."""
    try:
        kept = pickle.loads(path.read_bytes())  # noqa: S301  as private as the keys beside it
        vars(simulator.world).update(kept["world"])
        simulator.world.clock.offset_seconds = kept["offset_seconds"]
        simulator.calls.kept = kept["answers"]
        simulator.deliveries.waiting = [Waiting(one.event, one.endpoint) for one in kept["waiting"]]
    except FileNotFoundError:
        return
    except Exception as error:
        raise DataDirUnusable(
            f"{path} cannot be read ({error!r}): another version may have written it. Begin anew on another "
            "--data-dir, or move the file away if nobody has paid on this one."
        ) from error


def write(path: Path, simulator: Simulator) -> None:
    """Keep the simulator's state: whole or not at all, and for its owner only."""
    world = simulator.world
    kept = {
        "world": {name: value for name, value in vars(world).items() if name not in _OF_THIS_RUN},
        "offset_seconds": world.clock.offset_seconds,
        "answers": simulator.calls.kept,
        "waiting": simulator.deliveries.waiting,
    }
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        pickle.dump(kept, file)
    unfinished.replace(path)


class Remembering:
    """Has the state written before an answer to whatever may have changed it, and when the server ends."""

    def __init__(self, app: ASGIApp, write_down: Callable[[], None]) -> None:
        self.app = app
        self.write_down = write_down

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, and remember."""
        may_change = scope["type"] == "lifespan" or (scope["type"] == "http" and scope["method"] != "GET")

        async def remembered(message: Message) -> None:
            if may_change and message["type"] in {"http.response.start", "lifespan.shutdown.complete"}:
                self.write_down()
            await send(message)

        await self.app(scope, receive, remembered)


async def _serve(data_dir: Path, running: Running) -> None:
    async with httpx.AsyncClient(timeout=10) as client:
        simulator = open_simulator(data_dir, running, client)
        app = Remembering(create_app(simulator), lambda: write(data_dir / FILE_NAME, simulator))
        config = uvicorn.Config(
            app, host="127.0.0.1", port=running.stripe_port or 0, log_level="warning", timeout_graceful_shutdown=5
        )
        await uvicorn.Server(config).serve()


def main() -> None:
    """Serve until SIGTERM."""
    data_dir = datadir.default_data_dir()
    running = datadir.last_run(data_dir)
    try:
        if running is None or not running.stripe:
            raise NotRunning(f"{data_dir} says nothing of a stand-in: `aragora up --simulate-stripe` starts it.")
        asyncio.run(_serve(data_dir, running))
    except StandaloneError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
