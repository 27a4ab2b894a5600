"""What the notifier says about itself, after each thing has happened once."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from ipaddress import ip_network

import pytest
from mailing_world import MailingWorld, limit, unpriced
from metrics_said import Said, grown, said_here, wrong_in
from servers import eventually
from webhook_lanes import LanesWorld
from webhook_receiver import Receiver

from aragora.chassis.sql import Pool
from aragora.contracts.events import PLATFORM
from notifier import metrics, schedule
from notifier.mailing import send_due
from notifier.smtp import MailServerAway

HERE = (ip_network("127.0.0.0/8"),)
KINDS = ("delivered", "retried", "given_up", "away")


def outcomes(before: Said, channel: str) -> list[float]:
    return [grown(before, "notifier_deliveries_total", channel=channel, outcome=value) for value in KINDS]


@dataclass(frozen=True, slots=True)
class Due:
    """How many are due, and since when the first of them is: a moment between two."""

    messages: float
    earliest: datetime
    latest: datetime

    def is_since(self, begin: datetime, end: datetime) -> bool:
        """Whether that moment may lie between these."""
        return self.earliest <= end and begin <= self.latest


async def queues(pool: Pool, world: MailingWorld | LanesWorld) -> dict[str, Due]:
    """What is due."""
    clock = world.world.clock if isinstance(world, MailingWorld) else world.clock
    begin = clock()
    async with pool.acquire() as connection:
        await metrics.read_queues(connection, clock)
    end, accuracy = clock(), timedelta(milliseconds=1)
    messages, seconds = (
        {sample.labels["queue"]: sample.value for family in gauge.collect() for sample in family.samples}
        for gauge in metrics.gauges
    )
    ages = {queue: timedelta(seconds=each) for queue, each in seconds.items()}
    return {
        queue: Due(count, begin - ages[queue] - accuracy, end - ages[queue] + accuracy)
        for queue, count in messages.items()
        if count
    }


async def test_mail(office: MailingWorld, org: str):
    before = said_here()
    address = office.world.book.add(org, "u1", "owner")
    event_id = await office.hear(limit(80), org)
    await office.hear(limit(80), org, event_id)
    assert grown(before, "notifier_alerts_total", kind="limit.reached") == 1
    await office.send()
    assert outcomes(before, "email") == [1, 0, 0, 0]
    office.server.answers[address] = ["450 4.2.0 later", "550 5.1.1 No such user"]
    await office.hear(limit(90), org)
    await office.send()
    assert outcomes(before, "email") == [1, 1, 0, 0]
    office.pass_time(hours=1)
    await office.send()
    assert outcomes(before, "email") == [1, 1, 1, 0]
    assert grown(before, "notifier_delivery_seconds", "count", channel="email") == 3
    await office.world.pool.execute("TRUNCATE suppressed_addresses")
    await office.hear(limit(100), org)
    office.server.password = "another one"
    await office.room.post.close()
    with pytest.raises(MailServerAway):
        await send_due(office.room, asyncio.Event())
    assert outcomes(before, "email") == [1, 1, 1, 1]
    assert wrong_in(said_here()) == []


async def test_queues_of_mail(office: MailingWorld, org: str):
    pool = office.world.pool
    assert await queues(pool, office) == {}
    office.world.book.add(org, "u1", "owner")
    begin = office.now
    await office.hear(limit(80), org)
    end = office.now
    await office.hear(unpriced("acme-1"), org)
    for days in (0, 2):
        office.pass_time(days=days)
        found = await queues(pool, office)
        due = {"mail": 1} if not days else {"mail": 1, "digests": 1}
        assert {queue: each.messages for queue, each in found.items()} == due
        assert found["mail"].is_since(begin, end)
    queued_at = office.now - timedelta(minutes=1)
    await pool.execute(
        "INSERT INTO unaddressed_alerts (org_id, alert_id, topic_rank, expires_at, queued_at) "
        "VALUES ($1, uuidv7(), 0, $2, $2)", org, queued_at,
    )  # fmt: skip
    alerts = (await queues(pool, office))["alerts"]
    assert alerts.messages == 1
    assert alerts.is_since(queued_at, queued_at)


async def test_webhooks(webhooks: LanesWorld, hook: Receiver, org: str):
    before = said_here()

    def are(channel: str, counts: list[float]) -> bool:
        return outcomes(before, channel) == counts

    await webhooks.endpoint(hook.url, org)
    await webhooks.endpoint(hook.url, PLATFORM, "operator")
    begin = webhooks.clock()
    await webhooks.tell(org, 2)
    end = webhooks.clock()
    ((queue, due),) = (await queues(webhooks.pool, webhooks)).items()
    assert (queue, due.messages) == ("webhooks", 2)
    assert due.is_since(begin, end)
    async with webhooks.work(networks=HERE):
        await webhooks.settled(["delivered"] * 2, org)
        await webhooks.settled(["delivered"] * 2, PLATFORM, "operator")
        for channel in ("webhook", "operator"):
            await eventually(partial(are, channel, [2, 0, 0, 0]))  # counted after the commit that is seen here
        hook.status = 503
        await webhooks.tell(org)
        await webhooks.failures(1, org)
        await webhooks.failures(1, PLATFORM, "operator")
        for channel in ("webhook", "operator"):
            await eventually(partial(are, channel, [2, 1, 0, 0]))
    webhooks.clock.advance(schedule.WAITS[0])
    assert (await queues(webhooks.pool, webhooks))["failing_webhooks"].messages == 2  # the operator's fails too
    hook.status = 410
    webhooks.clock.advance(schedule.GIVEN_UP_AFTER)
    async with webhooks.work(networks=HERE):
        await webhooks.settled(["delivered"] * 2 + ["failed", "skipped"], org)
    assert outcomes(before, "webhook") == [2, 1, 1, 0]
    assert grown(before, "notifier_delivery_seconds", "count", channel="webhook") == 4
    assert grown(before, "notifier_endpoints_disabled_total") == 1
    assert grown(before, "notifier_alerts_total", kind="endpoint.disabled") == 1
    assert wrong_in(said_here()) == []
