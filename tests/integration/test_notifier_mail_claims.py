"""Mail between its claim and its sending: what is not to be sent any more, or by somebody else, and what must be."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from mailing_world import MailingWorld, limit, unpriced

from aragora.chassis.sealing import Sealer
from aragora.contracts import events
from aragora.contracts.envelope import DomainEvent, envelope
from notifier import handlers
from notifier.addressing import address
from notifier.digests import send_digests
from notifier.directory import Directory, People
from notifier.failover import queries
from notifier.mailing import send_due

FAILED: dict[str, Any] = {"invoice_id": "in_1", "attempt": 1, "amount": "29", "currency": "usd"}
REMINDER: dict[str, Any] = {
    "invoice_id": "in_1", "day": 3, "amount": "29", "currency": "usd", "is_last": False,
}  # fmt: skip


class Interrupted(Directory):
    """Auth's answers, after each of which something happens: mail is claimed then, and not yet sent."""

    def __init__(self, office: MailingWorld, happens: Callable[[], Awaitable[object]]) -> None:
        super().__init__(office.world.pool, office.world.bus, office.world.sealer)
        self._happens = happens

    async def people(self, org_id: str, now: datetime) -> People | None:
        found = await super().people(org_id, now)
        await self._happens()
        return found


async def hear_all(office: MailingWorld, org: str, *said: tuple[DomainEvent, datetime]) -> None:
    """Several events come as one batch, and are addressed as one."""
    messages = [envelope(event, org_id=org, occurred_at=at, correlation_id="told").to_json() for event, at in said]
    await handlers.follow(office.world.pool, messages, office.now)
    await address(office.world.pool, office.room.directory, office.now, 8)


async def tell_of_people(office: MailingWorld, event: DomainEvent, org: str) -> None:
    message = envelope(event, org_id=org, occurred_at=office.now, correlation_id="told").to_json()
    await handlers.follow_people(office.world.pool, [message], office.now)


def failed(office: MailingWorld, at: datetime) -> events.PaymentFailed:
    until = office.now + timedelta(days=10)
    return events.PaymentFailed.model_validate(FAILED | {"failed_at": at, "grace_ends_at": until})


async def test_a_payment_that_fails_again_after_it_recovered_is_told(office, org):
    office.world.book.add(org, "u1")
    first, second, third = (office.now - timedelta(hours=hours) for hours in (3, 2, 1))
    recovered = events.PaymentRecovered(invoice_id="in_1", recovered_at=second)
    await hear_all(office, org, (failed(office, first), first), (recovered, second), (failed(office, third), third))
    await office.send()
    rows = await office.world.rows(
        "SELECT e.status FROM email_deliveries e JOIN usage_alerts a ON a.alert_id = e.event_id AND a.org_id = e.org_id"
        " WHERE e.org_id = $1 ORDER BY a.occurred_at",
        org,
    )
    assert [row["status"] for row in rows] == ["superseded", "sent", "sent"]


async def test_an_event_that_overtakes_another_takes_its_place_all_the_same(office, org):
    office.world.book.add(org, "u1")
    first, second = office.now - timedelta(hours=2), office.now - timedelta(hours=1)
    await hear_all(office, org, (events.PaymentRecovered(invoice_id="in_1", recovered_at=second), second))
    await office.send()
    await hear_all(office, org, (failed(office, first), first))
    await office.send()
    told = {row["kind"]: row["status"] for row in await office.deliveries(org)}
    assert told == {"payment.recovered": "sent", "payment.failed": "superseded"}


async def test_a_limit_that_is_raised_is_told_of_again(office, org):
    office.world.book.add(org, "u1")
    earlier, later = office.now - timedelta(hours=2), office.now - timedelta(hours=1)
    await hear_all(office, org, (limit(100), earlier), (limit(80), later))
    await office.send()
    assert [row["status"] for row in await office.deliveries(org)] == ["sent", "sent"]


async def test_what_is_too_late_takes_nothings_place(office, org):
    office.world.book.add(org, "u1")
    at = office.now - timedelta(hours=40)
    reminder = REMINDER | {"due_at": at + timedelta(hours=5), "grace_ends_at": office.now + timedelta(days=2)}
    await hear_all(office, org, (failed(office, at), at), (events.PaymentReminderDue.model_validate(reminder), at))
    office.pass_time(hours=2)
    await office.send()
    told = {row["kind"]: row["status"] for row in await office.deliveries(org)}
    assert told == {"payment.failed": "sent", "payment.reminder": "failed"}


@pytest.mark.parametrize("is_digest", [False, True])
@pytest.mark.parametrize("happening", ["left", "erased", "closed", "demoted"])
async def test_who_goes_while_mail_is_on_its_way_gets_none(office, org, user, happening, is_digest):
    office.world.book.add(org, user, "admin")
    event: DomainEvent = {
        "left": events.MemberRemoved(user_id=user),
        "erased": events.UserErased(user_id=user, org_ids=(org,)),
        "closed": events.OrganizationDeleted(),
        "demoted": events.RoleChanged(user_id=user, role="member"),
    }[happening]
    await office.hear(unpriced("m") if is_digest else failed(office, office.now), org)
    office.pass_time(days=1 if is_digest else 0)
    room = replace(office.room, directory=Interrupted(office, lambda: tell_of_people(office, event, org)))
    await send_due(room, asyncio.Event())
    await send_digests(room, asyncio.Event())
    assert office.server.received == []
    assert await office.deliveries(org) == []
    assert await office.said(org) == []


async def test_who_administers_no_more_still_gets_what_is_for_everybody(office, org):
    to = office.world.book.add(org, "u1", "admin")
    await office.hear(limit(), org)
    await office.hear(failed(office, office.now), org)
    office.world.book.add(org, "u1", "member")
    await tell_of_people(office, events.RoleChanged(user_id="u1", role="member"), org)
    await office.send()
    (mail,) = await office.server.has(to)
    assert "80 %" in mail["Subject"]


@pytest.mark.parametrize("is_digest", [False, True])
async def test_who_has_lost_a_claim_leaves_the_mail_to_who_has_it(office, org, is_digest):
    """As when the connection was cut by which a worker shows that it is there."""
    to = office.world.book.add(org, "u1")
    await office.hear(unpriced("m") if is_digest else limit(), org)
    office.pass_time(days=1 if is_digest else 0)

    async def another_takes_it() -> None:
        await office.world.pool.execute(queries.release_mail_of_the_dead)
        await office.send()

    slow = replace(office.room, directory=Interrupted(office, another_takes_it))
    await send_due(slow, asyncio.Event())
    await send_digests(slow, asyncio.Event())
    await office.server.has(to)
    assert len(await office.said(org)) == 1


async def test_suppressed_addresses_stay_so_when_keys_are_rotated(office, org):
    to = office.world.book.add(org, "u1")
    await office.world.ask("POST", "/api/notifications/suppressions", {"email": to})
    rotated = Sealer("a newer key than all of the others, " + "tests-seal-with-this-key-of-forty-bytes!", "notifier")
    office.room = replace(office.room, sealer=rotated)
    await office.hear(limit(), org)
    await office.send()
    assert office.server.received == []
    assert [one.reason for one in await office.said(org)] == ["bounced"]
