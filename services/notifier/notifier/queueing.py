"""How something gets into the queues: the alert, mail to be addressed, letters, webhooks. In the caller's transaction.

Positions of alerts and of webhooks are given in the order of their commits: so begin with `wait_for_turn`, which lets
one writer in at a time. What is queued already falls away.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from aragora.chassis import sql
from aragora.chassis.sql import Connection
from notifier import payloads
from notifier.domain import Notice
from notifier.kinds import KINDS

MAX_MAIL_AGE = timedelta(days=3)
"""Of what happened longer ago nobody gets an e-mail, as when the notifier begins with all that the bus still has."""

queries = sql.load("notifier", "sql/queueing.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A notice of an event. `org_id` is `platform` for what concerns a person, or operators only."""

    org_id: str
    event_id: UUID
    occurred_at: datetime
    notice: Notice


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """Mail whose words and address auth alone knows, and tells when it is sent. It has no alert and no webhook."""

    org_id: str
    event_id: UUID
    kind: str
    message_id: str
    user_id: str | None
    expires_at: datetime


async def wait_for_turn(connection: Connection) -> None:
    """Wait until every other writer of the queues has committed; from then on they wait for the caller."""
    await connection.execute(queries.wait_for_turn)


async def tell(connection: Connection, told: Sequence[Told], now: datetime) -> list[str]:
    """Queue notices for everybody whom they are for. The database knows which are new: of others nothing is said.

    Returns:
        The kinds of the new ones that the product shows.
    """
    if not told:
        return []
    notices = [(each, each.notice, KINDS[each.notice.kind]) for each in told]
    shown = [(each, notice, kind) for each, notice, kind in notices if kind.in_app]
    added = await connection.fetch(
        queries.add_alerts,
        [each.org_id for each, _, _ in shown],
        [each.event_id for each, _, _ in shown],
        [notice.kind for _, notice, _ in shown],
        [kind.audience for _, _, kind in shown],
        [notice.user_id for _, notice, _ in shown],
        [notice.severity for _, notice, _ in shown],
        [notice.title for _, notice, _ in shown],
        [notice.message for _, notice, _ in shown],
        [json.dumps(notice.facts) for _, notice, _ in shown],
        [notice.place for _, notice, _ in shown],
        [notice.threshold_percentage for _, notice, _ in shown],
        [notice.provider for _, notice, _ in shown],
        [notice.meter for _, notice, _ in shown],
        [notice.billing_period for _, notice, _ in shown],
        [each.occurred_at for each, _, _ in shown],
        now,
    )
    new = {(row["org_id"], row["alert_id"]) for row in added}
    await connection.execute(queries.tell_of_alerts, sorted({org_id for org_id, _ in new}))
    mailed = [
        (each.org_id, each.event_id, notice.topic, notice.topic_rank, _worth_until(each))
        for each, notice, kind in shown
        if kind.audience != "operators" and not notice.quiet and (each.org_id, each.event_id) in new
    ]
    if mailed:
        await connection.execute(queries.add_unaddressed, *map(list, zip(*mailed, strict=True)), now)
    await add_webhooks(connection, told, now)
    await wake_mail(connection)
    return [notice.kind for each, notice, _ in shown if (each.org_id, each.event_id) in new]


def _worth_until(told: Told) -> datetime:
    oldest = told.occurred_at + MAX_MAIL_AGE
    return min(told.notice.stale_at or oldest, oldest)


async def add_webhooks(connection: Connection, told: Sequence[Told], now: datetime) -> None:
    """Queue notices for the endpoints of their organizations, and for the operator's."""
    sent = [each for each in told if KINDS[each.notice.kind].webhook]
    await connection.execute(
        queries.add_webhooks,
        [each.org_id for each in sent],
        [each.event_id for each in sent],
        [each.notice.kind for each in sent],
        [payloads.standard(each.org_id, each.event_id, each.occurred_at, each.notice) for each in sent],
        [KINDS[each.notice.kind].audience != "operators" for each in sent],
        now,
    )


async def send_letters(connection: Connection, letters: Sequence[Letter], now: datetime) -> None:
    """Queue letters of auth's."""
    if letters:
        columns = zip(
            *((one.org_id, one.event_id, one.kind, one.user_id, one.message_id, one.expires_at) for one in letters),
            strict=True,
        )
        await connection.execute(queries.add_letters, *map(list, columns), now)
        await wake_mail(connection)


async def wake_mail(connection: Connection) -> None:
    """Whoever sends mail looks at the queue once this is committed."""
    await connection.execute(queries.wake_mail)
