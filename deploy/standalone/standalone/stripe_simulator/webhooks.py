"""Webhooks as Stripe sends them: signed, again until taken; and, if told to, late, twice, shuffled or never."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from standalone.stripe_simulator.shapes import Thing
from standalone.stripe_simulator.world import World

RETRY_SECONDS = (0.2, 1, 5, 15, 60)
"""Pauses before a webhook that was not taken is sent again. Stripe goes on for three days; here it is five times."""


def signed(event: Thing, secret: str, at: int) -> tuple[bytes, dict[str, str]]:
    """The body and headers of a webhook, signed at that Unix second by Stripe's scheme v1 (HMAC-SHA256)."""
    body = json.dumps(event, indent=2).encode()
    signature = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Stripe-Signature": f"t={at},v1={signature}",
        "User-Agent": "Stripe/1.0 (simulator; a stand-in)",
    }
    return body, headers


@dataclass(slots=True)
class Mode:
    """How unreliable the way to the receiver is."""

    held: bool = False
    """Nothing is sent until somebody calls `deliver`."""
    late_seconds: float = 0
    twice: bool = False
    shuffled: bool = False
    dropped: int = 0
    """So many of the next events are never sent."""
    dropped_types: tuple[str, ...] = ()
    """Events of these types are never sent."""


@dataclass(slots=True)
class Waiting:
    """An event on its way to an endpoint."""

    event: Thing
    endpoint: str
    attempts: int = 0
    not_before: float = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of sending an event once; status 0: nobody answered."""

    event_id: str
    event_type: str
    status: int


@dataclass
class Deliveries:
    """Sends the world's events to its webhook endpoints, in the background (`run`) or when told (`deliver`)."""

    world: World
    client: httpx.AsyncClient
    signing_time: Callable[[], int]
    """The moment that signatures name: receivers compare it with their own clock."""
    mode: Mode = field(default_factory=Mode)
    seed: int = 0
    log: deque[Attempt] = field(default_factory=lambda: deque(maxlen=10_000))
    waiting: list[Waiting] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.world.observers.append(self._happened)
        self._random = random.Random(self.seed)  # noqa: S311  an order to test with, no secret

    def _happened(self, event: Thing) -> None:
        for endpoint in self.world.table("webhook_endpoint").values():
            wanted = endpoint["enabled_events"]
            if "*" not in wanted and event["type"] not in wanted:
                continue
            if self.mode.dropped or event["type"] in self.mode.dropped_types:
                self.mode.dropped = max(self.mode.dropped - 1, 0)
                continue
            self.waiting += [Waiting(event, endpoint["id"]) for _ in range(2 if self.mode.twice else 1)]
        self._news.set()

    async def run(self) -> None:
        """Send what happens, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = [one.not_before for one in self.waiting]
            pause = None if self.mode.held or not due else max(min(due) - loop.time(), 0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._news.wait()
            self._news.clear()
            if self.mode.held:
                continue
            if self.mode.late_seconds:
                await asyncio.sleep(self.mode.late_seconds)
            await self._send_due(loop.time())

    def changed(self) -> None:
        """The mode was changed: look again."""
        self._news.set()

    async def deliver(self) -> int:
        """Send all that waits, now, held or not. Returns how many were taken (2xx)."""
        return await self._send_due(float("inf"))

    async def _send_due(self, until: float) -> int:
        async with self._lock:
            due = [one for one in self.waiting if one.not_before <= until]
            self.waiting = [one for one in self.waiting if one.not_before > until]
            if self.mode.shuffled:
                self._random.shuffle(due)
            return sum([await self._send(one) for one in due])

    async def _send(self, one: Waiting) -> bool:
        endpoint = self.world.table("webhook_endpoint").get(one.endpoint)
        if endpoint is None:
            return False
        body, headers = signed(one.event, self.world.secrets[one.endpoint], self.signing_time())
        try:
            answer = await self.client.post(endpoint["url"], content=body, headers=headers)
            status = answer.status_code
        except httpx.HTTPError:
            status = 0
        self.log.append(Attempt(one.event["id"], one.event["type"], status))
        if 200 <= status < 300:
            one.event["pending_webhooks"] = max(one.event["pending_webhooks"] - 1, 0)
            return True
        if one.attempts < len(RETRY_SECONDS):
            one.not_before = asyncio.get_running_loop().time() + RETRY_SECONDS[one.attempts]
            one.attempts += 1
            self.waiting.append(one)
        return False
