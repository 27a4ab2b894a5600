"""Composition root of the API: settings → connections, bus → routes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from aragora.billing.jwt_auth import JWTConfig
from aragora.chassis import app as chassis_app
from aragora.chassis import bus
from aragora.chassis.consume import disconnect
from aragora.chassis.database import open_pool
from aragora.chassis.metrics import announce
from aragora.chassis.sealing import Sealer
from aragora.chassis.security import parse_service_keys
from aragora.chassis.trust import trusting
from notifier import (
    alerts_api,
    deliveries_api,
    endpoints_api,
    letters_api,
    preferences_api,
    suppressions_api,
    unsubscribe_api,
)
from notifier.alert_following import following_alerts
from notifier.alert_questions import answering_questions
from notifier.bus_connection import connect_bus, now_utc
from notifier.directory import Directory
from notifier.handlers import Clock
from notifier.settings import SERVICE, Settings

VERSION = "0.1.0"
TITLE = "Aragora Notifier"
DESCRIPTION = "Who must know: alerts, e-mail, signed webhooks."
routers = (
    alerts_api.router, preferences_api.router, endpoints_api.router, deliveries_api.router, letters_api.router,
    unsubscribe_api.router, suppressions_api.router,
)  # fmt: skip


def create_app(settings: Settings) -> FastAPI:
    """The API of the notifier alone."""
    return chassis_app.create_app(
        title=TITLE,
        version=VERSION,
        description=DESCRIPTION,
        routers=routers,
        lifespans=[lifespan(settings)],
        service_keys=parse_service_keys(settings.service_keys),
    )


def lifespan(settings: Settings, clock: Clock = now_utc) -> chassis_app.Lifespan:
    """What the API's routes need while it runs. They find it in `app.state.notifier_…`."""

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        JWTConfig.from_environment()  # a missing secret shows at the start, not in the first person's request
        broker = connect_bus(settings)
        async with open_pool(settings.database_url, min_size=1, max_size=10, timeout=5, command_timeout=10) as pool:
            client = await broker.connect()
            await announce(SERVICE, broker)
            app.state.notifier_pool = pool
            app.state.notifier_clock = clock
            app.state.notifier_settings = settings
            app.state.notifier_sealer = sealer = Sealer(settings.sealing_keys, SERVICE)
            app.state.notifier_directory = Directory(pool, client, sealer)
            app.state.readiness |= bus.readiness(pool, broker)
            try:
                async with trusting(app, client), following_alerts(app, pool), answering_questions(client, pool):
                    yield
            finally:
                await disconnect(broker)

    return running
