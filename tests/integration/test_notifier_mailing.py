"""The queue of mail against a real mail server: who gets what, what is tried again, and what is told instead."""

import asyncio
import json
from contextlib import suppress
from dataclasses import replace

import pytest
import structlog
from mail_server import html_of, text_of
from mailing_world import limit

from aragora.contracts import events
from aragora.contracts.events import PLATFORM, NotificationDelivered, NotificationFailed
from aragora.contracts.ids import new_id
from notifier.mail_schedule import DELAYS
from notifier.mailing import send_due
from notifier.mailroom import CLAIMED_FOR
from notifier.smtp import MailServerAway, Post

NOBODY = "550 5.1.1 No such user"


async def test_each_member_gets_one_mail(office, org):
    owner = office.world.book.add(org, "u1", "owner", org_name='<img src="https://evil.example/x">')
    member = office.world.book.add(org, "u2", "member", name="Bob\r\nBcc: everybody@example.com")
    event_id = await office.hear(limit(90), org)
    await office.hear(limit(90), org, event_id)
    await office.send()
    await office.send()

    (mail,) = await office.server.has(owner)
    assert "90 % of the limit" in mail["Subject"]
    assert "<img src" not in html_of(mail)
    (other,) = await office.server.has(member)
    assert other["Bcc"] is None
    assert len(office.server.received) == 2
    delivered = await office.said(org)
    assert {(one.user_id, one.event_id, one.attempts) for one in delivered} == {
        ("u1", str(event_id), 1),
        ("u2", str(event_id), 1),
    }
    assert all(isinstance(one, NotificationDelivered) and one.channel == "email" for one in delivered)
    assert {row["status"] for row in await office.deliveries(org)} == {"sent"}


async def test_a_letter_is_written_by_what_auth_says_of_it_last(office):
    office.world.book.write("m1", "reset_password", "ada@example.com")
    expires_at = office.world.book.letters["m1"].expires_at
    asked = events.PasswordResetRequested(user_id="u1", message_id="m1", expires_at=expires_at)
    withdrawn = events.PasswordResetRequested(user_id="u1", message_id="m2", expires_at=expires_at)
    await office.hear(asked, PLATFORM)
    await office.hear(withdrawn, PLATFORM)
    await office.send()
    (mail,) = await office.server.has("ada@example.com")
    link = "/letters/reset-password#token=m1.secret-of-this-letter"
    assert link in text_of(mail)
    assert link in html_of(mail)
    assert mail["List-Unsubscribe"] is None
    assert [(row["status"], row["reason"]) for row in await office.deliveries(PLATFORM)] == [
        ("sent", None),
        ("failed", "withdrawn"),
    ]
    assert [getattr(one, "told_instead", None) for one in await office.said(PLATFORM)] == [None, None]


async def test_trouble_is_tried_again_by_the_schedule_and_then_given_up(office, org):
    address = office.world.book.add(org, "u1")
    await office.hear(limit(), org)
    attempts = len(DELAYS) + 1
    office.server.answers[address] = ["450 4.2.0 later"] * attempts
    for number, delay in enumerate(DELAYS, 1):
        begin = office.now
        await office.send()
        (row,) = await office.deliveries(org)
        assert (row["status"], row["attempts"]) == ("pending", number)
        assert begin + delay <= row["send_at"] <= office.now + delay
        office.pass_time(seconds=(row["send_at"] - office.now).total_seconds() - 20)
        await office.send()
        assert (await office.deliveries(org))[0]["attempts"] == number, "not before its time"
        office.pass_time(seconds=20)
    await office.send()
    (row,) = await office.deliveries(org)
    assert (row["status"], row["reason"], row["attempts"]) == ("failed", "gave_up", attempts)
    (failed,) = await office.said(org)
    assert (failed.reason, failed.attempts, failed.told_instead) == ("gave_up", attempts, "log")


async def test_what_was_refused_for_now_is_taken_later(office, org):
    address = office.world.book.add(org, "u1")
    await office.hear(limit(), org)
    office.server.answers[address] = ["450 4.2.0 greylisted"]
    office.server.after_data = ["drop"]
    for _ in range(3):
        await office.send()
        office.pass_time(minutes=3)
    assert len({mail["Message-ID"] for mail in office.server.to(address)}) == 1
    (delivered,) = await office.said(org)
    assert delivered.attempts == 3


async def test_a_bounce_is_told_to_the_webhook_and_the_address_gets_no_more(office, org):
    address = office.world.book.add(org, "u1")
    await office.operator_listens()
    office.server.answers[address] = [NOBODY]
    event_id = await office.hear(limit(), org)
    await office.send()
    (failed,) = await office.said(org)
    assert isinstance(failed, NotificationFailed)
    assert (failed.reason, failed.told_instead, failed.user_id) == ("bounced", "webhook", "u1")
    *_, told = await office.told_operator()
    assert (told["kind"], told["about_org_id"]) == ("notification.undelivered", org)
    fields = json.loads(told["body"])["data"]["fields"]
    assert (fields["kind"], fields["reason"], fields["user_id"]) == ("limit.reached", "bounced", "u1")
    assert fields["event_ids"] == [str(event_id)]
    assert address not in told["body"]

    await office.hear(limit(90), org)
    await office.send()
    assert office.server.to(address) == []
    assert [one.attempts for one in await office.said(org)] == [1, 0]
    answer = await office.world.ask("POST", "/api/notifications/suppressions/release", {"email": address.upper()})
    assert answer.status_code == 200
    await office.hear(limit(100), org)
    await office.send()
    await office.server.has(address)


