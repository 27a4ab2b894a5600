"""Whose API key is it? Asked on `rpc.auth.verify_key`; all questions that wait are answered by one statement.

On the client underneath FastStream, for the reasons of docs/decisions/0010: many services ask at once, and whoever
tries out random keys makes them ask more. The processes of the API share the questions, as one queue group.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
import nats.errors
import structlog
from faststream.nats import NatsBroker
from nats.aio.client import Client
from nats.aio.msg import Msg

from aragora.chassis.sql import Pool
from aragora.contracts.keys import KeyVerdict, VerifyKey
from aragora.contracts.topology import VERIFY_KEY
from auth import keys
from auth.acts import Clock
from auth.handlers import QUESTIONS_QUEUE

MAX_TOGETHER = 500
MAX_WAITING = 10_000
NOT_KNOWN = b""
"""No verdict, so that who asks need not wait to know that there is none just now."""

log = structlog.get_logger()
_question = msgspec.json.Decoder(VerifyKey)


@asynccontextmanager
async def answering_keys(broker: NatsBroker, pool: Pool, clock: Clock) -> AsyncIterator[None]:
    """Answers while the block runs, and at its end what was asked until then. The broker is connected."""
    client = await broker.connect()
    questions = _Questions(client, pool, clock)
    subscription = await client.subscribe(VERIFY_KEY, queue=QUESTIONS_QUEUE, cb=questions.receive)
    try:
        yield
    finally:
        with suppress(nats.errors.Error):
            await subscription.unsubscribe()
        await questions.answered()


class _Questions:
    def __init__(self, client: Client, pool: Pool, clock: Clock) -> None:
        self._client = client
        self._pool = pool
        self._clock = clock
        self._waiting: deque[Msg] = deque()
        self._answering: asyncio.Task[None] | None = None

    async def receive(self, message: Msg) -> None:
        if len(self._waiting) >= MAX_WAITING:
            await self._reply(message, NOT_KNOWN)
            return
        self._waiting.append(message)
        if self._answering is None:
            self._answering = asyncio.create_task(self._answer_all())

    async def answered(self) -> None:
        if self._answering is not None:
            await self._answering

    async def _answer_all(self) -> None:
        try:
            while self._waiting:
                await self._answer([self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_TOGETHER))])
        finally:
            self._answering = None

    async def _answer(self, asked: list[Msg]) -> None:
        digests = [_digest(message.data) for message in asked]
        found: dict[bytes, KeyVerdict] | None = None
        try:
            async with self._pool.acquire() as connection:
                found = await keys.verify_all(connection, [one for one in set(digests) if one], self._clock())
        except Exception:
            log.exception("api_keys_not_verified")
        for message, digest in zip(asked, digests, strict=True):
            if digest is not None and found is None:
                await self._reply(message, NOT_KNOWN)
            else:
                await self._reply(message, msgspec.json.encode((found or {}).get(digest or b"", keys.UNKNOWN)))

    async def _reply(self, message: Msg, body: bytes) -> None:
        if message.reply:
            with suppress(nats.errors.Error):
                await self._client.publish(message.reply, body)


def _digest(question: bytes) -> bytes | None:
    """What is asked about. None: that cannot be read, and so is nobody's key."""
    try:
        return bytes.fromhex(_question.decode(question).digest)
    except (msgspec.MsgspecError, RecursionError):
        return None
