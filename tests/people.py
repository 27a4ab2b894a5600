"""People, organizations and keys on a running platform, made over HTTP as anybody makes them."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from auth_platform import CHEAP_HASHES, PASSWORD, Person, any_address, any_email
from nats.aio.client import Client
from one_service import ALL_SCOPES, bearer, checked, jwt_secret, service_keys
from separate_services import PROCESSES, SERVICES, STEPS, SeparateServices, separate_services
from servers import eventually, scratch_dir, starting_alone

from aragora.contracts.messages import READ_MESSAGE, MessageVerdict, ReadMessage
from aragora.contracts.topology import EVENTS
from standalone import credentials, machine
from standalone.nats import EmbeddedNats
from standalone.platform import Options, Platform

ANYBODYS = {
    "auth": "/api/auth/verify",
    "metering": "/api/subscription/pricing",
    "billing": "/api/subscription/plans",
    "notifier": "/api/notifications/kinds",
}
"""What whoever is known to a service may ask of it: people, and keys that may read."""
OPERATOR_EMAIL = "operator@example.com"
DEBATE = {"event_type": "debate", "provider": "anthropic", "model": "claude-sonnet-4"}


@dataclass
class Site:
    """A running platform, from outside: where each service answers, and the bus as its operator sees it."""

    urls: Mapping[str, str]
    bus: Client
    client: httpx.AsyncClient
    operator_email: str = OPERATOR_EMAIL

    @property
    def services(self) -> list[str]:
        """Every service that verifies credentials by itself."""
        return list(self.urls)

    async def ask(
        self, service: str, method: str, path: str, credential: str | None = None, body: Any = None,
        query: Mapping[str, str] | None = None, **headers: str,
    ) -> httpx.Response:  # fmt: skip
        """A request whose answer is checked: no 5xx, errors in one shape. Each comes from an address of its own."""
        given = bearer(credential) | {"X-Forwarded-For": any_address()} | headers
        url = self.urls[service] + path
        return checked(await self.client.request(method, url, json=body, params=query, headers=given))

    async def read(self, method: str, path: str, credential: str | None = None, body: Any = None) -> Any:
        """The `data` of a good answer of auth."""
        answer = await self.ask("auth", method, path, credential, body)
        assert answer.is_success, f"{method} {path}: {answer.text}"
        return answer.json().get("data")

    async def register(self, email: str | None = None, **body: Any) -> Person:
        """A new account, with an organization of its own unless it comes with an invitation."""
        given = {"email": email or any_email(), "password": PASSWORD} | body
        found = await self.read("POST", "/api/auth/register", None, given)
        return Person(
            found["user"]["user_id"], found["organization"]["org_id"], found["user"]["email"], given["password"],
            found["access_token"], found["refresh_token"],
        )  # fmt: skip

    async def sign_in(self, person: Person, **body: Any) -> dict[str, Any]:
        """A new session's tokens."""
        given = {"email": person.email, "password": person.password} | body
        found: dict[str, Any] = await self.read("POST", "/api/auth/login", None, given)
        return found

    async def operator(self) -> Person:
        """The operator whom the first start has made."""
        someone = Person("", "", self.operator_email, PASSWORD, "", "")
        found = await self.sign_in(someone)
        return Person(
            found["user"]["user_id"], found["organization"]["org_id"], self.operator_email, PASSWORD,
            found["access_token"], found["refresh_token"],
        )  # fmt: skip

    async def give_plan(self, owner: Person, org_id: str, plan: str = "professional") -> None:
        """Give an organization a plan, and return when auth and metering know it."""
        path = f"/api/subscription/organizations/{org_id}/subscription"
        answer = await self.ask("billing", "PUT", path, ALL_SCOPES, {"plan": plan})
        assert answer.is_success, answer.text

        async def known() -> bool:
            found = await self.read("GET", f"/api/organizations/{org_id}", owner.access_token)
            body = {"org_id": org_id, "operations": [DEBATE]}
            checks = await self.client.post(
                self.urls["metering"] + "/api/usage/limits/check", json=body, headers=bearer(ALL_SCOPES)
            )
            return bool(found["plan"] and found["plan"]["name"] == plan.capitalize()) and checks.is_success

        await eventually(known, 30, what="the plan is known")

    async def invite(self, inviter: Person, org_id: str, email: str, role: str = "member") -> str:
        """An invitation's secret, as the letter has it."""
        body = {"email": email, "role": role}
        found = await self.read("POST", f"/api/organizations/{org_id}/invitations", inviter.access_token, body)
        return await self.secret_of(found["invitation_id"])

    async def secret_of(self, message_id: str) -> str:
        """The secret of a letter, as whoever sends letters gets it."""
        question = msgspec.json.encode(ReadMessage(message_id=message_id))
        reply = await self.bus.request(READ_MESSAGE, question, timeout=5)
        verdict = msgspec.json.decode(reply.data, type=MessageVerdict)
        assert verdict.message is not None
        return verdict.message.token

    async def letter(self, event: str, user_id: str) -> str:
        """The secret of the newest letter to a person that an event of this name asked for. Waits for it."""
        subject, found = f"events.auth.{event}.*", list[dict[str, Any]]()

        async def asked() -> bool:
            found[:] = [one for one in await self.said(subject) if one["data"]["user_id"] == user_id]
            return bool(found)

        await eventually(asked, 20, what=f"{event} of {user_id}")
        return await self.secret_of(found[-1]["data"]["message_id"])

    async def said(self, subject: str = "events.>") -> list[dict[str, Any]]:
        """Every domain event that the bus keeps, in order."""
        consumer = await self.bus.jetstream().subscribe(subject, stream=EVENTS.name, ordered_consumer=True)
        info = await consumer.consumer_info()
        count = (info.num_pending or 0) + (info.delivered.consumer_seq if info.delivered else 0)
        messages = [await consumer.next_msg(timeout=5) for _ in range(count)]
        await consumer.unsubscribe()
        return [json.loads(message.data) for message in messages]

    async def make_key(self, maker: Person, org_id: str, *scopes: str) -> tuple[str, str]:
        """An API key: its text and its id."""
        body = {"name": f"key {secrets.token_hex(4)}", "scopes": list(scopes), "org_id": org_id}
        found = await self.read("POST", "/api/auth/api-keys", maker.access_token, body)
        return found["key"], found["key_id"]

    async def opens(self, service: str, credential: str) -> bool:
        """Whether a service knows whose credential this is."""
        answer = await self.ask(service, "GET", ANYBODYS[service], credential)
        assert answer.status_code in (200, 401), answer.text
        return answer.status_code == 200

    async def refused_everywhere(self, *refused: str) -> None:
        """Return when no service takes any of these any more."""
        for service in self.services:
            for one in refused:

                async def shut(service: str = service, one: str = one) -> bool:
                    return not await self.opens(service, one)

                await eventually(shut, 20, what=f"{service} refuses what was revoked")


