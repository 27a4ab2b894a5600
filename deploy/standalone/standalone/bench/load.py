"""Usage to measure with, made cheaply: what the publisher costs is taken from the same cores that are measured."""

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from typing import Any

import uvloop

from aragora.contracts.topology import MAX_MESSAGE_EVENTS, PARTITIONS, usage_partition, usage_subject
from aragora_nats.connecting import connect_once

MODELS = (
    ("openai", "gpt-4o"),
    ("openai", "gpt-4o-mini"),
    ("anthropic", "claude-sonnet-4"),
    ("anthropic", "claude-opus-4"),
    ("gemini", "gemini-2.5-pro"),
    ("mistral", "mistral-large-latest"),
)
WINDOW_MESSAGES = 32
"""Messages that one publisher has on the way to disk at the same time."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Whose usage it is. Every combination of organization, user and model is equally likely: the worst case for the
    projections, which then have the most rows to touch.
    """

    organizations: int = 200
    users_per_organization: int = 5

    def __str__(self) -> str:
        combinations = self.organizations * self.users_per_organization * len(MODELS)
        return (
            f"{self.organizations} organizations with {self.users_per_organization} users and {len(MODELS)} models, "
            f"all equally busy: {combinations:,} projection rows a day"
        )


def messages(shape: Shape, seed: int) -> Iterator[tuple[str, bytes]]:
    """Endless bus messages (subject, body) of 500 events each, as the edge would send them."""
    rnd = random.Random(seed)  # noqa: S311 - a load, not a secret
    organizations: list[list[str]] = [[] for _ in range(PARTITIONS)]
    for number in range(shape.organizations):
        org_id = f"org_{number:05d}"
        organizations[usage_partition(org_id)].append(org_id)
    tails = {
        org_id: [
            f'","subject":"{org_id}","data":{{"event_type":"api_call",'
            f'"user_id":"user_{org_id[4:]}_{user}","provider":"{provider}","model":"{model}",'
            f'"tokens_in":{rnd.randrange(50, 8000)},"tokens_out":{rnd.randrange(10, 2000)},"status":200,'
            f'"response_time_ms":{rnd.randrange(100, 9000)}}},"time":"'
            for user in range(shape.users_per_organization)
            for provider, model in MODELS
        ]
        for own in organizations
        for org_id in own
    }
    head = '{"specversion":"1.0","type":"aragora.metering.UsageRecorded.v1","source":"/bench","id":"'
    count = 0
    while True:
        for partition, own in enumerate(organizations):
            if not own:
                continue
            now = datetime.now(UTC).isoformat()
            # UUIDv7's layout: 48 bits of milliseconds, then what makes it unique.
            ms = f"{int(time.time() * 1000):012x}"
            stem = f"{ms[:8]}-{ms[8:]}-7{seed & 0xFFF:03x}-8000-"
            chosen = rnd.choices(own, k=MAX_MESSAGE_EVENTS)
            events = [
                f'{head}{stem}{count + n:012x}{rnd.choice(tails[org_id])}{now}"}}' for n, org_id in enumerate(chosen)
            ]
            count += MAX_MESSAGE_EVENTS
            yield usage_subject(partition), f"[{','.join(events)}]".encode()


def publish(
    url: str, shape: Shape, seed: int, published: "Synchronized[int]", allowed: "Synchronized[int]", stop: Event
) -> None:
    """A publisher process: publishes until `stop`, and never more than `allowed` events in all."""
    uvloop.run(_publish(url, shape, seed, published, allowed, stop))


async def _publish(url: str, shape: Shape, seed: int, published: Any, allowed: Any, stop: Event) -> None:
    client = await connect_once(url)
    stream = client.jetstream(timeout=30)
    window = asyncio.Semaphore(WINDOW_MESSAGES)
    sending: set[asyncio.Task[None]] = set()

    async def send(subject: str, body: bytes) -> None:
        await stream.publish(subject, body)
        window.release()

    made = messages(shape, seed)
    while not stop.is_set():
        with published.get_lock():
            may = published.value + MAX_MESSAGE_EVENTS <= allowed.value
            if may:
                published.value += MAX_MESSAGE_EVENTS
        if not may:
            await asyncio.sleep(0.002)
            continue
        await window.acquire()
        task = asyncio.create_task(send(*next(made)))
        sending.add(task)
        task.add_done_callback(sending.discard)
    await asyncio.gather(*sending)
    await client.close()
