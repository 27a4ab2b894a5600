"""From an event on the bus to the alert, the mail and the webhook: once each, and written right."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import servers
from mail_server import MailServer, html_of, mail_server, text_of
from notifier_world import NotifierWorld, notifier_world
from one_service import token
from servers import eventually
from standardwebhooks import Webhook, WebhookVerificationError
from webhook_receiver import Received, Receiver, receiver

from aragora.contracts.events import LimitReached, NotificationDelivered, PaymentFailed


@dataclass
class Office:
    """A notifier with a mail server and an endpoint."""

    world: NotifierWorld
    mail: MailServer
    hook: Receiver

    async def endpoint(self, org: str, user: str) -> str:
        """A new endpoint of an organization. Returns its secret."""
        body = {"url": self.hook.url, "description": "tests"}
        found = await self.world.read("POST", "/api/notifications/endpoints", body, key=token(user, org, "owner"))
        return found["secret"]


@pytest.fixture(scope="module")
async def office(postgres_server, notifier_template, nats_server) -> AsyncIterator[Office]:
    async with AsyncExitStack() as stack:
        folder = await stack.enter_async_context(servers.scratch_dir())
        mail = await stack.enter_async_context(mail_server(folder, "tls"))
        hook = await stack.enter_async_context(receiver())
        world = notifier_world(postgres_server, notifier_template, nats_server, **mail.settings)
        yield Office(await stack.enter_async_context(world), mail, hook)


def limit(percent: int, used: str, meter: str = "calls:gemini") -> LimitReached:
    return LimitReached.model_validate({
        "meter": meter, "threshold_percent": percent, "month": "2026-11", "used": used, "limit": "50",
        "resets_at": datetime.now(UTC) + timedelta(days=9),
    })  # fmt: skip


def failed(amount: str) -> PaymentFailed:
    now = datetime.now(UTC)
    return PaymentFailed.model_validate({
        "invoice_id": "in_1", "attempt": 1, "amount": amount, "currency": "usd", "failed_at": now,
        "grace_ends_at": now + timedelta(days=10),
    })  # fmt: skip


def verified(secret: str, request: Received) -> Any:
    """What an endpoint reads, with the library that Standard Webhooks offers to receivers."""
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    return Webhook(secret).verify(request.body, {name: request.headers[name] for name in names})


async def test_three_thresholds_and_a_failed_payment_arrive_once_each(office: Office, org: str, user: str):
    world, address = office.world, office.world.book.add(org, user, org_name="<b>Bold</b> & Sons")
    secret, already = await office.endpoint(org, user), len(office.hook.requests)
    events = [limit(80, "40"), limit(90, "45"), limit(100, "50"), failed("299.00")]
    ids = []
    for number, event in enumerate(events, start=1):
        ids.append(await world.tell(event, org))
        await office.mail.has(address, number)
    await eventually(lambda: len(office.hook.requests) >= already + 4, 10, what="four webhooks")
    await eventually(lambda: len(world.heard_of(org, NotificationDelivered)) == 8, 10, what="all outcomes are said")

    requests = office.hook.requests[already:]
    assert [request.message_id for request in requests] == [f"msg_{event_id.hex}" for event_id in ids]
    bodies = [verified(secret, request) for request in requests]
    assert [body["type"] for body in bodies] == ["limit.reached"] * 3 + ["payment.failed"]
    assert [body["data"]["fields"].get("threshold_percent") for body in bodies] == [80, 90, 100, None]
    assert bodies[3]["data"]["fields"]["amount"] == "299.00"
    with pytest.raises(WebhookVerificationError):
        verified("whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", requests[0])

    mails = office.mail.to(address)
    assert [message["Subject"].partition(" · ")[::2] for message in mails] == [
        (title, "<b>Bold</b> & Sons") for title in (
        "80 % of the limit for calls to Gemini is used", "90 % of the limit for calls to Gemini is used",
        "The limit for calls to Gemini is reached",
        "A payment of $299.00 did not go through")
    ]  # fmt: skip
    for message, body in zip(mails, bodies, strict=True):
        assert body["data"]["message"] in " ".join(text_of(message).split())
        assert "&lt;b&gt;Bold&lt;/b&gt; &amp; Sons" in html_of(message)
        assert "<b>Bold" not in html_of(message)
    assert "List-Unsubscribe" in mails[0]
    assert "List-Unsubscribe" not in mails[3], "nobody can do without it"

    rows = await world.rows("SELECT alert_id, severity FROM usage_alerts WHERE org_id = $1 ORDER BY position", org)
    assert [(row["alert_id"], row["severity"]) for row in rows] == list(
        zip(ids, ["info", "warning", "critical", "critical"], strict=True)
    )
    outcomes = world.heard_of(org, NotificationDelivered)
    assert Counter((one.event_id, one.channel) for one in outcomes) == Counter(
        (str(event_id), channel) for event_id in ids for channel in ("email", "webhook")
    )


async def test_thresholds_that_are_passed_at_once_are_one_mail(office: Office, org: str, user: str):
    address = office.world.book.add(org, user)
    office.world.book.is_away = True  # so that all three wait
    for percent in (80, 90, 100):
        await office.world.tell(limit(percent, "50"), org)
    asked = "SELECT alert_id FROM unaddressed_alerts WHERE org_id = $1 AND claimed_until IS NOT NULL"
    await office.world.has_rows(3, asked, org)
    office.world.book.is_away = False
    office.world.clock.advance(timedelta(minutes=2))
    (message,) = await office.mail.has(address)
    assert message["Subject"].startswith("The limit for calls to Gemini is reached")
    ended = "SELECT topic_rank, status FROM email_deliveries WHERE org_id = $1 AND status <> 'pending' ORDER BY 1"
    rows = await office.world.has_rows(3, ended, org)
    assert [tuple(row) for row in rows] == [(80, "superseded"), (90, "superseded"), (100, "sent")]
