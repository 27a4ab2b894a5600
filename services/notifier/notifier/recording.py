"""What came of attempts is recorded: of many lanes in one transaction, which also says what follows and who is told."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import structlog

from aragora.chassis import sql, store
from aragora.chassis.sql import Connection, Pool
from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events import PLATFORM, NotificationDelivered, NotificationFailed
from aragora.contracts.ids import new_id
from notifier import endpoint_notices, metrics, queueing, schedule
from notifier.queueing import Told
from notifier.schedule import Failed, Stretch
from notifier.sending import Answer

Key = tuple[str, str]
"""An organization and the endpoint of it."""

OPERATOR: Key = (PLATFORM, "operator")
"""The operator's own endpoint: the last resort, which is never disabled."""
POSTPONED_FOR = timedelta(minutes=5)
_OUTCOMES = {"delivered": "delivered", "pending": "retried", "failed": "given_up"}

queries = sql.load("notifier", "sql/lanes.sql")
log = structlog.get_logger(__name__)


def channel_of(key: Key) -> str:
    """Of an endpoint: the operator's own, or an organization's."""
    return "operator" if key == OPERATOR else "webhook"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A message was sent, and this came of it. `headers`: of the request, without the signature."""

    delivery_id: UUID
    due_at: datetime
    attempted_at: datetime
    headers: dict[str, str]
    answer: Answer


@dataclass(slots=True, kw_only=True, eq=False)
class Slice:
    """What was done in a lane since it was claimed. At most the last attempt failed."""

    key: Key
    claimed_until: datetime
    """By which the claim is known: no other claim of the worker's ends at the same moment."""
    was_failing: bool
    attempts: list[Attempt] = field(default_factory=list)
    is_postponed: bool = False
    """Nothing can be sent just now, which is not the endpoint's fault."""

    @property
    def failed(self) -> Attempt | None:
        """The attempt that failed, if one did."""
        last = self.attempts[-1] if self.attempts else None
        return last if last is not None and last.answer.failure is not None else None


@dataclass(frozen=True, slots=True)
class _Outcome:
    done: Slice
    stretch: Stretch
    next_attempt_at: datetime
    failed: Failed | None

    def status_of(self, attempt: Attempt) -> str:
        if attempt.answer.failure is None:
            return "delivered"
        return "failed" if self.failed is not None and self.failed.gives_up else "pending"


async def record(pool: Pool, slices: Sequence[Slice], worker_id: UUID, now: datetime) -> None:
    """Record what came of slices, say it on the bus, and release their lanes.

    Of a lane that somebody else has claimed meanwhile, or whose endpoint is deleted, the state stays as it is.
    """
    for failing in (False, True):
        group = [each for each in slices if (each.failed is not None) == failing]
        if group:
            async with pool.acquire() as connection, connection.transaction():
                settled, disabled, kinds = await _record(connection, group, worker_id, now, failing=failing)
            metrics.endpoints_disabled.inc(disabled)
            for kind in kinds:
                metrics.alerts.labels(kind).inc()
            for row in settled:
                channel = channel_of((row["org_id"], row["endpoint_id"]))
                metrics.deliveries.labels(channel, _OUTCOMES[row["status"]]).inc()
                if row["status"] == "failed" and row["kind"] == "notification.undelivered":
                    # The last resort of an e-mail that could not be sent: from here on only the log tells of it.
                    log.warning("notification_undeliverable", kind=row["kind"], event_id=str(row["event_id"]))


async def _record(
    connection: Connection, slices: Sequence[Slice], worker_id: UUID, now: datetime, *, failing: bool
) -> tuple[Sequence[asyncpg.Record], int, list[str]]:
    """What came of attempts, how many endpoints were disabled, and the kinds of new alerts of that."""
    keys = [list(column) for column in zip(*(each.key for each in slices), strict=True)]
    endpoints: dict[Key, asyncpg.Record] = {}
    if failing:
        # Somebody may have to be told, which needs the turn; and whoever has the turn goes on to lock lanes.
        await queueing.wait_for_turn(connection)
        endpoints = _by_key(await connection.fetch(queries.lock_endpoints, *keys))
    lanes = _by_key(await connection.fetch(queries.lock_lanes, *keys))
    outcomes = [_outcome(each, lanes[each.key], now) for each in slices if each.key in lanes]
    owned = [each for each in outcomes if _claim_of(lanes[each.done.key]) == (worker_id, each.done.claimed_until)]
    settled = await _keep_attempts(connection, outcomes, now)
    enabled = [each for each in owned if each.done.key in endpoints and _is_enabled(endpoints[each.done.key])]
    disabled = [each for each in enabled if each.failed and each.failed.disables]
    if disabled:
        because = [each.failed.disables for each in disabled if each.failed]
        await connection.execute(queries.disable_endpoints, *_columns(disabled), because, now)
    await connection.execute(
        queries.release_lanes,
        *_columns(owned),
        [each.stretch.failures for each in owned],
        [each.stretch.failing_since for each in owned],
        [each.stretch.warned_at for each in owned],
        [each.next_attempt_at for each in owned],
    )
    told = [each for one in enabled for each in _told(one, endpoints, now)]
    return settled, len(disabled), await queueing.tell(connection, told, now)


