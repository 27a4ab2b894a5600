"""Questions on the bus of which many come at once: all that wait are answered together, with one statement.

On the client underneath FastStream, for the reasons of docs/decisions/0010. The processes of an API share the
questions, as one queue group.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from aragora.chassis import tracing
from aragora.chassis.transient import log_failure

MAX_TOGETHER = 500
MAX_WAITING = 10_000
NOT_KNOWN = b""
"""No answer, so that who asks need not wait to know that there is none just now."""

Answers = Callable[[Sequence[bytes]], Awaitable[Sequence[bytes]]]
"""Answers questions, in their order. If it raises, none of them is known."""

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def answering(client: Client, subject: str, queue: str, answers: Answers) -> AsyncIterator[None]:
    """Answers while the block runs, and at its end what was asked until then."""
    questions = _Questions(client, subject, answers)
    subscription = await client.subscribe(subject, queue=queue, cb=questions.receive)
    try:
        yield
    finally:
        with suppress(nats.errors.Error):
            await subscription.unsubscribe()
        await questions.answered()


class _Questions:
    def __init__(self, client: Client, subject: str, answers: Answers) -> None:
        self._client = client
        self._subject = subject
        self._answers = answers
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

    async def _answer(self, asked: Sequence[Msg]) -> None:
        with tracing.continuing(self._subject, "SERVER", [message.headers or {} for message in asked]):
            try:
                replies = await self._answers([message.data for message in asked])
            except Exception as error:  # noqa: BLE001  whoever asks must hear that there is no answer
                log_failure(_log, "questions_not_answered", error, subject=self._subject)
                replies = [NOT_KNOWN] * len(asked)
        for message, reply in zip(asked, replies, strict=True):
            await self._reply(message, reply)

    async def _reply(self, message: Msg, body: bytes) -> None:
        if message.reply:
            with suppress(nats.errors.Error):
                await self._client.publish(message.reply, body)
