"""Usage events for tests, and a metering service in this process to send them to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec

from aragora.billing.pricebook import PriceBook
from aragora.contracts.ids import new_id
from aragora.contracts.usage import USAGE_RECORDED
from metering.handlers import SESSION_SETTINGS, Recorder, prepare_session
from metering.log_months import open_due_month

NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)


def native(**fields: Any) -> dict[str, Any]:
    """A native usage event; any field may be set or, with `...`, left out."""
    event = {
        "id": str(new_id()),
        "org_id": "org_acme",
        "user_id": "user_ann",
        "event_type": "api_call",
        "provider": "openai",
        "model": "gpt-4o",
        "tokens_in": 1000,
        "tokens_out": 500,
        "occurred_at": "2026-06-15T12:00:00Z",
    }
    return {name: value for name, value in (event | fields).items() if value is not ...}


def cloudevent(**fields: Any) -> dict[str, Any]:
    """The same event as CloudEvents 1.0 carries it."""
    usage = native(**fields)
    envelope = {
        "specversion": "1.0",
        "type": USAGE_RECORDED,
        "source": "/test",
        "id": usage.pop("id", ...),
        "subject": usage.pop("org_id", ...),
        "time": usage.pop("occurred_at", ...),
    }
    return {name: value for name, value in envelope.items() if value is not ...} | {"data": usage}


def message(*events: dict[str, Any]) -> bytes:
    """A bus message."""
    return msgspec.json.encode(list(events))


@asynccontextmanager
async def recorder(database_url: str, now: datetime = NOON) -> AsyncIterator[Recorder]:
    """A recorder as a worker makes it, with the log month of `now` open."""
    async with asyncpg.create_pool(
        database_url, min_size=1, max_size=4, init=prepare_session, server_settings=SESSION_SETTINGS
    ) as pool:
        await open_due_month(pool, now)
        yield Recorder(pool, PriceBook.load())
