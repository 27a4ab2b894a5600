"""How many alerts has somebody not read? Asked on `rpc.notifier.unread_alerts`, a part of a page that others show.

All questions that wait are answered by one statement: who asks waits for 0.3 s and no longer. Nothing is asked of auth
for it: who is an owner or admin is what the copy of its word says. Without one, what everybody sees is counted.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from aragora.chassis.sql import Pool
from aragora.contracts.alerts import UNREAD_ALERTS, CountUnread, Unread
from notifier.alerts import count_unread_of_members

QUESTIONS_QUEUE = "notifier"
"""The group in which the API's processes share the questions on `rpc.notifier.*`."""
MAX_TOGETHER = 200
MAX_WAITING = 2000
NOT_KNOWN = b""
"""No answer, so that who asks need not wait to know that there is none."""

log = structlog.get_logger(__name__)
_question = msgspec.json.Decoder(CountUnread)


@asynccontextmanager
async def answering_questions(client: Client, pool: Pool) -> AsyncIterator[None]:
    """Answers while the block runs, and at its end what was asked until then."""
    questions = _Questions(pool)
    subscription = await client.subscribe(UNREAD_ALERTS, queue=QUESTIONS_QUEUE, cb=questions.receive)
    try:
        yield
    finally:
        with suppress(nats.errors.Error):
            await subscription.unsubscribe()
        await questions.answered()


class _Questions:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: deque[tuple[Msg, CountUnread]] = deque()
        self._answering: asyncio.Task[None] | None = None

    async def receive(self, message: Msg) -> None:
        asked = _read(message.data)
        if asked is None or len(self._waiting) >= MAX_WAITING:
            await _reply(message, NOT_KNOWN)
            return
        self._waiting.append((message, asked))
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

    async def _answer(self, asked: list[tuple[Msg, CountUnread]]) -> None:
        try:
            counts = await count_unread_of_members(self._pool, [(one.org_id, one.user_id) for _, one in asked])
            replies = [msgspec.json.encode(Unread(unread=count)) for count in counts]
        except Exception:
            log.exception("unread_alerts_not_counted")
            replies = [NOT_KNOWN] * len(asked)
        for (message, _), reply in zip(asked, replies, strict=True):
            await _reply(message, reply)


async def _reply(message: Msg, body: bytes) -> None:
    with suppress(nats.errors.Error):
        await message.respond(body)


def _read(question: bytes) -> CountUnread | None:
    try:
        asked = _question.decode(question)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return None if "\0" in asked.org_id + asked.user_id else asked
