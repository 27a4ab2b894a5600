"""Composition root of the API: settings → connections, bus, keys → routes."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI

from aragora.billing.jwt_auth import JWTConfig
from aragora.chassis import app as chassis_app
from aragora.chassis import bus
from aragora.chassis.consume import disconnect
from aragora.chassis.database import open_pool
from aragora.chassis.metrics import announce
from aragora.chassis.relay import Relay
from aragora.chassis.sealing import Sealer
from aragora.chassis.security import parse_service_keys
from aragora.chassis.trust import trusting
from aragora.contracts import topology
from auth import (
    accounts_api,
    audit_api,
    invitations_api,
    keys_api,
    members_api,
    operators_api,
    organizations_api,
    passwords_api,
    privacy_api,
    second_factor_api,
    sessions_api,
)
from auth.acts import Clock
from auth.handlers import answer_questions
from auth.hashing import Hasher
from auth.key_questions import answering_keys
from auth.settings import Settings
from auth.worker import now_utc, publisher

VERSION = "0.1.0"
TITLE = "Aragora Auth"
DESCRIPTION = "Who you are: accounts, organizations, tokens, API keys, revocation."

log = structlog.get_logger()
routers = (
    accounts_api.router,
    sessions_api.router,
    passwords_api.router,
    second_factor_api.router,
    operators_api.router,  # before whatever else begins with /api/auth/users
    privacy_api.router,
    organizations_api.router,
    members_api.router,
    invitations_api.router,
    keys_api.router,
    audit_api.router,
)


def create_app(settings: Settings) -> FastAPI:
    """The API of auth alone."""
    return chassis_app.create_app(
        title=TITLE,
        version=VERSION,
        description=DESCRIPTION,
        routers=routers,
        lifespans=[lifespan(settings)],
        service_keys=parse_service_keys(settings.service_keys),
    )


def lifespan(settings: Settings, clock: Clock = now_utc) -> chassis_app.Lifespan:
    """What the API's routes need while it runs. They find it in `app.state.auth_…`."""

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        JWTConfig.from_environment()  # a missing secret shows at the start, not in the first person's request
        user, password = settings.nats_user, settings.nats_password
        broker = bus.connect_bus(settings.nats_url, user, password, topology.AUTH)
        async with open_pool(settings.database_url, min_size=1, max_size=12, timeout=5, command_timeout=10) as pool:
            app.state.auth_pool = pool
            app.state.auth_clock = clock
            app.state.auth_sealer = sealer = Sealer(settings.sealing_keys, "auth")
            app.state.auth_proxies = [one.strip() for one in settings.trusted_proxies.split(",") if one.strip()]
            app.state.auth_hasher = Hasher(settings.password_memory_kib, settings.password_time_cost)
            answer_questions(broker, pool, sealer, clock)
            await broker.start()
            await announce("auth", broker)
            # Revocations must not wait for a worker: whichever of the two has the turn publishes.
            relay = Relay(pool, publisher(broker))
            relay.start()
            app.state.readiness |= bus.readiness(pool, broker)
            gc.collect()
            gc.freeze()
            try:
                client = await broker.connect()
                async with answering_keys(broker, pool, clock), trusting(app, client):
                    yield
            finally:
                await relay.stop()
                await disconnect(broker)

    return running
