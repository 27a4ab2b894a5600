"""Whose API key is it? Asked on `rpc.auth.verify_key`; all questions that wait are answered by one statement."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import structlog
from faststream.nats import NatsBroker

from aragora.chassis.questions import NOT_KNOWN, answering
from aragora.chassis.sql import Pool
from aragora.chassis.transient import log_failure
from aragora.contracts.keys import KeyVerdict, VerifyKey
from aragora.contracts.topology import VERIFY_KEY
from auth import keys, metrics
from auth.acts import Clock
from auth.handlers import QUESTIONS_QUEUE

log = structlog.get_logger()
_question = msgspec.json.Decoder(VerifyKey)


@asynccontextmanager
async def answering_keys(broker: NatsBroker, pool: Pool, clock: Clock) -> AsyncIterator[None]:
    """Answers while the block runs, and at its end what was asked until then. The broker is connected."""

    async def answers(questions: Sequence[bytes]) -> list[bytes]:
        digests = [_digest(question) for question in questions]
        found: dict[bytes, KeyVerdict] | None = None
        try:
            async with pool.acquire() as connection:
                found = await keys.verify_all(connection, [one for one in set(digests) if one], clock())
        except Exception as error:  # noqa: BLE001 - who asks must not wait for an answer
            log_failure(log, "api_keys_not_verified", error)
        metrics.key_questions.labels("failed" if found is None else "answered").inc(len(digests))
        return [_reply(digest, found) for digest in digests]

    async with answering(await broker.connect(), VERIFY_KEY, QUESTIONS_QUEUE, answers):
        yield


def _reply(digest: bytes | None, found: dict[bytes, KeyVerdict] | None) -> bytes:
    if digest is not None and found is None:
        return NOT_KNOWN
    return msgspec.json.encode((found or {}).get(digest or b"", keys.UNKNOWN))


def _digest(question: bytes) -> bytes | None:
    """What is asked about. None: that cannot be read, and so is nobody's key."""
    try:
        return bytes.fromhex(_question.decode(question).digest)
    except (msgspec.MsgspecError, RecursionError):
        return None
