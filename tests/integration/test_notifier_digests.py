"""Digests against a real mail server: one mail a day with what waited, and none where nothing did."""

import asyncio
from dataclasses import replace

from mail_server import html_of, text_of
from mailing_world import unpriced

from notifier.digests import send_digests
from notifier.rendering import MAX_SHOWN
from notifier.smtp import Post


async def test_what_waits_comes_as_one_mail_a_day(office, org):
    address = office.world.book.add(org, "u1")
    office.world.book.add(org, "u2", "member")
    for model in ("one", "two", "three"):
        await office.hear(unpriced(model), org)
    await office.send()
    assert office.server.received == [], "not before its hour"
    office.pass_time(days=1)
    await office.send()
    await office.send()
    (mail,) = await office.server.has(address)
    assert mail["Subject"].startswith("3 notices for you")
    assert text_of(mail).index("three") < text_of(mail).index("two") < text_of(mail).index("one"), "the newest first"
    assert all(model in html_of(mail) for model in ("one", "two", "three"))
    assert {row["status"] for row in await office.deliveries(org)} == {"sent"}
    assert len(await office.said(org)) == 3
    office.pass_time(days=1)
    await office.send()
    assert len(office.server.received) == 1, "nothing waits: nothing is sent"


async def test_what_was_read_in_the_product_is_left_out(office, org):
    address = office.world.book.add(org, "u1")
    read, by_mark, unread = [await office.hear(unpriced(model), org) for model in ("one", "two", "three")]
    await office.world.pool.execute("INSERT INTO alert_reads VALUES ($1, 'u1', $2, $3)", org, read, office.now)
    await office.world.pool.execute(
        "INSERT INTO alert_marks (org_id, user_id, read_through, read_at)"
        " SELECT $1, 'u1', position, $3 FROM usage_alerts WHERE alert_id = $2",
        org, by_mark, office.now,
    )  # fmt: skip
    office.pass_time(days=1)
    await office.send()
    (mail,) = await office.server.has(address)
    assert mail["Subject"].startswith("1 notice for you")
    status = {row["event_id"]: (row["status"], row["reason"]) for row in await office.deliveries(org)}
    assert status == {read: ("superseded", "read"), by_mark: ("superseded", "read"), unread: ("sent", None)}


async def test_what_somebody_no_longer_wants_by_mail_is_left_out(office, org):
    office.world.book.add(org, "u1")
    await office.hear(unpriced("one"), org)
    await office.world.pool.execute(
        "INSERT INTO notification_preferences (org_id, user_id, kind, email, changed_at)"
        " VALUES ($1, 'u1', 'usage.unpriced', 'off', $2)",
        org, office.now,
    )  # fmt: skip
    office.pass_time(days=1)
    await office.send()
    assert office.server.received == []
    assert [(row["status"], row["reason"]) for row in await office.deliveries(org)] == [("superseded", "unsubscribed")]


async def test_who_has_read_everything_gets_no_mail(office, org):
    office.world.book.add(org, "u1")
    read = await office.hear(unpriced("one"), org)
    await office.world.pool.execute("INSERT INTO alert_reads VALUES ($1, 'u1', $2, $3)", org, read, office.now)
    office.pass_time(days=1)
    await office.send()
    assert office.server.received == []
    assert await office.said(org) == []
    assert [row["status"] for row in await office.deliveries(org)] == ["superseded"]


async def test_a_digest_is_tried_again_under_the_same_id_and_holds_a_screenful(office, org):
    address = office.world.book.add(org, "u1")
    for number in range(MAX_SHOWN + 12):
        await office.hear(unpriced(f"m{number}"), org)
    office.pass_time(days=1)
    office.server.after_data = ["451 4.3.0 later"]
    await office.send()
    assert {(row["status"], row["attempts"]) for row in await office.deliveries(org)} == {("pending", 1)}
    office.pass_time(minutes=1)
    await office.send()
    first, second = await office.server.has(address, 2)
    assert first["Message-ID"] == second["Message-ID"]
    assert "and 12 more" in text_of(second)
    assert {one.attempts for one in await office.said(org)} == {2}


async def test_a_digest_that_bounces_is_told_to_the_operator_once(office, org):
    address = office.world.book.add(org, "u1")
    await office.operator_listens(types=("notification.undelivered",))
    for model in ("one", "two"):
        await office.hear(unpriced(model), org)
    office.server.answers[address] = ["550 5.1.1 nobody"]
    office.pass_time(days=1)
    await office.send()
    (told,) = await office.told_operator()
    assert told["kind"] == "notification.undelivered"
    assert [(one.reason, one.told_instead) for one in await office.said(org)] == [("bounced", "webhook")] * 2


async def test_workers_do_not_share_out_one_persons_digest(office, org):
    addresses = [office.world.book.add(org, f"u{number}", "admin") for number in range(4)]
    for model in ("one", "two", "three"):
        await office.hear(unpriced(model), org)
    office.pass_time(days=1)
    async with Post(office.world.settings) as other:
        await asyncio.gather(office.send(), send_digests(replace(office.room, post=other), asyncio.Event()))
    for address in addresses:
        (mail,) = await office.server.has(address)
        assert mail["Subject"].startswith("3 notices for you")
