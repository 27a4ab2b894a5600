"""What a process must know to trust a credential: which tokens were revoked, and whose an API key is.

Revocations are read from the bus, each process for itself: first those of as many days as tokens live, then each as it
is said. Until that first reading is done, no token is accepted. API keys are asked of auth, by their digest, and
remembered for a few seconds; a revocation is heard like a token's and ends that at once.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import nats.errors
import structlog
from fastapi import FastAPI
from nats.aio.client import Client

from aragora.billing.api_keys import digest_of, has_key_form
from aragora.billing.expiring import Expiring
from aragora.billing.jwt_auth import JWTConfig, TokenBlacklist
from aragora.chassis import tracing
from aragora.chassis.following import follow
from aragora.chassis.problems import Problem
from aragora.contracts.envelope import decode
from aragora.contracts.keys import KeyHolder, KeyVerdict, VerifyKey
from aragora.contracts.topology import REVOCATIONS, VERIFY_KEY

REMEMBERED_SECONDS = 30.0
"""How long an accepted key is accepted without asking again; a change of plan takes as long to be noticed."""
REFUSED_SECONDS = 2.0
ENDED_SECONDS = 60.0
"""How long an ended key is known as such: longer than an answer from before can be under way and remembered."""
MAX_REMEMBERED = 10_000
ASK_SECONDS = 3.0

_verdict = msgspec.json.Decoder(KeyVerdict)
_log = structlog.get_logger(__name__)


class Trust:
    """What one process knows, from `start` to `stop`. `client` is a connection to the bus that reconnects for ever."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._verdicts: Expiring[KeyVerdict] = Expiring(MAX_REMEMBERED)
        self._ended_keys: Expiring[bool] = Expiring(MAX_REMEMBERED)
        self._asking: dict[str, asyncio.Task[KeyVerdict | None]] = {}
        self._caught_up = {subject: asyncio.Event() for subject in REVOCATIONS}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins to follow the revocations, in tasks of their own."""
        since = datetime.now(UTC) - JWTConfig.from_environment().access_lifetime - timedelta(minutes=1)
        for subject, caught_up in self._caught_up.items():
            following = follow(self._client, subject, since, self._hear, caught_up)
            self._tasks.append(asyncio.create_task(following, name=f"follow {subject}"))

    async def stop(self) -> None:
        """Ends the following."""
        tasks = pending = {*self._tasks, *self._asking.values()}
        while pending:
            # Once more, until it is heard: Python 3.11's `wait_for`, in nats-py, loses a cancellation when a message
            # comes in the same moment.
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=0.5)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def ready(self) -> None:
        """A readiness check: returns once all revocations up to now are known."""
        for caught_up in self._caught_up.values():
            await caught_up.wait()

    def demand(self) -> None:
        """Raises a `Problem` (503) as long as revocations may be unknown."""
        if not all(caught_up.is_set() for caught_up in self._caught_up.values()):
            detail = "Which tokens were revoked is not known here yet; try again."
            raise Problem(503, detail, headers={"Retry-After": "1"})

    async def verify_key(self, key: str) -> KeyHolder | None:
        """Whose API key this is; None if it is nobody's.

        Raises:
            Problem: 403, the organization's plan has no API access; 503, auth does not answer.
        """
        if not has_key_form(key):
            return None
        digest = digest_of(key)
        verdict = self._verdicts.get(digest, time.monotonic()) or await self._ask_once(digest)
        if verdict is None:
            detail = "Whose key this is cannot be found out just now; try again."
            raise Problem(503, detail, headers={"Retry-After": "1"})
        if verdict.refused == "plan":
            raise Problem(403, "The organization's plan has no API access; an owner or admin can choose another.")
        holder = verdict.holder
        if holder is None or self._ended_keys.get(holder.key_id, time.monotonic()):
            return None
        return None if holder.expires_at and holder.expires_at <= datetime.now(UTC) else holder

    async def _ask_once(self, digest: str) -> KeyVerdict | None:
        """Many requests with one key ask one question. It is answered although one of them may be broken off."""
        asking = self._asking.get(digest)
        if asking is None:
            asking = self._asking[digest] = asyncio.create_task(self._ask(digest))
            asking.add_done_callback(lambda _: self._asking.pop(digest))
        return await asyncio.shield(asking)

    async def _ask(self, digest: str) -> KeyVerdict | None:
        question = msgspec.json.encode(VerifyKey(digest=digest))
        try:
            with tracing.span(VERIFY_KEY, "CLIENT"):
                reply = await self._client.request(VERIFY_KEY, question, ASK_SECONDS, headers=tracing.outgoing())
            verdict = _verdict.decode(reply.data)
        except (nats.errors.Error, msgspec.MsgspecError) as error:
            _log.warning("api_key_not_verified", reason=repr(error))
            return None
        now = time.monotonic()
        self._verdicts.put(digest, verdict, now + (REMEMBERED_SECONDS if verdict.holder else REFUSED_SECONDS), now)
        return verdict

    def _hear(self, message: bytes) -> None:
        envelope, event = decode(message)
        TokenBlacklist.get_instance().hear(event)
        if isinstance(key_id := envelope.data.get("key_id"), str):
            now = time.monotonic()
            self._ended_keys.put(key_id, True, now + ENDED_SECONDS, now)


@asynccontextmanager
async def trusting(app: FastAPI, client: Client) -> AsyncIterator[None]:
    """Gives the application its `Trust`, unless another service in the same process has done so."""
    if app.state.trust is not None:
        yield
        return
    app.state.trust = trust = Trust(client)
    app.state.readiness |= {"revocations": trust.ready}
    trust.start()
    try:
        yield
    finally:
        await trust.stop()
        app.state.trust = None
