from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from aragora.chassis import dead_letters, inbox
from aragora.chassis.dead_letters import Letter
from aragora.chassis.migrate import migrate
from aragora.contracts.ids import new_id

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LETTER = Letter(
    subject="usage.recorded.1",
    payload=b"\x00\xff{",
    reason="not JSON",
    org_id="o1",
    field="tokens_in",
    source_stream="USAGE",
    source_sequence=7,
)


@pytest.fixture
async def conn(empty_database_url):
    connection = await asyncpg.connect(empty_database_url)
    await migrate(connection)
    yield connection
    await connection.close()


async def test_a_letter_is_kept_as_it_came(conn):
    assert await dead_letters.record(conn, [LETTER]) == 1
    (kept,) = await dead_letters.page(conn)
    assert kept == await dead_letters.fetch(conn, kept.id)
    assert all(getattr(kept, name) == getattr(LETTER, name) for name in Letter.__slots__)
    assert (kept.status, kept.resolved_at, kept.resolved_by) == ("open", None, None)
    assert await dead_letters.fetch(conn, new_id()) is None


async def test_the_same_message_again_adds_nothing(conn):
    assert await dead_letters.record(conn, [LETTER, LETTER]) == 1
    assert await dead_letters.record(conn, [LETTER]) == 0
    assert await dead_letters.record(conn, []) == 0
    assert len(await dead_letters.page(conn)) == 1


async def test_two_subjects_or_payloads_are_two_letters(conn):
    letters = [Letter(subject=s, payload=p, reason="r") for s, p in [("a", b"bc"), ("ab", b"c"), ("a", b"b")]]
    assert await dead_letters.record(conn, letters) == 3


async def test_a_retried_letter_that_fails_again_is_open_again_and_a_discarded_one_is_not(conn):
    await dead_letters.record(conn, [LETTER])
    (kept,) = await dead_letters.page(conn)
    assert await dead_letters.resolve(conn, kept.id, "retried", at=NOW, by="ops")
    assert await dead_letters.page(conn) == []
    (retried,) = await dead_letters.page(conn, status="retried")
    assert (retried.resolved_at, retried.resolved_by) == (NOW, "ops")
    assert not await dead_letters.resolve(conn, kept.id, "discarded", at=NOW, by="ops")
    assert await dead_letters.record(conn, [LETTER]) == 1
    (again,) = await dead_letters.page(conn)
    assert (again.id, again.attempts, again.resolved_at) == (kept.id, 2, None)
    assert await dead_letters.resolve(conn, kept.id, "discarded", at=NOW, by="ops")
    assert await dead_letters.record(conn, [LETTER]) == 0
    let_go = await dead_letters.fetch(conn, kept.id)
    assert let_go
    assert let_go.status == "discarded"


async def test_pages_go_from_the_newest_on_and_can_be_filtered(conn):
    for number in range(7):
        org_id = "o1" if number % 2 else "o2"
        await dead_letters.record(conn, [Letter(subject="s", payload=b"%d" % number, reason="r", org_id=org_id)])
    first = await dead_letters.page(conn, limit=3)
    second = await dead_letters.page(conn, limit=9, before=first[-1].id)
    assert [letter.payload for letter in first + second] == [b"6", b"5", b"4", b"3", b"2", b"1", b"0"]
    assert [letter.payload for letter in await dead_letters.page(conn, org_id="o1", status=None)] == [b"5", b"3", b"1"]


async def test_a_reason_that_postgres_could_not_keep_is_kept_readable(conn):
    await dead_letters.record(conn, [Letter(subject="s", payload=b"", reason="a\0b\ud800", org_id="\0")])
    (kept,) = await dead_letters.page(conn)
    assert (kept.reason, kept.org_id) == ("a\\0b\\ud800", "\\0")


async def test_the_inbox_knows_what_each_consumer_has_seen(conn):
    event_id = new_id()
    assert await inbox.first_time(conn, "notifier", event_id)
    assert not await inbox.first_time(conn, "notifier", str(event_id))
    assert await inbox.first_time(conn, "billing", event_id)
    await inbox.forget_before(conn, datetime.now(UTC) - timedelta(days=1))
    assert not await inbox.first_time(conn, "notifier", event_id)
    await inbox.forget_before(conn, datetime.now(UTC) + timedelta(days=1))
    assert await inbox.first_time(conn, "notifier", event_id)


async def test_what_a_rolled_back_handler_has_seen_is_not_seen(conn):
    event_id = new_id()
    failing = conn.transaction()
    await failing.start()
    assert await inbox.first_time(conn, "notifier", event_id)
    await failing.rollback()
    assert await inbox.first_time(conn, "notifier", event_id)
