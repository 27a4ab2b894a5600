"""The APIs of all services in one process, behind one port: `python -m standalone.gateway`.

Each service gets settings of its own, with its own database and its own user of the bus, from the data directory that
`aragora up` named: environment variables would be the same for all of them.
"""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import uvloop
from fastapi import APIRouter, FastAPI
from starlette.responses import RedirectResponse

from aragora.chassis import app as chassis_app
from aragora.chassis import telemetry, tracing
from aragora.chassis.app import Lifespan
from aragora.chassis.security import parse_service_keys
from auth import main as auth
from auth.settings import Settings as AuthSettings
from billing import main as billing
from billing.settings import PRICE_VARIABLE
from billing.settings import Settings as BillingSettings
from metering import main as metering
from metering.settings import Settings as MeteringSettings
from notifier import main as notifier
from notifier.settings import Settings as NotifierSettings
from standalone import credentials, datadir
from standalone.service_settings import environment

DESCRIPTION = (
    "Event-sourced usage metering and billing for products that resell LLM calls. Authorize with the service key that "
    "`aragora key` prints, or with the `access_token` that `POST /api/auth/login` answers."
)

_front = APIRouter(include_in_schema=False)


@_front.get("/")
async def front() -> RedirectResponse:
    """Who comes by hand wants to read."""
    return RedirectResponse("/docs")


def create_app(
    auth_settings: AuthSettings,
    metering_settings: MeteringSettings,
    billing_settings: BillingSettings,
    notifier_settings: NotifierSettings,
) -> FastAPI:
    """One application with every service's routes, each on its own connections.

    Auth comes first: revocations are followed once for all of them, on its connection.
    """
    return chassis_app.create_app(
        title="Aragora Billing",
        version=metering.VERSION,
        description=DESCRIPTION,
        routers=[_front, *auth.routers, *metering.routers, *billing.routers, *notifier.routers],
        lifespans=[
            _named("auth", auth.lifespan(auth_settings)),
            _named("metering", metering.lifespan(metering_settings)),
            _named("billing", billing.lifespan(billing_settings)),
            _named("notifier", notifier.lifespan(notifier_settings)),
        ],
        service_keys=parse_service_keys(metering_settings.service_keys),
    )


def _named(service: str, lifespan: Lifespan) -> Lifespan:
    """The lifespan, with the service's name before the names of what `/readyz` asks: all of them ask for `postgres`."""

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        others, app.state.readiness = app.state.readiness, {}
        async with lifespan(app):
            own = {f"{service}_{name}": check for name, check in app.state.readiness.items()}
            app.state.readiness = others | own
            yield

    return running


def with_prices(told: Mapping[str, str]) -> dict[str, Any]:
    """Billing's settings, with the prices of Stripe's stand-in; without them it looks in the environment for some."""
    prices = {name: price for name, price in told.items() if name.startswith(PRICE_VARIABLE)}
    return {**told, "stripe_prices": prices} if prices else dict(told)


def main() -> None:
    """Serve until SIGTERM."""
    data_dir = datadir.default_data_dir()
    running = datadir.prepared_run(data_dir)
    secrets = credentials.read(data_dir)
    of_auth = AuthSettings.model_validate(environment(secrets, running, "auth"))
    settings = MeteringSettings.model_validate(environment(secrets, running, "metering"))
    of_billing = BillingSettings.model_validate(with_prices(environment(secrets, running, "billing")))
    of_notifier = NotifierSettings.model_validate(environment(secrets, running, "notifier"))
    # People's tokens are signed and verified alike for all services.
    os.environ["ARAGORA_JWT_SECRET"] = environment(secrets, running)["ARAGORA_JWT_SECRET"]
    telemetry.configure("gateway", level=settings.log_level, format=settings.log_format)
    tracing.start("gateway")
    app = create_app(of_auth, settings, of_billing, of_notifier)
    uvloop.run(chassis_app.serve(app, settings.host, settings.port, grace_seconds=15))


if __name__ == "__main__":
    main()
