"""The APIs of all services in one process, behind one port: `python -m standalone.gateway`."""

import uvloop
from fastapi import APIRouter, FastAPI
from starlette.responses import RedirectResponse

from aragora.chassis import app as chassis_app
from aragora.chassis import telemetry
from aragora.chassis.security import parse_service_keys
from metering import main as metering
from metering.settings import Settings

DESCRIPTION = (
    "Event-sourced usage metering and billing for products that resell LLM calls. Authorize with the service key that "
    "`aragora key` prints."
)

_front = APIRouter(include_in_schema=False)


@_front.get("/")
async def front() -> RedirectResponse:
    """Who comes by hand wants to read."""
    return RedirectResponse("/docs")


def create_app(settings: Settings) -> FastAPI:
    """One application with every service's routes, each on its own connections."""
    return chassis_app.create_app(
        title="Aragora Billing",
        version=metering.VERSION,
        description=DESCRIPTION,
        routers=[_front, *metering.routers],
        lifespans=[metering.lifespan(settings)],
        service_keys=parse_service_keys(settings.service_keys),
    )


def main() -> None:
    """Serve until SIGTERM."""
    settings = Settings()
    telemetry.configure("gateway", level=settings.log_level, format=settings.log_format)
    uvloop.run(chassis_app.serve(create_app(settings), settings.host, settings.port, grace_seconds=15))


if __name__ == "__main__":
    main()