@contextmanager
def surroundings() -> Iterator[pytest.MonkeyPatch]:
    """The environment in which a platform starts: who operates it, and whose word on addresses it takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARAGORA_OPERATOR_EMAIL", OPERATOR_EMAIL)
        patch.setenv("ARAGORA_OPERATOR_PASSWORD", PASSWORD)
        patch.setenv("ARAGORA_TRUSTED_PROXIES", "127.0.0.1")
        patch.setenv("ARAGORA_SERVICE_KEYS", service_keys())
        for variable, value in CHEAP_HASHES.items():
            patch.setenv(variable, value)
        yield patch


@asynccontextmanager
async def separate_site() -> AsyncIterator[tuple[Site, SeparateServices]]:
    """Every service in processes of its own, each with its own database and user of the bus."""
    with surroundings():
        async with separate_services() as parts, httpx.AsyncClient(timeout=30) as client:
            await parts.step("postgres")
            await parts.step("nats")
            await asyncio.gather(*(parts.step(name) for name in STEPS if name not in (*PROCESSES, "postgres", "nats")))
            await asyncio.gather(*map(parts.step, PROCESSES))
            await parts.ready()
            bus = await parts._nats.connect()
            urls = {service: f"http://127.0.0.1:{parts._ports[f'{service}-api']}" for service in SERVICES}
            try:
                yield Site(urls, bus, client), parts
            finally:
                await bus.close()


@asynccontextmanager
async def gateway_site() -> AsyncIterator[tuple[Site, Path]]:
    """Every service behind one port, as `aragora up` runs them; and where their logs are."""
    with surroundings(), jwt_secret():
        async with scratch_dir() as folder, httpx.AsyncClient(timeout=30) as client:
            known = credentials.read_or_make(folder)
            platform = Platform(Options(folder, port=machine.free_port(), workers=1), known, print)
            try:
                async with starting_alone():
                    running = await platform.start()
                bus = await EmbeddedNats(folder, known.bus, running.nats_port).connect()
                try:
                    yield Site(dict.fromkeys(credentials.SERVICES, running.url), bus, client), folder
                finally:
                    await bus.close()
            finally:
                await platform.stop()
