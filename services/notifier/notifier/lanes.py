"""Messages leave for endpoints: each endpoint has a lane of its own, in which they go one at a time and in order.

A worker claims lanes in which something is due, sends some messages of each, and records what came of them before it
lets the lane go. A claim is void when its worker's session ends, or after `LEASE`. So any number of workers may run,
and what is sent twice, after a crash, is sent under the same id.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby

import asyncpg
import structlog

from aragora.chassis.relay import backoff
from aragora.chassis.sealing import SealBroken, Sealer
from aragora.chassis.sql import Pool
from aragora.chassis.transient import is_transient
from aragora.contracts.ids import new_id
from notifier import metrics, payloads, signatures
from notifier.handlers import Clock
from notifier.recording import OPERATOR, Attempt, Key, Slice, channel_of, queries, record
from notifier.sending import USER_AGENT, Sender
from notifier.waking import POLL_SECONDS, keep_at

WELL_AT_ONCE = 200
FAILING_AT_ONCE = 50
"""Lanes that fail have room of their own: however long they take, they take none of the others'."""
SLOW_AFTER = timedelta(seconds=1)
SLOW_AT_ONCE = 250
"""So many lanes that are well but take longer than that have room apart too: all may be about to fail for the first
time, at one host that went away."""
SLICE_MESSAGES = 20
SLICE_SECONDS = 20.0
LEASE = timedelta(seconds=60)
"""Longer than a slice and the attempt that ends it."""
DRAIN_SECONDS = 5.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """Where and how to send, opened."""

    key: Key
    url: str
    is_slack: bool
    secrets: Sequence[str]


async def deliver_webhooks(pool: Pool, sender: Sender, sealer: Sealer, clock: Clock, stop: asyncio.Event) -> None:
    """Send what waits for endpoints until `stop`, then finish what is being sent, within 5 s.

    A database that is away is waited for.
    """
    lanes = _Lanes(pool, sender, sealer, clock, stop)
    try:
        await lanes.claim()
    finally:
        await lanes.drain()


