"""Auth as it runs in production: an API process and a worker process on real servers."""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from billing_platform import Event
from nats.aio.client import Client
from nats.aio.msg import Msg
from one_service import ALL_SCOPES, bearer, checked, surroundings
from servers import PostgresServer, eventually

from aragora.chassis.sealing import Sealer
from aragora.contracts.envelope import DomainEvent, Envelope, decode, envelope, subject_for
from aragora.contracts.events import EntitlementsChanged
from auth.messages import token_of
from standalone import machine
from standalone.platform import answers
from standalone.service import PythonService

PASSWORD = "correct-horse-battery-staple-42"
SEALING_KEYS = "tests-seal-with-this-key-of-forty-bytes!"

CHEAP_HASHES = {"ARAGORA_PASSWORD_MEMORY_KIB": "7168", "ARAGORA_PASSWORD_TIME_COST": "1"}
"""Hundreds of passwords are hashed in the tests. What a hash costs by default, the bench measures."""

_numbers = count(1)
_revisions = count(1)


@dataclass
class Person:
    """Somebody with an account."""

    user_id: str
    org_id: str
    email: str
    password: str
    access_token: str
    refresh_token: str


@dataclass
class AuthPlatform:
    """A running API and its worker. `heard` is every domain event of auth that the bus carried since the start."""

    client: httpx.AsyncClient
    bus: Client
    settings: Mapping[str, str]
    folder: Path
    database_url: str
    api: PythonService
    worker: PythonService
    heard: list[tuple[Envelope, DomainEvent]] = field(default_factory=list)
    operator_key: str = ALL_SCOPES

    async def ask(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, address: str | None = None,
        **params: Any,
    ) -> httpx.Response:  # fmt: skip
        """A request whose answer is checked: no 5xx, errors in one shape. Each comes from an address of its own."""
        headers = bearer(token) | {"X-Forwarded-For": address or any_address()}
        given = {name: value for name, value in params.items() if value is not None}
        return checked(await self.client.request(method, path, json=body, params=given, headers=headers))

    async def read(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """The `data` of a good answer."""
        answer = await self.ask(method, path, body, **more)
        assert answer.is_success, answer.text
        content = answer.json()
        assert content["success"] is True
        return content.get("data")

    async def register(self, email: str | None = None, **body: Any) -> Person:
        """A new account, with an organization of its own unless it comes with an invitation."""
        given = {"email": email or any_email(), "password": PASSWORD} | body
        found = await self.read("POST", "/api/auth/register", given)
        return Person(
            found["user"]["user_id"], found["organization"]["org_id"], found["user"]["email"], given["password"],
            found["access_token"], found["refresh_token"],
        )  # fmt: skip

    async def sign_in(self, person: Person, **body: Any) -> dict[str, Any]:
        """A new session's tokens."""
        given = {"email": person.email, "password": person.password} | body
        found: dict[str, Any] = await self.read("POST", "/api/auth/login", given)
        return found

    async def entitle(self, org_id: str, seats: int | None = None, features: Mapping[str, bool] | None = None) -> None:
        """Say what an organization may do, as billing does, and wait until auth knows."""
        revision = next(_revisions)
        changed = EntitlementsChanged(
            revision=revision, plan="test", plan_version=1, plan_name="Test", features=dict(features or {}),
            seats=seats, limits=(),
        )  # fmt: skip
        await self.tell(changed, org_id)

        async def known() -> bool:
            rows = await self.query("SELECT revision FROM entitlements WHERE org_id = $1", org_id)
            return bool(rows) and rows[0]["revision"] >= revision

        await eventually(known, 20, what="entitlements are known")

    async def tell(self, event: DomainEvent, org_id: str, occurred_at: datetime | None = None) -> bytes:
        """Publish an event as another service does. Returns the message, to send it again."""
        when = occurred_at or datetime.now(UTC)
        message = envelope(event, org_id=org_id, occurred_at=when, correlation_id="told").to_json()
        await self.bus.jetstream().publish(subject_for(event.type_name, org_id), message)
        return message

    async def query(self, text: str, *arguments: Any) -> list[asyncpg.Record]:
        """Rows of auth's database."""
        connection = await asyncpg.connect(self.database_url)
        try:
            return await connection.fetch(text, *arguments)
        finally:
            await connection.close()

    async def letter(self, email: str, kind: str) -> str:
        """The secret of the newest letter to this address that is not used yet. Waits for it."""
        found: list[asyncpg.Record] = []

        async def written() -> bool:
            found[:] = await self.query(
                "SELECT message_id FROM messages WHERE email = $1 AND kind = $2 AND used_at IS NULL "
                "ORDER BY message_id DESC LIMIT 1",
                email,
                kind,
            )
            return bool(found)

        await eventually(written, 20, what=f"a letter {kind}")
        return token_of(Sealer(SEALING_KEYS, "auth"), kind, found[0]["message_id"])

    def heard_of(self, kind: type[Event], **fields: Any) -> list[Event]:
        """What the bus carried of a kind, with these fields, in order."""
        found = [event for _, event in self.heard if isinstance(event, kind)]
        return [event for event in found if all(getattr(event, name) == value for name, value in fields.items())]

    async def hears(self, kind: type[Event], **fields: Any) -> Event:
        """Wait for an event of a kind. Returns the last one."""
        await eventually(lambda: bool(self.heard_of(kind, **fields)), 20, what=f"{kind.__name__} {fields}")
        return self.heard_of(kind, **fields)[-1]


def any_email() -> str:
    """An address that nobody has."""
    return f"person-{secrets.token_hex(6)}@example.com"


def any_address() -> str:
    """A network address: nobody is locked out for what another test got wrong."""
    number = next(_numbers)
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def auth_process(
    name: str, command: str, folder: Path, settings: Mapping[str, str], more: Mapping[str, str]
) -> PythonService:
    """One of auth's processes, not yet started; it is ready when it answers."""
    given = {**settings, **more}
    port = given.get("ARAGORA_WORKER_PORT") or given["ARAGORA_PORT"]
    return PythonService(name, folder, ["auth", command], given, lambda: answers(f"http://127.0.0.1:{port}/readyz"))


@asynccontextmanager
async def auth_platform(
    postgres: PostgresServer, template: str, nats_url: str, *, account_url: str | None = None, **environment: str
) -> AsyncIterator[AuthPlatform]:
    """Auth with a database of its own, on a bus whose streams are made anew.

    `nats_url` is the operator's. With `account_url` the processes use that one: auth's own.
    """
    async with surroundings(postgres, template, nats_url, account_url) as around:
        folder = around.folder
        settings = (
            around.settings
            | {"ARAGORA_SEALING_KEYS": SEALING_KEYS, "ARAGORA_TRUSTED_PROXIES": "127.0.0.1", **CHEAP_HASHES}
            | environment
        )
        heard: list[tuple[Envelope, DomainEvent]] = []

        async def listen(message: Msg) -> None:
            heard.append(decode(message.data))

        await around.operator.subscribe("events.auth.>", cb=listen)
        api = auth_process("auth-api", "api", folder, settings, {})
        probes = {"ARAGORA_WORKER_PORT": str(machine.free_port())}
        worker = auth_process("auth-worker", "worker", folder, settings, probes)
        await around.start(api, worker)
        yield AuthPlatform(
            around.client, around.operator, settings, folder, settings["DATABASE_URL"], api, worker, heard
        )
