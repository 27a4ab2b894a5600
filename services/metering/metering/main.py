"""Composition root of the API: settings → connections, bus, prices → routes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI

from aragora.billing.jwt_auth import JWTConfig
from aragora.billing.pricebook import PriceBook
from aragora.chassis import app as chassis_app
from aragora.chassis.bus import readiness
from aragora.chassis.consume import disconnect
from aragora.chassis.database import open_pool
from aragora.chassis.metrics import announce
from aragora.chassis.security import parse_service_keys
from aragora.chassis.trust import trusting
from aragora.contracts import topology
from metering import api, budgets_api, dashboard_api, dead_letters_api, limits_api, periods_api
from metering.edge import UsagePublisher
from metering.limit_desk import LANES, LimitDesk
from metering.limits_rpc import LimitsOnTheBus
from metering.settings import Settings
from metering.worker import connect_bus, leave_to_stay

VERSION = "0.1.0"
TITLE = "Aragora Metering"
DESCRIPTION = "Records, prices and sums up usage."

log = structlog.get_logger()
routers = (
    api.router, dashboard_api.router, limits_api.router, budgets_api.router, periods_api.router,
    dead_letters_api.router,
)  # fmt: skip


def create_app(settings: Settings) -> FastAPI:
    """The API of metering alone."""
    return chassis_app.create_app(
        title=TITLE,
        version=VERSION,
        description=DESCRIPTION,
        routers=routers,
        lifespans=[lifespan(settings)],
        service_keys=parse_service_keys(settings.service_keys),
    )


def lifespan(settings: Settings) -> chassis_app.Lifespan:
    """What the API's routes need while it runs. They find it in `app.state.metering_…`."""

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        JWTConfig.from_environment()  # a missing secret shows at the start, not in the first person's request
        broker = connect_bus(settings)

        async def publish(subject: str, payload: bytes, headers: dict[str, str]) -> object:
            return await broker.publish(payload, subject, headers=headers, stream=topology.USAGE.name, timeout=5)

        async with (
            open_pool(settings.database_url, min_size=0, max_size=10, timeout=5, command_timeout=10) as pool,
            open_pool(settings.database_url, min_size=0, max_size=LANES, command_timeout=5) as desk_pool,
        ):
            app.state.metering_bus = await broker.connect()
            await announce("metering", broker)
            prices = PriceBook.load(settings.price_tables)
            desk = LimitDesk(desk_pool, prices)
            on_the_bus = LimitsOnTheBus(broker, desk, fail_open=settings.limits_fail_open)
            await on_the_bus.start()
            app.state.metering_pool = pool
            app.state.metering_publisher = UsagePublisher(publish)
            app.state.metering_prices = prices
            app.state.metering_limit_desk = desk
            app.state.metering_limits_fail_open = settings.limits_fail_open
            app.state.readiness |= readiness(pool, broker)
            # Usage is accepted, and limits are refused or allowed as it was chosen, without it.
            app.state.dispensable |= {"postgres"}
            leave_to_stay()
            try:
                async with trusting(app, app.state.metering_bus):
                    yield
            finally:
                await on_the_bus.stop()
                await disconnect(broker)

    return running
