"""Whoever has left or was erased stays forgotten, whatever comes late: events, answers of auth, old links."""

import asyncio
from datetime import timedelta

import msgspec
import pytest
import servers
from mailing_world import MailingWorld, limit
from one_service import token

from aragora.contracts import events
from aragora.contracts.contacts import Contacts
from aragora.contracts.envelope import DomainEvent, envelope
from aragora.contracts.events import PLATFORM
from notifier import handlers, people, queueing
from notifier.directory import Answer, Directory
from notifier.unsubscribing import Subscription


async def tell_of_people(office: MailingWorld, event: DomainEvent, org: str, **earlier: float) -> None:
    now = office.now - timedelta(**earlier)
    message = envelope(event, org_id=org, occurred_at=now, correlation_id="told").to_json()
    await handlers.follow_people(office.world.pool, [message], now)


class Late(Directory):
    """Auth's answers, each of which was true before something happened."""

    def __init__(self, office: MailingWorld, event: DomainEvent, org: str) -> None:
        super().__init__(office.world.pool, office.world.bus, office.world.sealer)
        self._happening = (office, event, org)

    async def _ask(self, subject: str, question: msgspec.Struct, answer: type[Answer]) -> Answer:
        found = await super()._ask(subject, question, answer)
        if answer is Contacts:
            await tell_of_people(*self._happening)
        return found


async def kept_of(office: MailingWorld, org: str) -> list[str]:
    return [row["user_id"] for row in await office.world.rows("SELECT user_id FROM contacts WHERE org_id = $1", org)]


@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize("happening", ["left", "erased", "closed"])
async def test_a_late_answer_brings_nobody_back(office, org, user, happening, is_known):
    office.world.book.add(org, user)
    event: DomainEvent = {
        "left": events.MemberRemoved(user_id=user),
        "erased": events.UserErased(user_id=user, org_ids=(org,)),
        "closed": events.OrganizationDeleted(),
    }[happening]
    if is_known:
        await office.room.directory.people(org, office.now)
        office.pass_time(hours=2)
    await Late(office, event, org).people(org, office.now)
    assert await kept_of(office, org) == []
    if happening == "closed":
        rows = await office.world.rows("SELECT name FROM directories WHERE org_id = $1", org)
        assert [row["name"] for row in rows] == [None]


async def test_an_answer_that_is_written_down_waits_for_who_erases(office, org, user):
    office.world.book.add(org, user)
    async with office.world.pool.acquire() as connection, connection.transaction():
        await queueing.wait_for_turn(connection)
        await people.erase(connection, user, office.now)
        asking = asyncio.create_task(office.room.directory.people(org, office.now))
        waits = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

        async def has_to_wait() -> bool:
            return asking.done() or bool(await office.world.rows(waits))

        await servers.eventually(has_to_wait, 10, what="the answer to wait")
    await asking
    assert await kept_of(office, org) == []


async def test_what_changed_is_asked_for_although_the_clock_of_who_hears_it_is_late(office, org):
    office.world.book.add(org, "u1")
    await office.room.directory.people(org, office.now)
    await tell_of_people(office, events.MemberJoined(user_id="u2", role="member"), org, minutes=1)
    office.world.book.add(org, "u2", "member")
    found = await office.room.directory.people(org, office.now)
    assert [one.user_id for one in found.members] == ["u1", "u2"]


async def test_what_comes_late_about_who_was_erased_names_nobody(office, org, user):
    office.world.book.add(org, "u1")
    await tell_of_people(office, events.UserErased(user_id=user, org_ids=(org,)), PLATFORM)
    await office.hear(events.PasswordChanged(user_id=user, how="reset"), PLATFORM)
    letter = events.EmailVerificationRequested(
        user_id=user, message_id="m1", expires_at=office.now + timedelta(hours=1)
    )
    await office.hear(letter, PLATFORM)
    await office.hear(limit().model_copy(update={"user_id": user}), org)
    assert await office.world.rows("SELECT FROM usage_alerts WHERE user_id = $1", user) == []
    assert await office.world.rows("SELECT FROM email_deliveries WHERE user_id = $1", user) == []
    told = await office.world.rows("SELECT user_id FROM usage_alerts WHERE org_id = $1", org)
    assert [row["user_id"] for row in told] == [""], "the organization is told, and not of whom"
    await office.send()
    await office.server.has("u1@example.com")


async def test_a_token_that_still_counts_leaves_nothing_of_who_was_erased(office, org, user):
    office.world.book.add(org, user)
    alert_id = await office.hear(limit(), org)
    await tell_of_people(office, events.UserErased(user_id=user, org_ids=(org,)), PLATFORM)
    credential = token(user, org)
    for method, path, body in (
        ("PUT", "/api/notifications/preferences", {"kinds": {"limit.reached": {"email": "off"}}}),
        ("POST", f"/api/subscription/alerts/{alert_id}/mark-read", None),
        ("POST", f"/api/subscription/alerts/{user}/mark-all-read", None),
    ):
        answer = await office.world.ask(method, path, body, key=credential)
        assert answer.status_code == 200
    for table in ("notification_preferences", "alert_reads", "alert_marks"):
        assert await office.world.rows(f"SELECT FROM {table} WHERE user_id = $1", user) == []


async def test_an_old_link_leaves_nothing_of_who_has_gone(office, org, user):
    office.world.book.add(org, user)
    await office.room.directory.people(org, office.now)
    await tell_of_people(office, events.UserErased(user_id=user, org_ids=(org,)), PLATFORM)
    link = Subscription(org, user, "limit.reached").token(office.world.sealer)
    answer = await office.world.client.post(f"/api/notifications/unsubscribe/{link}")
    assert answer.status_code == 200
    assert await office.world.rows("SELECT FROM notification_preferences WHERE user_id = $1", user) == []
