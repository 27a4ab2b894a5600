"""Where no mail server is configured: what mail would say goes to the operator's webhook, else to the log."""

from collections.abc import AsyncIterator

import pytest
import structlog
from mailing_world import MailingWorld, limit, mailing_world, unpriced

from aragora.contracts import events
from aragora.contracts.events import PLATFORM


@pytest.fixture(scope="module")
async def running(postgres_server, notifier_template, nats_server) -> AsyncIterator[MailingWorld]:
    async with mailing_world(postgres_server, notifier_template, nats_server, has_server=False) as found:
        yield found


@pytest.fixture
async def office(running: MailingWorld) -> MailingWorld:
    await running.begin_anew()
    return running


async def ask_for_a_password(office: MailingWorld) -> None:
    expires_at = office.now.replace(year=2052)
    letter = events.PasswordResetRequested(user_id="u1", message_id="m1", expires_at=expires_at)
    await office.hear(letter, PLATFORM)


async def test_the_webhook_is_not_told_again_of_what_it_is_told_anyway(office, org):
    for user_id in ("u1", "u2"):
        office.world.book.add(org, user_id)
    await office.operator_listens()
    await office.hear(limit(), org)
    await office.send()
    assert [(one.reason, one.told_instead) for one in await office.said(org)] == [("not_configured", "webhook")] * 2
    assert [row["kind"] for row in await office.told_operator()] == ["limit.reached"]


async def test_the_webhook_is_told_of_letters_and_not_what_they_say(office):
    await office.operator_listens()
    await ask_for_a_password(office)
    await office.send()
    (told,) = await office.told_operator()
    assert told["kind"] == "notification.undelivered"
    assert "letter.reset_password" in told["body"]
    assert "secret-of-this-letter" not in told["body"]
    assert [one.told_instead for one in await office.said(PLATFORM)] == ["webhook"]


@pytest.mark.parametrize("webhook", ["none", "disabled", "chose otherwise"])
async def test_without_a_webhook_it_is_the_log(office, org, webhook):
    if webhook != "none":
        types = ("payment.failed",) if webhook == "chose otherwise" else ()
        await office.operator_listens("disabled" if webhook == "disabled" else "enabled", types)
    office.world.book.add(org, "u1")
    await office.hear(limit(), org)
    await ask_for_a_password(office)
    with structlog.testing.capture_logs() as logged:
        await office.send()
    told = [(one["kind"], one["log_level"]) for one in logged if one["event"] == "notification_undelivered"]
    assert sorted(told) == [("letter.reset_password", "warning"), ("limit.reached", "warning")]
    assert [one.told_instead for one in await office.said(org)] == ["log"]


async def test_digests_make_no_noise(office, org):
    office.world.book.add(org, "u1")
    await office.hear(unpriced("one"), org)
    await office.hear(unpriced("two"), org)
    office.pass_time(days=1)
    with structlog.testing.capture_logs() as logged:
        await office.send()
    assert [one["log_level"] for one in logged] == ["debug"]
    assert [(one.reason, one.told_instead) for one in await office.said(org)] == [("not_configured", "log")] * 2
