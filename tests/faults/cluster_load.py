"""Usage at a steady rate, through APIs and straight on the bus, with every batch sent until it is acknowledged."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial

import httpx
import nats
from nats.aio.client import Client
from nats_cluster import NatsCluster
from one_service import ALL_SCOPES, bearer
from oracle import MONTH_ENDS, PRICES, UNPRICED, Event, Totals
from servers import NATS_PASSWORDS, eventually

from aragora.contracts.ids import new_id
from aragora.contracts.topology import usage_partition, usage_subject

BATCH_EVENTS = 500
SHAPES = 40
"""Different events of one organization; all others are these, under other ids."""
ID = "@@"


class Pace:
    """When the next batch is due: so many events per second, counted from the first. Who was held up catches up."""

    def __init__(self, events_per_second: int, seconds: float) -> None:
        self.events_per_second = events_per_second
        self.batches = int(events_per_second * seconds / BATCH_EVENTS)
        self._begun: float | None = None
        self._taken = 0

    async def next(self) -> bool:
        """Return when another batch is due; False: there are no more."""
        loop = asyncio.get_running_loop()
        self._begun = self._begun or loop.time()
        if self._taken == self.batches:
            return False
        due = asyncio.Event()
        loop.call_at(self._begun + self._taken * BATCH_EVENTS / self.events_per_second, due.set)
        self._taken += 1
        await due.wait()
        return True


class Load:
    """What is sent, and what it must lead to."""

    def __init__(self, rnd: random.Random, pace: Pace) -> None:
        self.sent = 0
        self.happened: Counter[str] = Counter()
        self._rnd = rnd
        self._pace = pace
        self._shapes = {org: [_shape(rnd, org) for _ in range(SHAPES)] for org in (f"org_{n}" for n in range(24))}
        self._bodies = {
            org: [tuple(shape.json().split(ID.encode())) for shape in shapes] for org, shapes in self._shapes.items()
        }
        self._counts: Counter[tuple[str, int]] = Counter()
        self._slowest_seconds = 0.0
        self._seconds = 0.0

    def __str__(self) -> str:
        rate = self.sent / self._seconds if self._seconds else 0
        asked = f"{self._pace.events_per_second:,} asked"
        return (
            f"{self.sent:,} events acknowledged in {self._seconds:.1f} s: {rate:,.0f} per second ({asked}); "
            f"slowest batch {self._slowest_seconds:.1f} s; {dict(self.happened)}"
        )

    async def publish(self, apis: Sequence[str], cluster: NatsCluster, publishers: int = 12) -> None:
        """Send all, each batch until it is acknowledged: half of the publishers through the APIs, half on the bus."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as tasks:
            for number in range(publishers):
                tasks.create_task(self._over_http(apis[number % len(apis)]))
                tasks.create_task(self._on_the_bus(cluster))
        self._seconds = loop.time() - began

    async def _over_http(self, url: str) -> None:
        headers = bearer(ALL_SCOPES) | {"Content-Type": "application/cloudevents-batch+json"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
            while await self._pace.next():
                body = self._batch(self._rnd.choices(list(self._shapes), k=BATCH_EVENTS))
                await self._until_acknowledged(partial(self._posted, client, body))

    async def _posted(self, client: httpx.AsyncClient, body: bytes) -> bool:
        answer = await client.post("/api/usage/events", content=body)
        if answer.status_code == 202:
            return True
        assert answer.status_code == 503, answer.text
        assert answer.headers["Retry-After"]
        self.happened[f"503: {answer.json()['detail']}"] += 1
        return False

    async def _on_the_bus(self, cluster: NatsCluster) -> None:
        client = await _publisher(cluster)
        try:
            while await self._pace.next():
                org = self._rnd.choice(list(self._shapes))
                message = usage_subject(usage_partition(org)), self._batch([org] * BATCH_EVENTS), str(new_id())
                await self._until_acknowledged(partial(self._confirmed, client, *message))
        finally:
            await client.close()

    async def _confirmed(self, client: Client, subject: str, body: bytes, message_id: str) -> bool:
        try:
            await client.jetstream().publish(subject, body, timeout=5, headers={"Nats-Msg-Id": message_id})
        except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as error:
            self.happened[f"bus: {type(error).__name__}"] += 1
            await eventually(lambda: client.is_connected, 60)
            return False
        return True

    async def _until_acknowledged(self, send: Callable[[], Awaitable[bool]]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await eventually(send, 120, what="a batch is acknowledged")
        self._slowest_seconds = max(self._slowest_seconds, loop.time() - began)
        self.sent += BATCH_EVENTS

    def _batch(self, orgs: Sequence[str]) -> bytes:
        events = []
        for org in orgs:
            number = self._rnd.randrange(SHAPES)
            self._counts[org, number] += 1
            before, after = self._bodies[org][number]
            events.append(b"%b%b%b" % (before, new_id().hex.encode(), after))
        return b"[" + b",".join(events) + b"]"

    def totals(self) -> Totals:
        """What everything that was sent adds up to."""
        totals = Totals()
        for (org, number), count in self._counts.items():
            one = Totals()
            one.add(self._shapes[org][number])
            for all_rows, rows in ((totals.daily, one.daily), (totals.monthly, one.monthly)):
                for key, row in rows.items():
                    found = all_rows.setdefault(key, {})
                    for name, value in row.items():
                        found[name] = found.get(name, 0) + value * count
        return totals


async def _publisher(cluster: NatsCluster) -> Client:
    async def quietly(_: Exception) -> None:
        return

    return await nats.connect(
        cluster.addresses.split(","),
        user="publisher",
        password=NATS_PASSWORDS["publisher"],
        inbox_prefix=b"_INBOX.publisher",
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.2,
        ping_interval=5,
        error_cb=quietly,
    )


def _shape(rnd: random.Random, org_id: str) -> Event:
    provider, model = rnd.choice([*list(PRICES)[:5], UNPRICED])
    counts = {"tokens_in": rnd.randrange(1, 9000), "tokens_out": rnd.randrange(1, 3000)}
    moment = rnd.choice(MONTH_ENDS) + timedelta(milliseconds=rnd.randrange(-5 * 86_400_000, 5 * 86_400_000))
    return Event(org_id, ID, moment, "api_call", provider, model, f"user_{rnd.randrange(3)}", counts)