class _Lanes:
    def __init__(self, pool: Pool, sender: Sender, sealer: Sealer, clock: Clock, stop: asyncio.Event) -> None:
        self._pool = pool
        self._sender = sender
        self._sealer = sealer
        self._clock = clock
        self._stop = stop
        self._worker_id = new_id()
        self._wake = asyncio.Event()
        self._sending: dict[Key, Slice] = {}
        self._unrecorded: set[Slice] = set()
        self._finished: list[Slice] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._recording = asyncio.Lock()

    async def claim(self) -> None:
        await keep_at(
            self._start_due,
            self._pool,
            "deliveries",
            self._stop,
            worker_id=self._worker_id,
            release_of_the_dead=queries.release_lanes_of_the_dead,
            woken=self._wake,
        )

    async def _start_due(self) -> bool:
        now = self._clock()
        until = now + LEASE
        failing = sum(each.was_failing for each in self._unrecorded)
        slow = sum(not each.was_failing and each.claimed_until - LEASE + SLOW_AFTER < now for each in self._unrecorded)
        well = len(self._unrecorded) - failing - min(slow, SLOW_AT_ONCE)
        room = max(0, WELL_AT_ONCE - well), max(0, FAILING_AT_ONCE - failing)
        new: list[Slice] = []
        for row in await self._pool.fetch(queries.claim_lanes, self._worker_id, until, now, *room):
            key = row["org_id"], row["endpoint_id"]
            if key in self._sending:
                # It was taken for a dead worker's. Whoever serves it goes on under the new claim.
                self._sending[key].claimed_until = until
            else:
                new.append(Slice(key=key, claimed_until=until, was_failing=row["failures"] > 0))
        if not new:
            return False
        orgs, endpoints = zip(*(each.key for each in new), strict=True)
        rows: Sequence[asyncpg.Record] = ()
        try:
            rows = await self._pool.fetch(queries.read_messages, orgs, endpoints, SLICE_MESSAGES)
        finally:  # also if nothing could be read: then the lanes are given back
            self._begin(new, rows)
        return True

    def _begin(self, new: Sequence[Slice], rows: Sequence[asyncpg.Record]) -> None:
        waiting = {key: list(group) for key, group in groupby(rows, lambda row: (row["org_id"], row["endpoint_id"]))}
        for each in new:
            self._sending[each.key] = each
            self._unrecorded.add(each)
            task = asyncio.create_task(self._serve(each, waiting.get(each.key, [])))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, done: Slice, rows: Sequence[asyncpg.Record]) -> None:
        org_id, endpoint_id = done.key
        try:
            await self._send(done, rows)
        except SealBroken as error:
            log.error("endpoint_cannot_be_opened", org_id=org_id, endpoint_id=endpoint_id, reason=str(error))  # noqa: TRY400
            done.is_postponed = True
        except Exception as error:  # noqa: BLE001  what is wrong with one lane is not the others' trouble
            # Its message may hold the URL.
            log.error("endpoint_not_served", org_id=org_id, endpoint_id=endpoint_id, reason=type(error).__name__)  # noqa: TRY400
            done.is_postponed = not is_transient(error)
        # From the commit on it may be claimed again, also by this worker.
        del self._sending[done.key]
        await self._record(done)
        self._unrecorded.discard(done)
        self._wake.set()

    async def _send(self, done: Slice, rows: Sequence[asyncpg.Record]) -> None:
        if not rows:
            return
        loop = asyncio.get_running_loop()
        endpoint = self._opened(done.key, rows[0])
        ends_at, looked_at = loop.time() + SLICE_SECONDS, loop.time()
        for row in rows:
            if self._stop.is_set() or loop.time() > ends_at:
                return
            if loop.time() - looked_at > POLL_SECONDS:
                if not await self._pool.fetchval(queries.is_ours_still, *done.key, self._worker_id):
                    return
                looked_at = loop.time()
            done.attempts.append(await self._attempt(endpoint, row))
            if done.failed is not None:
                return

    def _opened(self, key: Key, row: asyncpg.Record) -> _Endpoint:
        secrets = [self._sealer.open(row["secret"])]
        if row["former_secret"] is not None and row["former_until"] is not None and row["former_until"] > self._clock():
            secrets.append(self._sealer.open(row["former_secret"]))
        return _Endpoint(key, self._sealer.open(row["url"]), row["format"] == "slack", secrets)

    async def _attempt(self, endpoint: _Endpoint, row: asyncpg.Record) -> Attempt:
        attempted_at = self._clock()
        body = payloads.slack(row["body"]) if endpoint.is_slack else row["body"]
        headers = {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            **signatures.headers(signatures.message_id_of(row["event_id"]), attempted_at, body, endpoint.secrets),
        }
        answer = await self._sender.post(endpoint.url, body, headers, guarded=endpoint.key != OPERATOR)
        metrics.delivery_seconds.labels(channel_of(endpoint.key)).observe(answer.milliseconds / 1000)
        del headers["webhook-signature"]
        return Attempt(
            delivery_id=row["delivery_id"],
            due_at=row["due_at"],
            attempted_at=attempted_at,
            headers=headers,
            answer=answer,
        )

    async def _record(self, done: Slice) -> None:
        """With whatever else is finished by the time that it is this one's turn."""
        self._finished.append(done)
        async with self._recording:
            finished, self._finished = self._finished, []
            if not finished or await self._keep(finished):
                return
            for each in finished:
                await self._keep([each])

    async def _keep(self, slices: Sequence[Slice]) -> bool:
        """Whether it could be recorded. What cannot be, for a reason that lasts, is claimed until the lease ends."""
        failures = 0
        while True:
            try:
                await record(self._pool, slices, self._worker_id, self._clock())
            except Exception as error:  # noqa: BLE001  what is wrong with one lane is not the others' trouble
                # Its message may hold what an endpoint answered.
                log.warning("deliveries_not_recorded", lanes=len(slices), reason=type(error).__name__)
                if not is_transient(error):
                    return False
                failures += 1
                await asyncio.sleep(backoff(min(failures, 5)))
            else:
                return True

    async def drain(self) -> None:
        """End within twice `DRAIN_SECONDS`. What is not known to be delivered is sent again by whoever is next."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DRAIN_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        left = list(self._unrecorded)
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await record(self._pool, left, self._worker_id, self._clock())
        except Exception as error:  # noqa: BLE001  they are claimed until this worker's session is seen to be gone
            log.warning("deliveries_not_recorded", lanes=len(left), reason=type(error).__name__)
