"""Questions about limits on the bus: `rpc.metering.check`, `.reserve`, `.release`, `.extend`.

The processes of the API share them, as one queue group. They use the client underneath FastStream: a question must not
wait for the one before it, and FastStream's way of doing several at once costs more than the decision
(docs/decisions/0010).
"""

import asyncio
from collections import deque
from contextlib import suppress
from functools import partial

import nats.errors
import structlog
from faststream.nats import NatsBroker
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from aragora.chassis.problems import Problem
from aragora.contracts.topology import LIMIT_VERBS, LIMITS_QUEUE
from metering.limit_desk import Answer, LimitDesk, Overloaded, Question
from metering.limit_replies import QUESTIONS, of_problem, on_the_bus, organization_of, read_question, reply_of

log = structlog.get_logger()

STOP_SECONDS = 5.0


class LimitsOnTheBus:
    """Answers from `start` to `stop`. One task sends all replies, those of a decided batch in one go."""

    def __init__(self, broker: NatsBroker, desk: LimitDesk, *, fail_open: bool) -> None:
        self._broker = broker
        self._desk = desk
        self._fail_open = fail_open
        self._subscriptions: list[Subscription] = []
        self._replies: deque[tuple[str, bytes]] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._unanswered = 0
        self._answered = asyncio.Event()

    async def start(self) -> None:
        """Listen. The broker must be connected; when it reconnects, it listens again."""
        client = await self._broker.connect()
        for verb in LIMIT_VERBS:
            self._subscriptions.append(
                await client.subscribe(f"rpc.metering.{verb}", queue=LIMITS_QUEUE, cb=self._receive)
            )

    async def stop(self) -> None:
        """Take no more questions, and answer those that came."""
        for subscription in self._subscriptions:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                while self._unanswered:
                    self._answered.clear()
                    await self._answered.wait()

    async def _receive(self, message: Msg) -> None:
        self._unanswered += 1
        try:
            question = read_question(QUESTIONS[message.subject.rsplit(".", 1)[1]], message.data)
            decided = self._desk.put(organization_of(question), question, message.headers or {})
        except Problem as problem:
            self._reply(message, on_the_bus(of_problem(problem)))
        except Overloaded as overloaded:
            self._reply(message, self._body(overloaded, question))
        else:
            decided.add_done_callback(partial(self._decided, message, question))

    def _decided(self, message: Msg, question: Question, decided: asyncio.Future[Answer]) -> None:
        error = decided.exception()
        self._reply(message, self._body(error if isinstance(error, Exception) else decided.result(), question))

    def _body(self, outcome: Answer | Exception, question: Question) -> bytes:
        try:
            return on_the_bus(reply_of(outcome, question, fail_open=self._fail_open))
        except Exception:
            log.exception("limits_question_failed", org_id=question.org_id)
            return on_the_bus(of_problem(Problem(500, "This is our mistake; it is logged.")))

    def _reply(self, message: Msg, body: bytes) -> None:
        self._replies.append((message.reply, body))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())

    async def _send(self) -> None:
        client = await self._broker.connect()
        try:
            while self._replies:
                subject, body = self._replies.popleft()
                self._unanswered -= 1
                if subject:
                    with suppress(nats.errors.Error):
                        await client.publish(subject, body)
        finally:
            self._sender = None
            self._answered.set()
