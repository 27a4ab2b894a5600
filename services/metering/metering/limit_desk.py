"""The limit desk: questions about limits are answered here, in batches, each in one transaction.

While one batch is being decided, the questions that come meanwhile gather, and are decided together in the next: the
busier an organization, the larger its batches, and nobody waits for a timer or for a lock per request. Between
processes the row of the organization in `entitlements` is the gate: whoever holds it decides alone. The rules are in
`reservations.py` and `limits.py`; `limit_store.py` reads what they need and writes what they decided.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypeAlias

import structlog

from aragora.billing.pricebook import PriceBook
from aragora.chassis import tracing
from aragora.chassis.sql import Connection, Pool
from aragora.chassis.transient import is_transient
from aragora.contracts.ids import new_id
from aragora.contracts.limits import CheckLimits, Extend, Operation, Release, Reserve
from aragora.contracts.topology import usage_partition
from metering import limit_store, metrics, reservations
from metering.estimates import estimate
from metering.limit_answers import Checked, Ended, Exceeded, LimitState, Reserved, states_of
from metering.limits import resets_at
from metering.operations import InvalidOperation, refuse_invalid
from metering.plan_ladder import PlanLadder
from metering.reservations import Ledger, LimitExceeded, Refusal, Reservation

log = structlog.get_logger()

Question: TypeAlias = CheckLimits | Reserve | Release | Extend
Answer: TypeAlias = Checked | Reserved | Ended | Exceeded

LANES = 2
"""Batches that one process decides side by side. An organization is always in one lane."""
MAX_BATCH = 256
MAX_WAITING = 20_000
DEADLINE_SECONDS = 2.0
"""How long a question waits for its turn, and how long a batch may take. After that it counts as undecided."""


class Overloaded(Exception):
    """More questions wait than may. Nothing was decided: ask again in a moment."""


@dataclass(slots=True, eq=False)
class _Asked:
    org_id: str
    question: Question
    answer: asyncio.Future[Answer]
    since: float
    origin: tracing.Headers


class _Lane:
    def __init__(self) -> None:
        self.queue: deque[_Asked] = deque()
        self.clerk: asyncio.Task[None] | None = None


class LimitDesk:
    """Answers questions about limits. One per process.

    Args:
        pool: metering's database; a lane takes one connection while it decides.
        prices: to estimate what an operation will cost.
        clock: the time, in UTC.
    """

    def __init__(
        self, pool: Pool, prices: PriceBook, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._pool = pool
        self._prices = prices
        self._clock = clock
        self._lanes = [_Lane() for _ in range(LANES)]
        self._waiting = 0
        self._limits = limit_store.LimitCache()
        self._ladder = PlanLadder()

    async def ask(self, org_id: str, question: Question) -> Answer:
        """Return the answer once what it says is committed.

        Raises:
            InvalidOperation: an operation cannot be understood.
            Refusal: see its kinds; `LimitExceeded` is not raised, but answered.
            Overloaded: see there.
            asyncpg.PostgresError, OSError (TimeoutError): nobody could tell. A reservation may all the same have been
                made: ask again with the same key.
        """
        return await self.put(org_id, question, tracing.outgoing())

    def put(self, org_id: str, question: Question, origin: tracing.Headers) -> asyncio.Future[Answer]:
        """Like `ask`, for a caller that does not wait itself. Raises `Overloaded`. `origin`: whose headers."""
        if self._waiting >= MAX_WAITING:
            raise Overloaded
        lane = self._lanes[usage_partition(org_id) % LANES]
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        lane.queue.append(_Asked(org_id, question, answer, loop.time(), origin))
        self._waiting += 1
        if lane.clerk is None:
            lane.clerk = asyncio.create_task(self._work_off(lane))
        return answer

    async def _work_off(self, lane: _Lane) -> None:
        try:
            while lane.queue:
                # One connection for as long as questions come: to lend and give it back costs a round trip.
                async with self._pool.acquire(timeout=DEADLINE_SECONDS) as connection:
                    while lane.queue:
                        batch = self._next_batch(lane)
                        try:
                            with tracing.continuing("decide limits", "SERVER", [asked.origin for asked in batch]):
                                async with asyncio.timeout(DEADLINE_SECONDS):
                                    _tell(batch, await self._outcomes(connection, batch))
                            metrics.limit_batch_seconds.observe(asyncio.get_running_loop().time() - batch[0].since)
                        except Exception as error:
                            # Now: to give the connection back takes as long again, if the server says nothing.
                            self._give_up([*batch, *lane.queue], error)
                            raise
        except Exception as error:  # noqa: BLE001 - whoever asked is told
            self._give_up(lane.queue, error)
            self._waiting -= len(lane.queue)
            lane.queue.clear()
        finally:
            lane.clerk = None

    def _give_up(self, asked: Iterable[_Asked], error: Exception) -> None:
        waiting = [one for one in asked if not one.answer.done()]
        if waiting:
            log.warning("limits_undecided", questions=len(waiting), error=repr(error))
            _tell(waiting, [error] * len(waiting))

    def _next_batch(self, lane: _Lane) -> list[_Asked]:
        if asyncio.get_running_loop().time() - lane.queue[0].since > DEADLINE_SECONDS:
            raise TimeoutError("questions waited too long for their turn")
        batch = [lane.queue.popleft() for _ in range(min(len(lane.queue), MAX_BATCH))]
        self._waiting -= len(batch)
        return batch

    async def _outcomes(self, connection: Connection, batch: Sequence[_Asked]) -> list[Answer | Exception]:
        try:
            return await self._decide(connection, batch)
        except Exception as error:
            if is_transient(error):
                raise
            if len(batch) == 1:
                return [error]
        # One of them can never be decided: the others are, without it.
        half = len(batch) // 2
        return [*await self._outcomes(connection, batch[:half]), *await self._outcomes(connection, batch[half:])]

    async def _decide(self, connection: Connection, batch: Sequence[_Asked]) -> list[Answer | Exception]:
        now = self._clock()
        metrics.limit_batch.observe(len(batch))
        await self._ladder.refresh(connection, now)
        expired = 0
        if all(isinstance(asked.question, CheckLimits) for asked in batch):
            ledgers, due = await self._read(connection, batch, now, gated=False)
            if not due:
                return self._answers(batch, ledgers, now)
        async with connection.transaction():
            ledgers, due = await self._read(connection, batch, now, gated=True)
            while due:
                expired += await limit_store.expire(connection, due, now)
                ledgers, due = await self._read(connection, batch, now, gated=True)
            outcomes = self._answers(batch, ledgers, now)
            await limit_store.write(connection, ledgers.values(), now)
        metrics.decided(ledgers.values(), expired)
        await self._say_when_to_retry(connection, outcomes, now)
        return outcomes

    async def _read(
        self, connection: Connection, batch: Sequence[_Asked], now: datetime, *, gated: bool
    ) -> tuple[dict[str, Ledger], list[str]]:
        users, ids, keys = {""}, [], []
        for asked in batch:
            question = asked.question
            if isinstance(question, CheckLimits | Reserve):
                users.add(question.user_id or "")
            if isinstance(question, Reserve) and question.idempotency_key is not None:
                keys.append((asked.org_id, question.idempotency_key))
            elif isinstance(question, Release | Extend):
                ids.append((asked.org_id, question.reservation_id))
        org_ids = {asked.org_id for asked in batch}
        return await limit_store.read(
            connection, self._limits, org_ids, users, ids=ids, keys=keys, now=now, gated=gated
        )

    def _answers(self, batch: Sequence[_Asked], ledgers: dict[str, Ledger], now: datetime) -> list[Answer | Exception]:
        answers: list[Answer | Exception] = []
        for asked in batch:
            try:
                answers.append(self._answer(asked, ledgers, now))
            except (Refusal, InvalidOperation) as refusal:
                answers.append(refusal)
        return answers

    def _answer(self, asked: _Asked, ledgers: dict[str, Ledger], now: datetime) -> Answer:
        question = asked.question
        ledger = ledgers.get(asked.org_id)
        if ledger is None:
            raise reservations.UnknownOrganization(
                f"Nobody has said what {asked.org_id} may do: it is not known to billing, or not yet."
            )
        if isinstance(question, CheckLimits):
            found = reservations.check(ledger, question, self._costs(ledger, question.operations, now))
            short = next((one for one in found if not one.fits), None)
            return Checked(
                allowed=short is None,
                org_id=asked.org_id,
                plan=ledger.plan.plan,
                resets_at=resets_at(now),
                limits=states_of(found),
                message=None if short is None else self._ladder.message(short, now),
                upgrade=None if short is None else self._ladder.upgrade(ledger.plan, short.demand.limit),
            )
        if isinstance(question, Reserve):
            try:
                reservation, found, repeated = reservations.reserve(
                    ledger, question, self._costs(ledger, question.operations, now), now, str(new_id())
                )
            except LimitExceeded as exceeded:
                return self._exceeded(ledger, exceeded, now)
            return _reserved(asked.org_id, reservation, states_of(found, with_own=not repeated), is_new=not repeated)
        if isinstance(question, Extend):
            return _reserved(asked.org_id, reservations.extend(ledger, question, now), [])
        released = reservations.release(ledger, question, now)
        return Ended(reservation_id=released.id, org_id=asked.org_id, state=released.state)

    def _costs(self, ledger: Ledger, operations: Sequence[Operation], now: datetime) -> list[Decimal | None]:
        # Its own limits' meters too: they are in force before the ladder is read anew.
        refuse_invalid(operations, {*self._ladder.declared, *(limit.meter for limit in ledger.account.limits)})
        return [estimate(self._prices, operation, now) for operation in operations]

    def _exceeded(self, ledger: Ledger, exceeded: LimitExceeded, now: datetime) -> Exceeded:
        metrics.limits_exceeded.inc()
        states = states_of(exceeded.standings)
        short = next(state for state in states if not state.allowed)
        message = self._ladder.message(exceeded.short, now)
        return Exceeded(
            detail=message,
            message=message,
            org_id=ledger.org_id,
            meter=short.meter,
            per=short.per,
            user_id=short.user_id,
            used=short.used,
            held=short.held,
            limit=short.limit,
            requested=short.requested,
            resets_at=resets_at(now),
            # Refined below where another's reservation is all that is in the way.
            retry_after_seconds=-1 if exceeded.short.would_fit_later else _seconds_until(resets_at(now), now),
            upgrade=self._ladder.upgrade(ledger.plan, exceeded.short.demand.limit),
            limits=states,
        )

    async def _say_when_to_retry(
        self, connection: Connection, outcomes: Sequence[Answer | Exception], now: datetime
    ) -> None:
        waiting = [one for one in outcomes if isinstance(one, Exceeded) and one.retry_after_seconds < 0]
        if not waiting:
            return
        expiries = await limit_store.next_expiries(connection, {one.org_id for one in waiting})
        for one in waiting:
            one.retry_after_seconds = _seconds_until(min(expiries.get(one.org_id, now), one.resets_at), now)


def _tell(batch: Sequence[_Asked], outcomes: Sequence[Answer | Exception]) -> None:
    for asked, outcome in zip(batch, outcomes, strict=True):
        if asked.answer.done():
            continue
        if isinstance(outcome, Exception):
            asked.answer.set_exception(outcome)
        else:
            asked.answer.set_result(outcome)


def _reserved(org_id: str, reservation: Reservation, limits: list[LimitState], *, is_new: bool = False) -> Reserved:
    return Reserved(
        reservation_id=reservation.id,
        org_id=org_id,
        user_id=reservation.user_id,
        state=reservation.state,
        expires_at=reservation.expires_at,
        limits=limits,
        is_new=is_new,
    )


def _seconds_until(moment: datetime, now: datetime) -> int:
    return max(1, -int((now - moment).total_seconds() // 1))
