"""Usage that is published through the gateway without end, and what of it was acknowledged."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
from one_service import ALL_SCOPES, bearer
from servers import eventually

from aragora.contracts.ids import new_id

BATCH = 20
EVENT = {"event_type": "api_call", "provider": "openai", "model": "gpt-4o", "tokens_in": 1000, "tokens_out": 200}


@dataclass
class Publishing:
    """What one organization's program has sent. Only what was answered with 202 is acknowledged."""

    client: httpx.AsyncClient
    org_id: str
    acknowledged: set[str] = field(default_factory=set)
    failures: Counter[str] = field(default_factory=Counter)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    programs: list[asyncio.Task[None]] = field(default_factory=list)

    async def end(self) -> None:
        """Send no more batches; return when the last ones are acknowledged."""
        self.stopping.set()
        await asyncio.gather(*self.programs)

    async def go_on(self) -> None:
        """Send batch after batch, each of them again until it is acknowledged, as the SDK does."""
        while not self.stopping.is_set():
            now = datetime.now(UTC).isoformat()
            batch = [EVENT | {"id": str(new_id()), "org_id": self.org_id, "occurred_at": now} for _ in range(BATCH)]
            while not await self._is_accepted(batch):
                self.failures.update(["sent again"])
            self.acknowledged.update(str(one["id"]) for one in batch)

    async def _is_accepted(self, batch: list[dict[str, object]]) -> bool:
        try:
            answer = await self.client.post("/api/usage/events", json=batch, headers=bearer(ALL_SCOPES))
        except httpx.TransportError as error:
            self.failures.update([type(error).__name__])
            return False
        if answer.status_code != 202:
            self.failures.update([str(answer.status_code)])
            assert answer.status_code >= 500, answer.text
        return answer.status_code == 202

    async def goes_on(self) -> None:
        """Return when more than before was acknowledged."""
        before = len(self.acknowledged)
        await eventually(lambda: len(self.acknowledged) > before, 60, what="usage is accepted")

    async def recorded(self) -> list[str]:
        """The ids of all events in the log, as the API lists them."""
        found: list[str] = []
        cursor: dict[str, str] | None = {}
        while cursor is not None:
            query = {"org_id": self.org_id, "limit": "1000", **cursor}
            answer = await self.client.get("/api/usage/events", params=query, headers=bearer(ALL_SCOPES))
            assert answer.is_success, answer.text
            page = answer.json()
            found += [one["id"] for one in page["events"]]
            cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else None
        return found

    async def total(self) -> int:
        """How many events the projections count."""
        path = f"/api/usage/organizations/{self.org_id}/summary"
        answer = await self.client.get(path, headers=bearer(ALL_SCOPES))
        return int(answer.json()["data"]["total_events"]) if answer.is_success else -1


@asynccontextmanager
async def publishing(url: str, programs: int = 3) -> AsyncIterator[Publishing]:
    """Several programs of one organization publish while the test does something else. `end` lets them finish."""
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        traffic = Publishing(client, f"org_{new_id().hex}")
        traffic.programs += [asyncio.create_task(traffic.go_on()) for _ in range(programs)]
        try:
            await traffic.goes_on()
            yield traffic
        finally:
            for program in traffic.programs:
                program.cancel()
            await asyncio.gather(*traffic.programs, return_exceptions=True)