async def test_what_an_operator_suppresses_gets_nothing(office, org):
    address = office.world.book.add(org, "u1")
    for _ in range(2):
        await office.world.ask("POST", "/api/notifications/suppressions", {"email": address})
    answer = await office.world.ask("POST", "/api/notifications/suppressions", {"email": "no address"})
    assert answer.status_code == 422
    await office.hear(limit(), org)
    await office.send()
    assert office.server.received == []
    assert (await office.said(org))[0].reason == "bounced"


async def test_without_a_webhook_the_log_is_told_and_no_address(office, org):
    address = office.world.book.add(org, "u1")
    office.server.answers[address] = [f"554 5.7.1 {address} we do not like you"]
    await office.hear(limit(), org)
    with structlog.testing.capture_logs() as logged:
        await office.send()
    (told,) = [one for one in logged if one["event"] == "notification_undelivered"]
    assert (told["log_level"], told["kind"], told["user_id"]) == ("warning", "limit.reached", "u1")
    assert told["title"].startswith("80 % of the limit")
    assert address not in str(logged)
    assert (await office.said(org))[0].told_instead == "log"


async def test_nothing_is_lost_while_the_mail_server_is_away(office, org):
    address = office.world.book.add(org, "u1")
    await office.hear(limit(), org)
    office.server.password = "changed"
    for _ in range(20):
        with pytest.raises(MailServerAway):
            await office.send()
        office.pass_time(seconds=40)
    (row,) = await office.deliveries(org)
    assert (row["status"], row["attempts"]) == ("pending", 0)
    office.server.password = office.server.settings["ARAGORA_SMTP_PASSWORD"]
    await office.send()
    await office.server.has(address)


async def test_while_auth_is_away_mail_waits_and_not_for_ever(office, org):
    office.world.book.write("m1", "invitation", "ada@example.com", org_name="Engines")
    letter = events.MemberInvited(
        invitation_id="m1", role="member", invited_by="u1", expires_at=office.now.replace(year=2052)
    )
    await office.hear(letter, org)
    office.world.book.is_away = True
    await office.send()
    assert [(row["status"], row["attempts"]) for row in await office.deliveries(org)] == [("pending", 0)]
    office.pass_time(days=2, minutes=1)
    await office.send()
    assert [(row["status"], row["reason"]) for row in await office.deliveries(org)] == [("failed", "gave_up")]


async def test_whoever_dies_after_the_server_took_it_sends_it_again_under_the_same_id(office, org):
    address = office.world.book.add(org, "u1")
    await office.hear(limit(), org)
    office.server.after_data = ["hang"]
    dying = asyncio.create_task(office.send())
    await office.server.has(address)
    dying.cancel()
    with suppress(asyncio.CancelledError):
        await dying
    await office.send()
    assert len(office.server.received) == 1, "somebody has it for a while"
    office.pass_time(seconds=CLAIMED_FOR.total_seconds())
    await office.send()
    first, second = await office.server.has(address, 2)
    assert first["Message-ID"] == second["Message-ID"]
    assert len(await office.said(org)) == 1


async def test_later_mail_takes_the_place_of_what_still_waits(office, org):
    address = office.world.book.add(org, "u1")
    office.server.answers[address] = ["450 4.2.0 later"]
    await office.hear(limit(80), org)
    await office.send()
    await office.hear(limit(90), org)
    await office.hear(limit(80, meter="api_calls"), org)
    await office.send()
    office.pass_time(minutes=1)
    await office.send()
    assert [row["status"] for row in await office.deliveries(org)] == ["superseded", "sent", "sent"]
    assert len(await office.server.has(address, 2)) == 2


async def test_letters_go_first(office, org):
    for number in range(30):
        office.world.book.add(org, f"u{number}")
    await office.hear(limit(), org)
    office.world.book.write("m1", "reset_password", "ada@example.com")
    expires_at = office.world.book.letters["m1"].expires_at
    await office.hear(events.PasswordResetRequested(user_id="u1", message_id="m1", expires_at=expires_at), PLATFORM)
    await office.send()
    assert office.server.received[0][0] == ["ada@example.com"]


async def test_what_came_too_late_is_not_sent(office, org):
    office.world.book.add(org, "u1")
    await office.hear(limit(), org)
    letter = events.MemberInvited(
        invitation_id=str(new_id()), role="member", invited_by="u1", expires_at=office.now.replace(year=2052)
    )
    await office.hear(letter, org)
    await office.world.pool.execute("UPDATE email_deliveries SET expires_at = $1", office.now)
    await office.send()
    assert office.server.received == []
    instead = {one.kind: (one.reason, one.told_instead) for one in await office.said(org)}
    assert instead == {"limit.reached": ("expired", None), "letter.invitation": ("expired", "log")}


async def test_who_has_left_gets_nothing(office, org):
    office.world.book.add(org, "u1")
    await office.hear(limit(), org)
    del office.world.book.members[org]["u1"]
    office.pass_time(hours=2)
    await office.send()
    assert office.server.received == []
    assert [one.reason for one in await office.said(org)] == ["unreachable"]


async def test_two_senders_share_the_queue(office, org):
    addresses = [office.world.book.add(org, f"u{number}") for number in range(30)]
    await office.hear(limit(), org)
    async with Post(office.world.settings) as other:
        await asyncio.gather(office.send(), send_due(replace(office.room, post=other), asyncio.Event()))
        await office.send()
    assert [len(office.server.to(address)) for address in addresses] == [1] * 30
    assert len(await office.said(org)) == 30
