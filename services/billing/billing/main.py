"""Composition root of the API: settings → connections, bus, catalog → routes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI

from aragora.billing.jwt_auth import JWTConfig
from aragora.chassis import app as chassis_app
from aragora.chassis import bus
from aragora.chassis.consume import disconnect
from aragora.chassis.security import parse_service_keys
from aragora.chassis.trust import trusting
from billing import api, plans_api, subscriptions_api
from billing.handlers import Clock
from billing.settings import Settings
from billing.worker import connect_bus, now_utc, publish

VERSION = "0.1.0"
TITLE = "Aragora Billing"
DESCRIPTION = "Plans, subscriptions, and what they entitle to."
routers = (api.router, subscriptions_api.router, plans_api.router)


def create_app(settings: Settings) -> FastAPI:
    """The API of billing alone."""
    return chassis_app.create_app(
        title=TITLE,
        version=VERSION,
        description=DESCRIPTION,
        routers=routers,
        lifespans=[lifespan(settings)],
        service_keys=parse_service_keys(settings.service_keys),
    )


def lifespan(settings: Settings, clock: Clock = now_utc) -> chassis_app.Lifespan:
    """What the API's routes need while it runs. They find it in `app.state.billing_…`."""

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        JWTConfig.from_environment()  # a missing secret shows at the start, not in the first person's request
        broker = connect_bus(settings)
        async with asyncpg.create_pool(settings.database_url, min_size=1, max_size=10, command_timeout=30) as pool:
            app.state.billing_pool = pool
            app.state.billing_clock = clock
            app.state.billing_meters = await publish(pool, settings, clock)
            app.state.readiness |= bus.readiness(pool, broker)
            try:
                async with trusting(app, await broker.connect()):
                    yield
            finally:
                await disconnect(broker)

    return running
