"""A notifier of which the test itself sends the mail, to a real mail server, at moments that it chooses."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import servers
from mail_server import MailServer, mail_server
from notifier_world import NotifierWorld, notifier_world
from servers import PostgresServer

from aragora.contracts import events
from aragora.contracts.envelope import DomainEvent, envelope
from aragora.contracts.ids import new_id
from notifier import handlers
from notifier.addressing import address
from notifier.digests import send_digests
from notifier.directory import Directory
from notifier.mailing import send_due
from notifier.mailroom import Mailroom
from notifier.smtp import Post

DIGEST_HOUR = 8
TABLES = (
    "usage_alerts", "alert_reads", "alert_marks", "notification_preferences", "directories", "contacts",
    "suppressed_addresses", "unaddressed_alerts", "email_deliveries", "webhook_endpoints",
)  # fmt: skip


@dataclass
class MailingWorld:
    """`world` runs no worker. `room` sends when the test says so."""

    world: NotifierWorld
    server: MailServer
    room: Mailroom
    last_position: int = 0

    async def begin_anew(self) -> None:
        """Everything is as at the beginning, but for events, which are for ever."""
        await self.room.post.close()
        await self.world.pool.execute(f"TRUNCATE {', '.join(TABLES)} CASCADE")
        self.last_position = await self.world.pool.fetchval("SELECT coalesce(max(position), 0) FROM events")
        self.world.clock.ahead = timedelta()
        book = self.world.book
        for kept in (book.names, book.members, book.letters):
            kept.clear()
        book.is_away = False
        self.server.begin_anew()

    @property
    def now(self) -> datetime:
        return self.world.clock()

    def pass_time(self, **by: float) -> None:
        """The clock jumps."""
        self.world.clock.advance(timedelta(**by))

    async def hear(self, event: DomainEvent, org_id: str, event_id: UUID | None = None) -> UUID:
        """An event comes, and its mail is queued."""
        said = event_id or new_id()
        message = envelope(event, org_id=org_id, occurred_at=self.now, correlation_id="told", event_id=said)
        await handlers.follow(self.world.pool, [message.to_json()], self.now)
        await address(self.world.pool, self.room.directory, self.now, DIGEST_HOUR)
        return said

    async def send(self) -> None:
        """One turn of the worker that sends mail."""
        stop = asyncio.Event()
        await send_due(self.room, stop)
        await send_digests(self.room, stop)

    async def deliveries(self, org_id: str) -> list[asyncpg.Record]:
        """The queue, in its order."""
        return await self.world.rows(
            "SELECT status, reason, attempts, send_at, kind, user_id, mode, delivery_id, event_id"
            " FROM email_deliveries WHERE org_id = $1 ORDER BY delivery_id",
            org_id,
        )

    async def said(self, org_id: str) -> list[DomainEvent]:
        """What was appended for the bus."""
        rows = await self.world.rows(
            "SELECT type, data::text FROM events WHERE org_id = $1 AND position > $2 ORDER BY position",
            org_id,
            self.last_position,
        )
        return [EVENTS[row["type"]].model_validate_json(row["data"]) for row in rows]

    async def told_operator(self) -> list[asyncpg.Record]:
        """What waits for the operator's webhook."""
        return await self.world.rows(
            "SELECT event_id, kind, about_org_id, body FROM webhook_deliveries"
            " WHERE org_id = 'platform' AND endpoint_id = 'operator' ORDER BY position"
        )

    async def operator_listens(self, status: str = "enabled", types: tuple[str, ...] = ()) -> None:
        """The operator's webhook, so that something can be queued for it."""
        await self.world.pool.execute(
            "INSERT INTO webhook_endpoints (org_id, endpoint_id, url, description, event_types, format, secret, status,"
            " created_at, created_by) VALUES ('platform', 'operator', '', '', $1, 'standard', '', $2, $3, 'test')",
            list(types),
            status,
            self.now,
        )
        await self.world.pool.execute("INSERT INTO webhook_lanes (org_id, endpoint_id) VALUES ('platform', 'operator')")


EVENTS: dict[str, type[DomainEvent]] = {
    kind.type_name: kind for kind in (events.NotificationDelivered, events.NotificationFailed)
}


def limit(percent: int = 80, meter: str = "debates", month: str = "2026-06") -> events.LimitReached:
    """So much of a limit is used."""
    return events.LimitReached.model_validate(
        {
            "meter": meter, "threshold_percent": percent, "month": month, "used": str(percent), "limit": "100",
            "resets_at": (datetime.now(UTC) + timedelta(days=10)).isoformat(), "user_id": None,
        }
    )  # fmt: skip


def unpriced(model: str) -> events.UnpricedUsageSeen:
    """Usage that no price is known for: what comes with the digest, unless somebody chose otherwise."""
    return events.UnpricedUsageSeen.model_validate(
        {"provider": "acme", "model": model, "month": "2026-06", "reason": "unknown_model", "first_event_id": "e1"}
    )


@asynccontextmanager
async def mailing_world(
    postgres: PostgresServer, template: str, nats_url: str, *, has_server: bool = True, **settings: Any
) -> AsyncIterator[MailingWorld]:
    """Without `has_server`, no mail server is configured."""
    async with AsyncExitStack() as stack:
        folder = await stack.enter_async_context(servers.scratch_dir())
        server = await stack.enter_async_context(mail_server(folder))
        found = await stack.enter_async_context(
            notifier_world(
                postgres, template, nats_url, works=False, **((server.settings if has_server else {}) | settings)
            )
        )
        post = await stack.enter_async_context(Post(found.settings))
        directory = Directory(found.pool, found.bus, found.sealer)
        room = Mailroom.of(found.pool, post, directory, found.sealer, found.settings, found.clock)
        yield MailingWorld(found, server, room)
