"""Questions about limits on the bus: `rpc.metering.check`, `.reserve`, `.release`, `.extend`.

The processes of the API share them, as one queue group. They use the client underneath FastStream: a question must not
wait for the one before it, and FastStream's way of doing several at once costs more than the decision
(docs/decisions/0010).
"""

import asyncio
from contextlib import suppress

import nats.errors
import structlog
from faststream.nats import NatsBroker
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from aragora.chassis.problems import Problem
from aragora.contracts.topology import LIMIT_VERBS, LIMITS_QUEUE
from metering.limit_desk import LimitDesk
from metering.limit_replies import QUESTIONS, Reply, of_problem, on_the_bus, read_question, reply_to

log = structlog.get_logger()


class LimitsOnTheBus:
    """Answers from `start` to `stop`."""

    def __init__(self, broker: NatsBroker, desk: LimitDesk, *, fail_open: bool) -> None:
        self._broker = broker
        self._desk = desk
        self._fail_open = fail_open
        self._subscriptions: list[Subscription] = []
        self._answering: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. The broker must be connected; when it reconnects, it listens again."""
        client = await self._broker.connect()
        for verb in LIMIT_VERBS:
            self._subscriptions.append(
                await client.subscribe(f"rpc.metering.{verb}", queue=LIMITS_QUEUE, cb=self._answer)
            )

    async def stop(self) -> None:
        """Take no more questions, and answer those that came."""
        for subscription in self._subscriptions:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()
        if self._answering:
            await asyncio.wait(self._answering, timeout=5)

    async def _answer(self, message: Msg) -> None:
        task = asyncio.create_task(self._reply(message))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _reply(self, message: Msg) -> None:
        try:
            reply = await self._reply_to(message)
        except Exception:
            log.exception("limits_question_failed", subject=message.subject)
            reply = of_problem(Problem(500, "This is our mistake; it is logged."))
        with suppress(nats.errors.Error):
            await message.respond(on_the_bus(reply))

    async def _reply_to(self, message: Msg) -> Reply:
        try:
            question = read_question(QUESTIONS[message.subject.rsplit(".", 1)[1]], message.data)
        except Problem as problem:
            return of_problem(problem)
        return await reply_to(self._desk, question, fail_open=self._fail_open)
