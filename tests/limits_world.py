"""Metering's limits as one world whose time the test keeps: it is told what happens, and says what came of it."""

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Self, TypeVar

import asyncpg
import msgspec
from limits import CUSTOM, PRICES, limit, limit_desk, plan, publish_plans
from limits_oracle import Key
from usage import NOON, recorder

from aragora.contracts.events import EntitlementsChanged
from metering import limit_store, refold
from metering.entitlements import apply_entitlements, prepare_entitlements_session
from metering.handlers import Recorder
from metering.limit_desk import Answer, LimitDesk, Question
from metering.limit_fold import counted_from
from metering.log_months import open_due_month
from metering.refold import Verdict
from metering.reservations import Refusal

Found = TypeVar("Found")


@dataclass
class Standing:
    """What metering has stored of one organization."""

    used: dict[Key, Decimal]
    held: dict[Key, Decimal]
    states: dict[str, str]
    said: dict[Key, list[tuple[int, Decimal, Decimal]]] = field(default_factory=dict)
    expired: list[str] = field(default_factory=list)


class LimitWorld:
    """A recorder, a desk and a follower of billing on one database, driven from a test that is not a coroutine."""

    def __init__(self, runner: asyncio.Runner, database_url: str) -> None:
        self.now = NOON
        self._runner = runner
        self._database_url = database_url

    @classmethod
    @contextmanager
    def running(cls, runner: asyncio.Runner, database_url: str) -> Iterator[Self]:
        world = cls(runner, database_url)
        stack = AsyncExitStack()
        runner.run(world._start(stack))
        try:
            yield world
        finally:
            runner.run(stack.aclose())

    async def _start(self, stack: AsyncExitStack) -> None:
        self._recorder: Recorder = await stack.enter_async_context(recorder(self._database_url))
        self._connection = await asyncpg.connect(self._database_url)
        stack.push_async_callback(self._connection.close)
        await prepare_entitlements_session(self._connection)
        await publish_plans(self._database_url, plan("custom", *(limit(one, 1) for one in CUSTOM["first"].values())))
        self._desk: LimitDesk = await stack.enter_async_context(limit_desk(self._database_url, lambda: self.now))

    async def start_anew(self, now: datetime) -> None:
        """Nobody has limits any more, and it is `now`, which may be earlier than before."""
        self.now = now
        await self._connection.execute("TRUNCATE entitlements, entitlement_limits, limit_usage, limit_users")

    def run(self, work: Coroutine[Any, Any, Found]) -> Found:
        return self._runner.run(work)

    async def entitle(self, changes: Iterable[tuple[str, EntitlementsChanged]]) -> None:
        async with self._connection.transaction():
            await apply_entitlements(self._connection, list(changes), PRICES, self.now)

    async def record(self, body: bytes) -> int:
        await open_due_month(self._recorder._pool, self.now)
        return await self._recorder.record([("usage.recorded.0", 1, body)], self.now)

    async def ask(self, org_id: str, *questions: Question) -> list[Answer | Refusal]:
        """Ask all at once: one batch."""
        answers = await asyncio.gather(*(self._desk.ask(org_id, one) for one in questions), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, Refusal):
                raise answer
        return [answer for answer in answers if not isinstance(answer, BaseException) or isinstance(answer, Refusal)]

    async def sweep(self) -> None:
        while await limit_store.expire_due(self._connection, self.now):
            continue
        while await limit_store.forget_ended(self._connection, self.now - timedelta(days=1), 1000):
            continue

    async def found(self, org_id: str) -> Standing:
        """What is stored now; of used, the months that are still counted."""
        since = f"{counted_from(self.now):%Y-%m}"
        used = await self._connection.fetch(
            "SELECT month, meter, user_id, used FROM limit_usage WHERE org_id = $1 AND used > 0 AND month >= $2",
            org_id, since,
        )  # fmt: skip
        held = await self._connection.fetch(
            "SELECT month, meter, user_id, held FROM limit_holds WHERE org_id = $1 AND held > 0", org_id
        )
        states = await self._connection.fetch("SELECT id, state FROM reservations WHERE org_id = $1", org_id)
        found = Standing(_amounts(used), _amounts(held), {row["id"]: row["state"] for row in states})
        said: defaultdict[Key, list[tuple[int, Decimal, Decimal]]] = defaultdict(list)
        for row in await self._connection.fetch(
            "SELECT type, data::text AS fields FROM events WHERE org_id = $1 ORDER BY position", org_id
        ):
            fields = msgspec.json.decode(row["fields"])
            if "LimitReached" in row["type"]:
                key = fields["month"], fields["meter"], fields["user_id"] or ""
                said[key].append((fields["threshold_percent"], Decimal(fields["used"]), Decimal(fields["limit"])))
            elif "ReservationExpired" in row["type"]:
                found.expired.append(fields["reservation_id"])
        found.said = dict(said)
        return found

    async def verify(self) -> Verdict:
        return await refold.verify(self._database_url, connections=1, progress=lambda *_: None, now=self.now)


def _amounts(rows: list[asyncpg.Record]) -> dict[Key, Decimal]:
    return {(row[0], row[1], row[2]): row[3] for row in rows}
