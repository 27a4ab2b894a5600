"""How many alerts has somebody not read? Asked on `rpc.notifier.unread_alerts`, a part of a page that others show.

Who asks waits for 0.3 s and no longer. Nothing is asked of auth for it: who is an owner or admin is what the copy of
its word says. Without one, what everybody sees is counted.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
from nats.aio.client import Client

from aragora.chassis.questions import NOT_KNOWN, answering
from aragora.chassis.sql import Pool
from aragora.contracts.alerts import UNREAD_ALERTS, CountUnread, Unread
from notifier.alerts import count_unread_of_members

QUESTIONS_QUEUE = "notifier"
"""The group in which the API's processes share the questions on `rpc.notifier.*`."""

_question = msgspec.json.Decoder(CountUnread)


@asynccontextmanager
async def answering_questions(client: Client, pool: Pool) -> AsyncIterator[None]:
    """Answers while the block runs, and at its end what was asked until then."""

    async def answers(questions: Sequence[bytes]) -> list[bytes]:
        asked = [_read(question) for question in questions]
        people = [(one.org_id, one.user_id) for one in asked if one is not None]
        counts = iter(await count_unread_of_members(pool, people) if people else ())
        return [NOT_KNOWN if one is None else msgspec.json.encode(Unread(unread=next(counts))) for one in asked]

    async with answering(client, UNREAD_ALERTS, QUESTIONS_QUEUE, answers):
        yield


def _read(question: bytes) -> CountUnread | None:
    try:
        asked = _question.decode(question)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return None if "\0" in asked.org_id + asked.user_id else asked
