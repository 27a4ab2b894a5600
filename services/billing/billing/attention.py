"""Telling operators of what only they can settle; once per thing."""

from datetime import datetime

from aragora.chassis import store
from aragora.chassis.sql import Connection
from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events import PLATFORM, BillingAttentionNeeded


async def raise_attention(
    conn: Connection, kind: str, reference: str, now: datetime, *, org_id: str | None = None
) -> None:
    """Say that this needs an operator, unless it was said. `reference`: the id of what it is about."""
    needed = BillingAttentionNeeded.model_validate({"kind": kind, "reference": reference})
    said: tuple[DomainEvent, ...] = ()
    async with conn.transaction():
        await store.decide_and_append(
            conn,
            f"attention/{kind}/{reference}",
            lambda known: [] if known else [needed],
            lambda known, event: (*known, event),
            said,
            org_id=org_id or PLATFORM,
            occurred_at=now,
        )
