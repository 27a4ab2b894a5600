"""Composition root of the API: settings → connections, bus, catalog → routes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from aragora.billing.jwt_auth import JWTConfig
from aragora.chassis import app as chassis_app
from aragora.chassis import bus
from aragora.chassis.consume import disconnect
from aragora.chassis.database import open_pool
from aragora.chassis.metrics import announce
from aragora.chassis.security import parse_service_keys
from aragora.chassis.trust import trusting
from billing import api, invoices_api, ledger_api, payments_api, plans_api, subscriptions_api, terms_api, webhooks_api
from billing.handlers import Clock
from billing.payments import paying_with
from billing.settings import Settings
from billing.stripe_kinds import KINDS
from billing.worker import connect_bus, now_utc, publish

VERSION = "0.1.0"
TITLE = "Aragora Billing"
DESCRIPTION = "Plans, subscriptions, and what they entitle to."
routers = (
    api.router, subscriptions_api.router, plans_api.router, payments_api.router, webhooks_api.router,
    invoices_api.router, ledger_api.router, terms_api.router,
)  # fmt: skip


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
        async with open_pool(settings.database_url, min_size=1, max_size=10, timeout=5, command_timeout=10) as pool:
            app.state.billing_pool = pool
            app.state.billing_clock = clock
            app.state.billing_settings = settings
            app.state.billing_meters = await publish(pool, settings, clock)
            app.state.readiness |= bus.readiness(pool, broker)
            try:
                await announce("billing", broker)
                async with paying_with(settings, pool, KINDS) as payments, trusting(app, await broker.connect()):
                    app.state.billing_payments = payments
                    yield
            finally:
                await disconnect(broker)

    return running
