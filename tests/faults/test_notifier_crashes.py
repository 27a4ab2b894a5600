"""The notifier is killed again and again, at the moments that hurt most: nothing is lost, and no id changes."""

import asyncio
import os
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from mail_server import MailServer, mail_server
from notifier_world import SEALING_KEYS
from one_service import Surroundings, surroundings
from phone_book import PhoneBook
from servers import PostgresServer, eventually
from webhook_receiver import Received, Receiver, receiver

from aragora.chassis.sealing import Sealer
from aragora.contracts.envelope import DomainEvent, envelope, subject_for
from aragora.contracts.events import LimitReached, NotificationDelivered, PaymentFailed
from aragora.contracts.ids import new_id
from notifier.settings import SERVICE
from standalone.service import PythonService

ORGANIZATIONS = 25
WORKERS = 2
SEALER = Sealer(SEALING_KEYS, SERVICE)


@dataclass
class Victims:
    """Worker processes. `arm` has one killed when so many more messages have come, or after so many seconds."""

    processes: list[PythonService]
    chance: random.Random
    countdown: int | None = None
    deaths: int = 0
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def watch(self) -> None:
        self._tasks += [asyncio.create_task(self._keep(process)) for process in self.processes]

    async def _keep(self, process: PythonService) -> None:
        while True:
            await process.wait()
            await process.start()

    def arm(self) -> None:
        if self.chance.random() < 0.3:
            asyncio.get_running_loop().call_later(self.chance.uniform(0, 0.4), self.kill)
        else:
            self.countdown = self.chance.randint(1, 25)

    def message_came(self, *_: object) -> None:
        """The one who sent it dies before it has our answer, or a moment after."""
        if self.countdown is not None:
            self.countdown -= 1
            if self.countdown <= 0:
                self.countdown = None
                asyncio.get_running_loop().call_later(self.chance.choice((0, 0, 0.001, 0.01)), self.kill)

    def kill(self) -> None:
        # Which of them sent the message cannot be told: all die.
        for process in self.processes:
            process.hurry()
        self.deaths += 1

    async def let_live(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@dataclass
class Town:
    around: Surroundings
    pool: Any
    mail: MailServer
    hook: Receiver
    orgs: list[str]
    victims: Victims
    expected: dict[str, list[UUID]] = field(default_factory=lambda: defaultdict(list))

    async def say(self, number: int) -> None:
        org = self.orgs[number % len(self.orgs)]
        event, event_id = said(number), new_id()
        message = envelope(event, org_id=org, occurred_at=datetime.now(UTC), correlation_id="c", event_id=event_id)
        await self.around.operator.jetstream().publish(subject_for(event.type_name, org), message.to_json())
        self.expected[org].append(event_id)


def said(number: int) -> DomainEvent:
    if number % 10 == 0:
        return PaymentFailed.model_validate({
            "invoice_id": f"in_{number}", "attempt": 1, "amount": "29", "currency": "usd",
            "failed_at": datetime.now(UTC), "grace_ends_at": datetime.now(UTC) + timedelta(days=10),
        })  # fmt: skip
    return LimitReached.model_validate({
        "meter": f"meter_{number}", "threshold_percent": 80, "month": "2026-06", "used": 8, "limit": 10,
        "resets_at": datetime.now(UTC) + timedelta(days=9),
    })  # fmt: skip


@asynccontextmanager
async def town(postgres: PostgresServer, template: str, nats_url: str, chance: random.Random) -> AsyncIterator[Town]:
    async with AsyncExitStack() as stack:
        around = await stack.enter_async_context(surroundings(postgres, template, nats_url))
        mail = await stack.enter_async_context(mail_server(around.folder))
        hook = await stack.enter_async_context(receiver())
        pool = await stack.enter_async_context(
            asyncpg.create_pool(around.settings["DATABASE_URL"], min_size=1, max_size=4)
        )
        book, orgs = PhoneBook(), [f"org_{number:03}" for number in range(ORGANIZATIONS)]
        await book.answer_on(around.operator)
        for org in orgs:
            book.add(org, f"owner_of_{org}", email=f"{org}@example.com")
            await pool.execute(
                "INSERT INTO webhook_endpoints (org_id, endpoint_id, url, description, event_types, format, secret, "
                "status, created_at, created_by) "
                "VALUES ($1, 'ep', $2, '', '{}', 'standard', $3, 'enabled', now(), 'test')",
                org, SEALER.seal(f"{hook.url}/{org}"), SEALER.seal("whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            )  # fmt: skip
            await pool.execute("INSERT INTO webhook_lanes (org_id, endpoint_id) VALUES ($1, 'ep')", org)
        settings = around.settings | mail.settings | {
            "ARAGORA_SEALING_KEYS": SEALING_KEYS, "ARAGORA_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
            "ARAGORA_DIGEST_HOUR": str((datetime.now(UTC).hour + 12) % 24),  # while this runs, no digest leaves
        }  # fmt: skip
        processes = [
            PythonService(f"notifier-worker-{number}", around.folder, ["notifier", "worker"], settings)
            for number in range(WORKERS)
        ]
        victims = Victims(processes, chance)
        taken = mail.handle_DATA

        async def watched(*message: Any) -> str:
            victims.message_came()
            return await taken(*message)

        mail.handle_DATA = watched  # type: ignore[method-assign,assignment]
        hook.on_request = victims.message_came
        await around.start(*processes)
        victims.watch()
        yield Town(around, pool, mail, hook, orgs, victims)
        await victims.let_live()


async def everything_is_told(place: Town) -> None:
    """Wait until nothing waits."""

    async def done() -> bool:
        alerts = await place.pool.fetchval("SELECT count(*) FROM usage_alerts")
        waiting = await place.pool.fetchval(
            "SELECT (SELECT count(*) FROM unaddressed_alerts)"
            " + (SELECT count(*) FROM email_deliveries WHERE status = 'pending' AND mode = 'mail')"
            " + (SELECT count(*) FROM webhook_deliveries WHERE status = 'pending') + (SELECT count(*) FROM outbox)"
        )
        return bool(alerts == sum(map(len, place.expected.values())) and not waiting)

    await eventually(done, 120, what="everything is told")


async def storm(postgres: PostgresServer, template: str, nats_url: str, seed: int, *, bursts: int, events: int) -> None:
    chance = random.Random(seed)
    print(f"ARAGORA_TEST_SEED={seed}")
    async with town(postgres, template, nats_url, chance) as place:
        number = 0
        for _ in range(bursts):
            deaths = place.victims.deaths
            place.victims.arm()
            for _ in range(events // bursts):
                await place.say(number)
                number += 1
            await eventually(lambda deaths=deaths: place.victims.deaths > deaths, 60, what="it dies")  # type: ignore[misc]
        await everything_is_told(place)
        await nothing_is_lost(place)
        print(f"{events} events, {place.victims.deaths} deaths of {WORKERS} workers, "
              f"{len(place.hook.requests)} webhooks and {len(place.mail.received)} mails received")  # fmt: skip


async def nothing_is_lost(place: Town) -> None:
    everything = {event_id for ids in place.expected.values() for event_id in ids}
    alerts = await place.pool.fetch("SELECT alert_id FROM usage_alerts")
    assert Counter(row["alert_id"] for row in alerts) == Counter(everything)
    await endpoints_have_everything(place)
    rows = await place.pool.fetch("SELECT delivery_id, event_id, mode, status, org_id FROM email_deliveries")
    assert Counter(row["event_id"] for row in rows) == Counter(everything)
    assert {(row["mode"], row["status"]) for row in rows} == {("mail", "sent"), ("digest", "pending")}
    mailed = {str(row["delivery_id"]): f"{row['org_id']}@example.com" for row in rows if row["mode"] == "mail"}
    received = [(message["Message-ID"].strip("<>").partition("@")[0], to) for to, message in place.mail.received]
    assert {delivery_id for delivery_id, _ in received} == mailed.keys()
    assert all(to == [mailed[delivery_id]] for delivery_id, to in received)
    told = await place.pool.fetch(
        "SELECT data ->> 'delivery_id' AS delivery_id FROM events WHERE type = $1", NotificationDelivered.type_name
    )
    webhooks = await place.pool.fetch("SELECT delivery_id FROM webhook_deliveries")
    assert Counter(row["delivery_id"] for row in told) == Counter([*mailed, *(str(row[0]) for row in webhooks)])


async def endpoints_have_everything(place: Town) -> None:
    came: dict[str, list[Received]] = defaultdict(list)
    for request in place.hook.requests:
        came[request.path.rpartition("/")[2]].append(request)
    for org in place.orgs:
        queued = await place.pool.fetch(
            "SELECT event_id, status FROM webhook_deliveries WHERE org_id = $1 ORDER BY position", org
        )
        assert {row["status"] for row in queued} == {"delivered"}
        assert {row["event_id"] for row in queued} == set(place.expected[org])
        order = [f"msg_{row['event_id'].hex}" for row in queued]
        assert list(dict.fromkeys(request.message_id for request in came[org])) == order
        bodies = {(request.message_id, request.body) for request in came[org]}
        assert len(bodies) == len(order)


def seed() -> int:
    return int(os.environ.get("ARAGORA_TEST_SEED") or random.SystemRandom().randrange(10**6))


async def test_killed_at_any_moment_it_loses_nothing(postgres_server, notifier_template, nats_url):
    await storm(postgres_server, notifier_template, nats_url, seed(), bursts=5, events=1000)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_killed_a_hundred_times_it_loses_nothing(postgres_server, notifier_template, nats_url):
    for turn in range(4):
        await storm(postgres_server, notifier_template, nats_url, seed() + turn, bursts=25, events=1000)
