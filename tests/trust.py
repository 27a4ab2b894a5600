"""What tests of credentials need: a process' `Trust` on a bus, and the events that end tokens and keys."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from aragora.billing.api_keys import new_api_key
from aragora.billing.jwt_auth import TokenPayload, create_access_token, validate_access_token
from aragora.chassis.trust import Trust
from aragora.contracts.envelope import DomainEvent, envelope, subject_for
from aragora.contracts.events import PLATFORM, ApiKeyRevoked, TokenRevoked, UserTokensRevoked
from aragora.contracts.ids import new_id
from aragora.contracts.keys import KeyHolder, KeyVerdict, VerifyKey
from aragora.contracts.topology import VERIFY_KEY


@asynccontextmanager
async def bus_client(url: str, account: str = "operator") -> AsyncIterator[Client]:
    """A connection as a service has one: it reconnects for ever, quickly, and has its account's own inbox."""

    async def quietly(_: Exception) -> None:
        return

    client = await nats.connect(
        url,
        inbox_prefix=f"_INBOX.{account}".encode(),
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.2,
        error_cb=quietly,
    )
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def following(url: str, account: str = "operator") -> AsyncIterator[Trust]:
    """A `Trust` with a connection of its own, begun."""
    async with bus_client(url, account) as client:
        trust = Trust(client)
        trust.start()
        try:
            yield trust
        finally:
            await trust.stop()


async def say(client: Client, event: DomainEvent, org_id: str = PLATFORM) -> None:
    """Publish an event as auth does; it is on disk afterwards."""
    message = envelope(event, org_id=org_id, occurred_at=datetime.now(UTC), correlation_id="said").to_json()
    await client.jetstream().publish(subject_for(event.type_name, org_id), message)


def new_token(session_id: str | None = None, org_id: str = "org_a") -> tuple[str, TokenPayload]:
    """An access token of a person whom nobody else knows, and what it says."""
    text = create_access_token(f"user_{new_id().hex}", "ann@example.com", org_id, session_id=session_id)
    payload = validate_access_token(text)
    assert payload is not None
    return text, payload


def token_revoked(payload: TokenPayload) -> TokenRevoked:
    """Logging out."""
    ends_at = datetime.now(UTC) + timedelta(days=1)
    return TokenRevoked(user_id=payload.user_id, token_jti=payload.jti, expires_at=ends_at, reason="logout")


def session_revoked(payload: TokenPayload) -> TokenRevoked:
    """A stolen refresh token."""
    ends_at = datetime.now(UTC) + timedelta(days=30)
    return TokenRevoked(user_id=payload.user_id, session_id=payload.session_id, expires_at=ends_at, reason="reuse")


def all_revoked(payload: TokenPayload) -> UserTokensRevoked:
    """Logging out everywhere."""
    return UserTokensRevoked(user_id=payload.user_id, issued_before=datetime.now(UTC), reason="logout everywhere")


def key_revoked(key_id: str) -> ApiKeyRevoked:
    """A key that is ended."""
    return ApiKeyRevoked(key_id=key_id, reason="revoked by its owner")


def digest(key: str) -> str:
    """What the bus sees of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass
class KeysOfAuth:
    """Answers whose key it is, as auth does, while `gate` is open. `asked` counts the questions by digest."""

    verdicts: dict[str, KeyVerdict] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def issue(
        self, org_id: str = "org_a", scopes: tuple[str, ...] = ("usage.read",), expires_at: datetime | None = None
    ) -> tuple[str, str]:
        """A new key: its text and its id."""
        key, key_id = new_api_key(), str(new_id())
        holder = KeyHolder(key_id=key_id, user_id="ann", org_id=org_id, scopes=scopes, expires_at=expires_at)
        self.verdicts[digest(key)] = KeyVerdict(holder=holder)
        return key, key_id

    async def answer(self, message: Msg) -> None:
        question = msgspec.json.decode(message.data, type=VerifyKey)
        self.asked[question.digest] += 1
        verdict = self.verdicts.get(question.digest, KeyVerdict(refused="unknown"))
        await self.gate.wait()
        await message.respond(msgspec.json.encode(verdict))


@asynccontextmanager
async def answering_for_auth(url: str) -> AsyncIterator[KeysOfAuth]:
    """Whoever asks auth about a key on this bus is answered from here."""
    async with bus_client(url) as client:
        keys = KeysOfAuth()
        keys.gate.set()
        await client.subscribe(VERIFY_KEY, cb=keys.answer)
        await client.flush()
        yield keys
