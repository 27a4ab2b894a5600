"""Webhook lanes at work in this process, on a real database: endpoints, messages for them, workers that send."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
from jumping_clock import JumpingClock
from servers import PostgresServer, eventually

from aragora.chassis.sealing import Sealer
from aragora.chassis.sql import Pool
from aragora.contracts.ids import new_id
from notifier import queueing, signatures
from notifier.destinations import Network
from notifier.domain import Notice
from notifier.lanes import deliver_webhooks
from notifier.queueing import Told
from notifier.sending import Sender
from notifier.settings import SERVICE
from notifier.worker import SESSION_SETTINGS

SEALING_KEYS = "tests-seal-with-this-key-of-forty-bytes!"
SECRET = signatures.secret_text(b"s" * 32)


def notice(number: int = 0, kind: str = "payment.failed") -> Notice:
    """What a message tells of."""
    return Notice(
        kind=kind, severity="info", title=f"Number {number}", message="Told by a test", raw={"number": number}
    )


@dataclass
class LanesWorld:
    """A database with endpoints and lanes. `work` runs a worker."""

    pool: Pool
    sealer: Sealer
    clock: JumpingClock = field(default_factory=JumpingClock)

    async def endpoint(self, url: str, org_id: str, endpoint_id: str = "ep_1", **columns: Any) -> str:
        """An endpoint as its API makes one."""
        row = {
            "org_id": org_id,
            "endpoint_id": endpoint_id,
            "url": self.sealer.seal(url),
            "description": "Ours",
            "event_types": [],
            "format": "standard",
            "secret": self.sealer.seal(SECRET),
            "status": "enabled",
            "created_at": self.clock(),
            "created_by": "user_1",
        } | columns
        names, places = ", ".join(row), ", ".join(f"${n + 1}" for n in range(len(row)))
        await self.pool.execute(f"INSERT INTO webhook_endpoints ({names}) VALUES ({places})", *row.values())
        lane = "INSERT INTO webhook_lanes (org_id, endpoint_id) VALUES ($1, $2)"
        await self.pool.execute(lane, org_id, row["endpoint_id"])
        return endpoint_id

    async def tell(self, org_id: str, count: int = 1, *, first: int = 0, kind: str = "payment.failed") -> list[UUID]:
        """Messages for the organization's endpoints, in one transaction. Returns the ids of the events."""
        now = self.clock()
        told = [
            Told(org_id=org_id, event_id=new_id(), occurred_at=now, notice=notice(first + n, kind))
            for n in range(count)
        ]
        await self.tell_all(told, now)
        return [each.event_id for each in told]

    async def tell_all(self, told: Sequence[Told], now: datetime) -> None:
        """Messages for endpoints, as the notifier's intake queues them."""
        async with self.pool.acquire() as connection, connection.transaction():
            await queueing.wait_for_turn(connection)
            await queueing.add_webhooks(connection, told, now)

    @asynccontextmanager
    async def work(self, workers: int = 1, *, networks: Sequence[Network], **sender: Any) -> AsyncIterator[Sender]:
        """Workers that send, while the block runs. `sender`: arguments of `Sender`."""
        stop = asyncio.Event()
        async with Sender(networks, **sender) as sends, asyncio.TaskGroup() as tasks:
            for _ in range(workers):
                tasks.create_task(deliver_webhooks(self.pool, sends, self.sealer, self.clock, stop))
            try:
                yield sends
            finally:
                stop.set()

    async def jump(self, by: timedelta) -> None:
        """Let time pass, and have the lanes looked at."""
        self.clock.advance(by)
        await self.pool.execute("SELECT pg_notify('deliveries', '')")

    async def lane(self, org_id: str, endpoint_id: str = "ep_1") -> asyncpg.Record:
        """The lane of an endpoint."""
        row = await self.pool.fetchrow(
            "SELECT next_attempt_at, failures, failing_since, warned_at, claimed_by FROM webhook_lanes "
            "WHERE org_id = $1 AND endpoint_id = $2", org_id, endpoint_id,
        )  # fmt: skip
        assert row is not None
        return row

    async def failures(self, count: int, org_id: str, endpoint_id: str = "ep_1") -> asyncpg.Record:
        """Wait until the endpoint has failed so often in a row."""

        async def reached() -> asyncpg.Record | None:
            row = await self.lane(org_id, endpoint_id)
            return row if row["failures"] == count and row["claimed_by"] is None else None

        found = await eventually(reached, what=f"failures of {org_id}")
        assert found is not None
        return found

    async def statuses(self, org_id: str, endpoint_id: str = "ep_1") -> list[str]:
        """Of the messages of an endpoint, in order."""
        rows = await self.pool.fetch(
            "SELECT status FROM webhook_deliveries WHERE org_id = $1 AND endpoint_id = $2 ORDER BY position",
            org_id, endpoint_id,
        )  # fmt: skip
        return [row["status"] for row in rows]

    async def settled(self, wanted: Sequence[str], org_id: str, endpoint_id: str = "ep_1") -> None:
        """Wait until the messages of an endpoint have these statuses, and nobody is at its lane."""

        async def reached() -> bool:
            lane = await self.lane(org_id, endpoint_id)
            return lane["claimed_by"] is None and await self.statuses(org_id, endpoint_id) == list(wanted)

        await eventually(reached, 20, what=f"messages of {org_id} are {wanted}")

    async def attempts(self, org_id: str) -> list[asyncpg.Record]:
        """The log of attempts, in order."""
        return list(
            await self.pool.fetch(
                "SELECT delivery_id, attempted_at, milliseconds, request_headers::text, status_code, answer, failure "
                "FROM webhook_attempts WHERE org_id = $1 ORDER BY attempted_at", org_id,
            )
        )  # fmt: skip

    async def said(self, org_id: str) -> list[tuple[str, dict[str, Any]]]:
        """What was appended for the bus, in order: the event's name and fields."""
        rows = await self.pool.fetch("SELECT type, data::text FROM events WHERE org_id = $1 ORDER BY position", org_id)
        return [(row["type"].split(".")[2], json.loads(row["data"])) for row in rows]

    async def alerts(self, org_id: str) -> list[str]:
        """The kinds of the alerts of an organization, in order."""
        rows = await self.pool.fetch("SELECT kind FROM usage_alerts WHERE org_id = $1 ORDER BY position", org_id)
        return [row["kind"] for row in rows]


@asynccontextmanager
async def lanes_world(postgres: PostgresServer, template: str) -> AsyncIterator[LanesWorld]:
    """A database of its own."""
    database = await postgres.create_database(template)
    try:
        url = postgres.url_of(database)
        async with asyncpg.create_pool(url, min_size=1, max_size=12, server_settings=SESSION_SETTINGS) as pool:
            yield LanesWorld(pool, Sealer(SEALING_KEYS, SERVICE))
    finally:
        await postgres.drop_database(database)
