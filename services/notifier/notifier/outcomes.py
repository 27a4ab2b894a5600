"""What became of mail: written down and said, in one transaction. Whoever lost the claim meanwhile writes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from aragora.chassis import store
from aragora.chassis.sql import Connection, Pool
from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events import NotificationDelivered, NotificationFailed
from notifier import failover, metrics, queueing
from notifier.failover import Reason, queries

Mails = Sequence[asyncpg.Record]
"""Rows that one claim brought, all for one person: one mail, or those that a digest holds."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Writes into the notifier's database."""

    pool: Pool

    async def sent(self, mails: Mails, now: datetime) -> None:
        """The mail server has taken it."""
        async with self.pool.acquire() as connection, connection.transaction():
            ended = await _finish(connection, mails, "sent", None, now, attempts=1)
            await _say(
                connection,
                [
                    (
                        mail,
                        NotificationDelivered(
                            delivery_id=str(mail["delivery_id"]),
                            event_id=str(mail["event_id"]),
                            kind=mail["kind"],
                            channel="email",
                            user_id=mail["user_id"],
                            attempts=attempts,
                            delivered_at=now,
                        ),
                    )
                    for mail, attempts in ended
                ],
                now,
            )
        metrics.deliveries.labels("email", "delivered").inc(len(ended))

    async def failed(
        self,
        mails: Mails,
        reason: Reason,
        now: datetime,
        *,
        attempts: int = 0,
        quietly: bool = False,
        is_digest: bool = False,
        suppress: bytes | None = None,
    ) -> None:
        """It will not be delivered. `quietly`: nobody misses it; else somebody is told instead.

        `attempts` are added to those made before; `suppress` is the digest of an address that is nobody's.
        """
        async with self.pool.acquire() as connection, connection.transaction():
            if not quietly:
                await queueing.wait_for_turn(connection)
            ended = await _finish(connection, mails, "failed", reason, now, attempts=attempts)
            if not ended:
                return
            still = [mail for mail, _ in ended]
            instead = (
                None if quietly else await failover.tell_instead(connection, still, reason, now, is_digest=is_digest)
            )
            if suppress is not None:
                await connection.execute(queries.suppress, suppress, "bounced", now)
            await _say(
                connection,
                [
                    (
                        mail,
                        NotificationFailed(
                            delivery_id=str(mail["delivery_id"]),
                            event_id=str(mail["event_id"]),
                            kind=mail["kind"],
                            channel="email",
                            user_id=mail["user_id"],
                            attempts=made,
                            failed_at=now,
                            reason=reason,
                            told_instead=instead,
                        ),
                    )
                    for mail, made in ended
                ],
                now,
            )
        if not quietly and reason != "not_configured":
            metrics.deliveries.labels("email", "given_up").inc(len(ended))
        if instead == "log":
            failover.log_instead(still, reason, is_digest=is_digest)

    async def superseded(self, mails: Mails, reason: str, now: datetime) -> None:
        """It need not be sent any more."""
        if mails:
            async with self.pool.acquire() as connection:
                await _finish(connection, mails, "superseded", reason, now, attempts=0)

    async def put_back(self, mails: Mails, send_at: datetime, *, attempts: int = 0) -> None:
        """It is to be sent later. `attempts` are added to those made before."""
        if mails:
            await self.pool.execute(queries.put_back, *_keys(mails), mails[0]["claimed_until"], send_at, attempts)
            if attempts:
                metrics.deliveries.labels("email", "retried").inc(len(mails))


def _keys(mails: Mails) -> tuple[list[str], list[object]]:
    return [mail["org_id"] for mail in mails], [mail["delivery_id"] for mail in mails]


async def _finish(
    connection: Connection, mails: Mails, status: str, reason: str | None, now: datetime, *, attempts: int
) -> list[tuple[asyncpg.Record, int]]:
    claimed_until = mails[0]["claimed_until"]
    rows = await connection.fetch(queries.finish, *_keys(mails), claimed_until, status, reason, now, attempts)
    made = {row["delivery_id"]: row["attempts"] for row in rows}
    return [(mail, made[mail["delivery_id"]]) for mail in mails if mail["delivery_id"] in made]


async def _say(connection: Connection, said: Sequence[tuple[asyncpg.Record, DomainEvent]], now: datetime) -> None:
    events = [(mail["org_id"], f"delivery-{mail['delivery_id']}", event) for mail, event in said]
    await store.append_each(connection, events, occurred_at=now)
