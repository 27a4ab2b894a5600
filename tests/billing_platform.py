"""Billing as it runs in production: an API process and worker processes on real servers."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
from nats.aio.client import Client
from nats.aio.msg import Msg
from one_service import ALL_SCOPES, bearer, checked, surroundings
from servers import PostgresServer, eventually

from aragora.contracts.envelope import DomainEvent, Envelope, decode, envelope, subject_for
from standalone import machine
from standalone.platform import answers
from standalone.service import PythonService

Event = TypeVar("Event", bound=DomainEvent)


def worker_process(name: str, folder: Path, settings: Mapping[str, str]) -> PythonService:
    """A billing worker, not yet started; it is ready when it answers."""
    port = machine.free_port()
    given = {**settings, "ARAGORA_WORKER_PORT": str(port)}
    return PythonService(name, folder, ["billing", "worker"], given, lambda: answers(f"http://127.0.0.1:{port}/readyz"))


@dataclass
class BillingPlatform:
    """A running API and its workers. `heard` is every domain event that the bus carried since the start."""

    client: httpx.AsyncClient
    bus: Client
    settings: Mapping[str, str]
    folder: Path
    workers: list[PythonService]
    heard: list[tuple[Envelope, DomainEvent]] = field(default_factory=list)
    told: int = 0
    """The number of the last message that it was told, in the stream."""

    async def ask(
        self, method: str, path: str, body: Any = None, *, key: str | None = ALL_SCOPES, **params: Any
    ) -> httpx.Response:
        """A request whose answer is checked: no 5xx, errors in one shape."""
        given = {name: value for name, value in params.items() if value is not None}
        return checked(await self.client.request(method, path, json=body, params=given, headers=bearer(key)))

    async def read(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """The `data` of a good answer."""
        answer = await self.ask(method, path, body, **more)
        assert answer.status_code == 200, answer.text
        content = answer.json()
        assert content["success"] is True
        return content["data"]

    async def tell(self, event: DomainEvent, org_id: str, occurred_at: datetime | None = None) -> bytes:
        """Publish an event as another service does. Returns the message, to send it again."""
        when = occurred_at or datetime.now(UTC)
        message = envelope(event, org_id=org_id, occurred_at=when, correlation_id="told").to_json()
        self.told = (await self.bus.jetstream().publish(subject_for(event.type_name, org_id), message)).seq
        return message

    def heard_of(self, org_id: str, kind: type[Event]) -> list[Event]:
        """What the bus carried of an organization, in order."""
        return [event for outer, event in self.heard if outer.subject == org_id and isinstance(event, kind)]

    async def hears(self, org_id: str, kind: type[Event], count: int = 1) -> Event:
        """Wait for so many events of a kind. Returns the last one."""
        await eventually(lambda: len(self.heard_of(org_id, kind)) >= count, 20, what=f"{kind.__name__} of {org_id}")
        return self.heard_of(org_id, kind)[count - 1]


@asynccontextmanager
async def billing_platform(
    postgres: PostgresServer,
    template: str,
    nats_url: str,
    *,
    account_url: str | None = None,
    catalog: str = "aragora",
    workers: int = 1,
) -> AsyncIterator[BillingPlatform]:
    """Billing with a database of its own, on a bus whose streams are made anew.

    `nats_url` is the operator's. With `account_url` the processes use that one: billing's own.
    """
    async with surroundings(postgres, template, nats_url, account_url) as around:
        folder = around.folder
        settings = around.settings | {"ARAGORA_CATALOG": catalog}
        heard: list[tuple[Envelope, DomainEvent]] = []

        async def listen(message: Msg) -> None:
            heard.append(decode(message.data))

        await around.operator.subscribe("events.billing.>", cb=listen)
        ready = f"{around.url}/readyz"
        api = PythonService("billing-api", folder, ["billing", "api"], settings, lambda: answers(ready))
        started = [worker_process(f"billing-worker-{number}", folder, settings) for number in range(workers)]
        await around.start(api, *started)
        yield BillingPlatform(around.client, around.operator, settings, folder, started, heard)
