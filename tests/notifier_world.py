"""The notifier in this process, API and worker, on real servers, with a clock of the test's and auth's answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import httpx
import servers
from fastapi import FastAPI
from nats.aio.client import Client
from nats.aio.msg import Msg
from one_service import ALL_SCOPES, bearer, checked, jwt_secret, service_keys
from phone_book import PhoneBook
from servers import PostgresServer, eventually

from aragora.chassis import app as chassis_app
from aragora.chassis.sealing import Sealer
from aragora.chassis.security import parse_service_keys
from aragora.chassis.sql import Pool
from aragora.contracts.envelope import DomainEvent, Envelope, decode, envelope, subject_for
from aragora.contracts.ids import new_id
from aragora_nats.configuration import STREAM_MAX_BYTES
from aragora_nats.connecting import connect_once
from aragora_nats.topology import apply_topology
from notifier.main import lifespan, routers
from notifier.settings import SERVICE, Settings

Event = TypeVar("Event", bound=DomainEvent)
SEALING_KEYS = "tests-seal-with-this-key-of-forty-bytes!"


@dataclass
class Clock:
    """The time, which goes on as the real one does, and jumps when it is told to."""

    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def advance(self, by: timedelta) -> None:
        """Jump."""
        self.ahead += by


@dataclass
class NotifierWorld:
    """A running notifier. `heard` is every event that it has said."""

    settings: Settings
    pool: Pool
    bus: Client
    client: httpx.AsyncClient
    app: FastAPI
    sealer: Sealer
    clock: Clock = field(default_factory=Clock)
    book: PhoneBook = field(default_factory=PhoneBook)
    heard: list[tuple[Envelope, DomainEvent]] = field(default_factory=list)

    async def tell(
        self, event: DomainEvent, org_id: str, *, occurred_at: datetime | None = None, event_id: UUID | None = None
    ) -> UUID:
        """Publish an event as another service does. Returns its id."""
        said = event_id or new_id()
        when = occurred_at or self.clock()
        message = envelope(event, org_id=org_id, occurred_at=when, correlation_id="told", event_id=said).to_json()
        await self.bus.jetstream().publish(subject_for(event.type_name, org_id), message)
        return said

    async def ask(
        self, method: str, path: str, body: Any = None, *, key: str | None = ALL_SCOPES, **params: Any
    ) -> httpx.Response:
        """A request whose answer is checked: no 5xx, errors in one shape."""
        given = {name: value for name, value in params.items() if value is not None}
        return checked(await self.client.request(method, path, json=body, params=given, headers=bearer(key)))

    async def read(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """The `data` of a good answer."""
        answer = await self.ask(method, path, body, **more)
        assert answer.is_success, answer.text
        return answer.json().get("data")

    def heard_of(self, org_id: str, kind: type[Event]) -> list[Event]:
        """What the notifier has said of an organization, in order."""
        return [event for outer, event in self.heard if outer.subject == org_id and isinstance(event, kind)]

    async def rows(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """What the database says."""
        return list(await self.pool.fetch(query, *arguments))

    async def has_rows(self, count: int, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """Wait until the database says so many rows."""
        found: list[asyncpg.Record] = []

        async def enough() -> bool:
            found[:] = await self.rows(query, *arguments)
            return len(found) >= count

        await eventually(enough, 20, what=query)
        assert len(found) == count, found
        return found


@asynccontextmanager
async def notifier_world(
    postgres: PostgresServer,
    template: str,
    nats_url: str,
    *,
    works: bool = True,
    clock: Clock | None = None,
    **settings: Any,
) -> AsyncIterator[NotifierWorld]:
    """The notifier with a database of its own, on a bus whose streams are made anew.

    `settings` are environment variables by name. Without `works` there is no worker: the test does its work.
    """
    async with AsyncExitStack() as stack:
        database = await postgres.create_database(template)
        stack.push_async_callback(postgres.drop_database, database)
        await servers.delete_streams(nats_url)
        bus = await connect_once(nats_url)
        stack.push_async_callback(bus.close)
        await apply_topology(bus.jetstream(), replicas=1, max_bytes=STREAM_MAX_BYTES)
        stack.enter_context(jwt_secret())
        given = {
            "DATABASE_URL": postgres.url_of(database), "NATS_URL": nats_url, "ARAGORA_SERVICE_KEYS": service_keys(),
            "ARAGORA_SEALING_KEYS": SEALING_KEYS, "ARAGORA_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
        } | settings  # fmt: skip
        chosen = Settings.model_validate(given)
        pool = await stack.enter_async_context(asyncpg.create_pool(chosen.database_url, min_size=1, max_size=4))
        ticking = clock or Clock()
        app = chassis_app.create_app(
            title="Notifier", version="1", routers=routers, lifespans=[lifespan(chosen, ticking)],
            service_keys=parse_service_keys(chosen.service_keys),
        )  # fmt: skip
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://notifier", timeout=30)
        await stack.enter_async_context(client)
        sealer = Sealer(SEALING_KEYS, SERVICE)
        world = NotifierWorld(chosen, pool, bus, client, app, sealer, ticking)

        async def listen(message: Msg) -> None:
            world.heard.append(decode(message.data))

        await bus.subscribe("events.notifier.>", cb=listen)
        await world.book.answer_on(bus)
        await stack.enter_async_context(app.router.lifespan_context(app))
        await app.state.trust.ready()
        if works:
            from notifier.worker import working  # noqa: PLC0415 - a test of the API alone needs none of it

            await stack.enter_async_context(working(chosen, ticking, asyncio.Event()))
        yield world