def _outcome(done: Slice, lane: asyncpg.Record, now: datetime) -> _Outcome:
    stretch = Stretch(lane["failures"], lane["failing_since"], lane["warned_at"])
    if any(each.answer.failure is None for each in done.attempts):
        stretch = schedule.WELL
    last = done.failed
    if last is None:
        return _Outcome(done, stretch, now + POSTPONED_FOR * done.is_postponed, None)
    if lane["next_attempt_at"] is not None and lane["next_attempt_at"] > last.attempted_at:
        # Since the attempt began somebody gave the lane another chance at once: skipped that message, say, or changed
        # the URL. What came of the attempt says nothing of how that will go.
        return _Outcome(done, stretch, now, None)
    failed = schedule.after_failure(
        stretch,
        now,
        due_at=last.due_at,
        status_code=last.answer.status_code,
        retry_after=last.answer.retry_after,
        may_disable=done.key != OPERATOR,
    )
    return _Outcome(done, failed.stretch, failed.next_attempt_at, failed)


async def _keep_attempts(
    connection: Connection, outcomes: Sequence[_Outcome], now: datetime
) -> Sequence[asyncpg.Record]:
    attempts = [(each, attempt) for each in outcomes for attempt in each.done.attempts]
    if not attempts:
        return []
    columns = [
        [each.done.key[0] for each, _ in attempts],
        [each.done.key[1] for each, _ in attempts],
        [attempt.delivery_id for _, attempt in attempts],
    ]
    statuses = [each.status_of(attempt) for each, attempt in attempts]
    settled = await connection.fetch(queries.keep_attempted, *columns, statuses, now)
    await connection.execute(
        queries.log_attempts,
        *columns,
        [attempt.attempted_at for _, attempt in attempts],
        [attempt.answer.milliseconds for _, attempt in attempts],
        [json.dumps(attempt.headers) for _, attempt in attempts],
        [attempt.answer.status_code for _, attempt in attempts],
        [attempt.answer.text for _, attempt in attempts],
        [attempt.answer.failure for _, attempt in attempts],
    )
    events = [
        (row["org_id"], f"delivery-{row['delivery_id']}", _event(row, now))
        for row in settled
        if row["status"] != "pending"
    ]
    await store.append_each(connection, events, occurred_at=now)
    return settled


def _event(row: asyncpg.Record, now: datetime) -> DomainEvent:
    if row["status"] == "delivered":
        return NotificationDelivered(
            delivery_id=str(row["delivery_id"]),
            event_id=str(row["event_id"]),
            kind=row["kind"],
            channel="webhook",
            endpoint_id=row["endpoint_id"],
            attempts=row["attempts"],
            delivered_at=now,
        )
    return NotificationFailed(
        delivery_id=str(row["delivery_id"]),
        event_id=str(row["event_id"]),
        kind=row["kind"],
        channel="webhook",
        endpoint_id=row["endpoint_id"],
        attempts=row["attempts"],
        failed_at=now,
        reason="gave_up",
    )


def _told(outcome: _Outcome, endpoints: dict[Key, asyncpg.Record], now: datetime) -> list[Told]:
    """Whom the failure of an endpoint makes a notice for. Its event is the notice itself."""
    failed, (org_id, endpoint_id) = outcome.failed, outcome.done.key
    description = endpoints[outcome.done.key]["description"]
    if failed is None or failed.stretch.failing_since is None or not (failed.warns or failed.disables):
        return []
    if outcome.done.key == OPERATOR:
        notice = endpoint_notices.operator_endpoint_failing(failed.stretch.failing_since)
    elif failed.disables:
        notice = endpoint_notices.endpoint_disabled(endpoint_id, description, failed.disables)
    else:
        notice = endpoint_notices.endpoint_failing(endpoint_id, description, failed.stretch.failing_since)
    log.warning("webhook_endpoint_fails", org_id=org_id, endpoint_id=endpoint_id, disabled=failed.disables)
    return [Told(org_id=org_id, event_id=new_id(), occurred_at=now, notice=notice)]


def _columns(outcomes: Sequence[_Outcome]) -> tuple[list[str], list[str]]:
    return [each.done.key[0] for each in outcomes], [each.done.key[1] for each in outcomes]


def _by_key(rows: Sequence[asyncpg.Record]) -> dict[Key, asyncpg.Record]:
    return {(row["org_id"], row["endpoint_id"]): row for row in rows}


def _claim_of(lane: asyncpg.Record) -> tuple[UUID | None, datetime | None]:
    return lane["claimed_by"], lane["claimed_until"]


def _is_enabled(endpoint: asyncpg.Record) -> bool:
    return bool(endpoint["status"] == "enabled")
