"""From an alert to mail: who gets it, what auth is asked, and what happens while auth is away."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from phone_book import PhoneBook

from aragora.chassis.sealing import Sealer
from aragora.chassis.sql import Pool
from aragora.contracts.envelope import DomainEvent, envelope
from aragora.contracts.events import (
    PLATFORM,
    AccountLocked,
    EmailVerified,
    InvoiceFinalized,
    LimitReached,
    MemberJoined,
    MemberRemoved,
    OrganizationDeleted,
    PaymentFailed,
    UnpricedUsageSeen,
)
from aragora.contracts.ids import new_id
from aragora_nats.connecting import connect_once
from notifier import handlers
from notifier.addressing import address
from notifier.directory import FRESH, AuthAway, Directory
from notifier.domain import MAX_MAILS

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
SEALER = Sealer("of nobody " * 4, "notifier")


@dataclass
class Desk:
    """The notifier's queues, and auth's answers."""

    pool: Pool
    book: PhoneBook
    directory: Directory

    async def hear(self, event: DomainEvent, org_id: str, at: datetime = NOW) -> None:
        message = envelope(event, org_id=org_id, occurred_at=at, correlation_id="test").to_json()
        follow = handlers.follow_people if event.type_name in FOLLOWED else handlers.follow
        await follow(self.pool, [message], at)

    async def address(self, at: datetime = NOW) -> int:
        return await address(self.pool, self.directory, at, 8)

    async def mail(self) -> dict[tuple[str | None, str], Any]:
        rows = await self.pool.fetch("SELECT user_id, kind, mode, send_at FROM email_deliveries ORDER BY delivery_id")
        return {(row["user_id"], row["kind"]): (row["mode"], row["send_at"]) for row in rows}


FOLLOWED = {event.type_name for event in (MemberJoined, MemberRemoved, OrganizationDeleted, EmailVerified)}


@pytest.fixture
async def desk(notifier_database_url: str, nats_url: str) -> AsyncIterator[Desk]:
    bus, book = await connect_once(nats_url), PhoneBook()
    await book.answer_on(bus)
    async with asyncpg.create_pool(notifier_database_url, min_size=1, max_size=4) as pool:
        yield Desk(pool, book, Directory(pool, bus, SEALER))
    await bus.close()


def limit(meter: str = "debates") -> LimitReached:
    return LimitReached.model_validate({
        "meter": meter, "threshold_percent": 80, "month": "2026-06", "used": 80, "limit": 100,
        "resets_at": "2026-07-01T00:00:00Z",
    })  # fmt: skip


def invoice() -> InvoiceFinalized:
    return InvoiceFinalized.model_validate({
        "invoice_id": "in_1", "number": "A-1", "collected_by": "stripe", "total": "29", "amount_due": "29",
        "currency": "usd", "finalized_at": NOW,
    })  # fmt: skip


async def test_everybody_whom_it_is_for_gets_one_mail(desk: Desk, org: str):
    desk.book.add(org, "owner")
    desk.book.add(org, "admin", "admin")
    desk.book.add(org, "member", "member")
    desk.book.add(org, "unshown", "member", verified=False)
    await desk.hear(limit(), org)
    await desk.hear(invoice(), org)
    assert await desk.address() == 2
    assert await desk.address() == 0
    mail = await desk.mail()
    assert mail.keys() == {
        ("owner", "limit.reached"), ("admin", "limit.reached"), ("member", "limit.reached"),
        ("owner", "invoice.finalized"), ("admin", "invoice.finalized"),
    }  # fmt: skip
    assert set(mail.values()) == {("mail", NOW)}
    assert desk.book.asked == 1


async def test_what_can_wait_goes_into_the_next_digest(desk: Desk, org: str):
    desk.book.add(org, "owner")
    said = UnpricedUsageSeen(month="2026-06", provider="new", model="m", reason="unknown", first_event_id="e")
    await desk.hear(said, org)
    await desk.address()
    assert await desk.mail() == {("owner", "usage.unpriced"): ("digest", datetime(2026, 6, 16, 8, tzinfo=UTC))}


async def test_whoever_gets_many_gets_the_rest_with_the_digest(desk: Desk, org: str):
    desk.book.add(org, "owner")
    for number in range(MAX_MAILS - 2):
        await desk.hear(limit(f"first_{number}"), org)
    await desk.address()
    for number in range(4):
        await desk.hear(limit(f"second_{number}"), org)
    await desk.address()
    modes = [row["mode"] for row in await desk.pool.fetch("SELECT mode FROM email_deliveries")]
    assert sorted(modes) == ["digest"] * 2 + ["mail"] * MAX_MAILS
    await desk.hear(limit("later"), org, NOW + timedelta(hours=2))
    await desk.address(NOW + timedelta(hours=2))
    modes = [row["mode"] for row in await desk.pool.fetch("SELECT mode FROM email_deliveries")]
    assert modes.count("mail") == MAX_MAILS + 1


async def test_choices_count(desk: Desk, org: str):
    desk.book.add(org, "owner")
    desk.book.add(org, "admin", "admin")
    add = "INSERT INTO notification_preferences VALUES ($1, $2, $3, $4, NULL, now())"
    await desk.pool.execute(add, org, "", "limit.reached", "digest")
    await desk.pool.execute(add, org, "owner", "limit.reached", "off")
    await desk.hear(limit(), org)
    await desk.address()
    assert {key: mode for key, (mode, _) in (await desk.mail()).items()} == {("admin", "limit.reached"): "digest"}


async def test_a_person_is_told_of_their_account_whatever_auth_says(desk: Desk):
    desk.book.is_away = True
    await desk.hear(AccountLocked(user_id="user_1", failures=5, until=NOW + timedelta(minutes=1)), PLATFORM)
    await desk.address()
    assert (await desk.mail()).keys() == {("user_1", "account.locked")}


async def test_while_auth_is_away_alerts_wait_and_none_is_lost(desk: Desk, org: str):
    desk.book.add(org, "owner")
    desk.book.is_away = True
    await desk.hear(limit(), org)
    assert await desk.address() == 1
    assert await desk.mail() == {}
    desk.book.is_away = False
    assert await desk.address(NOW + timedelta(seconds=59)) == 0
    assert await desk.address(NOW + timedelta(seconds=61)) == 1
    assert (await desk.mail()).keys() == {("owner", "limit.reached")}


async def test_an_earlier_copy_counts_while_auth_is_away_without_who_has_left(desk: Desk, org: str):
    desk.book.add(org, "owner")
    desk.book.add(org, "left", "admin")
    found = await desk.directory.people(org, NOW)
    assert found is not None
    assert {one.user_id for one in found.members} == {"owner", "left"}
    await desk.hear(MemberRemoved(user_id="left"), org)
    desk.book.is_away = True
    kept = await desk.directory.people(org, NOW + timedelta(seconds=1))
    assert kept is not None
    assert [(one.user_id, one.email, one.role) for one in kept.members] == [("owner", "owner@example.com", "owner")]
    assert kept.org_name == "Ada's Engines"
    with pytest.raises(AuthAway):
        await desk.directory.people("org_unknown", NOW)


async def test_a_large_organization_is_told_in_several_answers(desk: Desk, org: str):
    desk.book.told_at_once = 3
    names = [f"u{number}" for number in range(6)]
    for name in names:
        desk.book.add(org, name)
    for _ in range(2):
        found = await desk.directory.people(org, NOW)
        assert found is not None
        assert [one.user_id for one in found.members] == names
    assert desk.book.asked == 3


async def test_auth_is_asked_again_after_a_change_and_after_an_hour(desk: Desk, org: str, user: str):
    desk.book.add(org, user, verified=False)
    await desk.directory.people(org, NOW)
    await desk.directory.people(org, NOW + FRESH)
    assert desk.book.asked == 1
    await desk.directory.people(org, NOW + FRESH + timedelta(seconds=1))
    assert desk.book.asked == 2
    later = NOW + FRESH + timedelta(minutes=1)
    desk.book.add(org, user, verified=True)
    await desk.hear(EmailVerified(user_id=user), PLATFORM, later)
    found = await desk.directory.people(org, later + timedelta(seconds=1))
    assert found is not None
    assert found.members[0].verified
    await desk.hear(MemberJoined(user_id="new", role="member"), org, later + timedelta(minutes=1))
    await desk.directory.people(org, later + timedelta(minutes=2))
    assert desk.book.asked == 4


async def test_names_and_addresses_cannot_be_read_in_the_database(desk: Desk, org: str):
    desk.book.add(org, "owner", email="ada@example.com", name="Ada Lovelace", org_name="Ada's Engines")
    await desk.directory.people(org, NOW)
    kept = str(await desk.pool.fetch("SELECT c, d FROM contacts c JOIN directories d ON d.org_id = c.org_id"))
    assert not [word for word in ("ada@", "Ada", "Lovelace", "Engines") if word in kept]


async def test_nobody_is_mailed_for_a_closed_organization(desk: Desk, org: str):
    desk.book.add(org, "owner")
    await desk.hear(limit(), org)
    await desk.hear(OrganizationDeleted(), org)
    await desk.hear(limit("other"), org)
    await desk.address()
    assert await desk.mail() == {}
    assert await desk.pool.fetchval("SELECT count(*) FROM unaddressed_alerts") == 0


async def test_of_long_ago_nobody_is_mailed(desk: Desk, org: str):
    desk.book.add(org, "owner")
    failed = PaymentFailed.model_validate({
        "invoice_id": "in_1", "attempt": 1, "amount": "29", "currency": "usd", "failed_at": NOW,
        "grace_ends_at": NOW + timedelta(days=10),
    })  # fmt: skip
    await desk.hear(failed, org)
    await desk.address(NOW + timedelta(days=3, seconds=1))
    assert await desk.mail() == {}
    assert await desk.pool.fetchval("SELECT count(*) FROM usage_alerts") == 1


async def test_many_organizations_at_once(desk: Desk):
    orgs = [f"org_{new_id().hex}" for _ in range(30)]
    for org in orgs:
        desk.book.add(org, f"owner_of_{org}")
        await desk.hear(limit(), org)
    assert await desk.address() == 30
    assert len(await desk.mail()) == 30
