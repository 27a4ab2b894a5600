"""Pages of the audit log."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from aragora.contracts.ids import new_id
from auth import audit_reading

NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)


def row(**fields: Any) -> Any:
    """As the database gives it."""
    return {
        "event_id": new_id(),
        "occurred_at": NOON,
        "action": "member_removed",
        "actor": "ann",
        "user_id": "bob",
        "org_id": "org",
        "succeeded": True,
        "address": "192.0.2.1",
        "program": "browser",
        "detail": '{"reason": "left"}',
    } | fields


@pytest.mark.parametrize(
    ("actor", "reader", "shown"),
    [
        ("ann", None, True),  # an administrator reads
        ("ann", "ann", True),
        ("bob", "bob", True),
        (None, "bob", True),  # somebody tried to sign in as them
        ("ann", "bob", False),
        ("service:cli", "bob", False),
    ],
)
def test_where_others_were_is_not_for_the_person_to_know(actor: str | None, reader: str | None, *, shown: bool):
    entry = audit_reading.entry(row(actor=actor), reader)
    assert (entry.address, entry.program) == (("192.0.2.1", "browser") if shown else (None, None))
    assert (entry.actor, entry.user_id, entry.detail) == (actor, "bob", {"reason": "left"})


@pytest.mark.parametrize(("found", "more"), [(0, False), (1, False), (2, False), (3, True)])
def test_a_page_says_whether_there_is_another(found: int, *, more: bool):
    rows = [row() for _ in range(found)]
    page = audit_reading.page(rows, 2)
    assert [entry.id for entry in page.entries] == [str(one["event_id"]) for one in rows[:2]]
    assert (page.next_cursor is not None) is more
    if page.next_cursor is not None:
        assert audit_reading.read_cursor(page.next_cursor) == rows[1]["event_id"]


@pytest.mark.parametrize(
    "cursor", ["", "a", "ä", "AAAA", "A" * 24, "A" * 23 + "=", "=" * 24, "A" * 22 + "= ", str(UUID(int=0)), "\0" * 24]
)
def test_a_cursor_that_nobody_gave_is_refused(cursor: str):
    with pytest.raises(ValueError):  # noqa: PT011 - whatever the decoding says
        audit_reading.read_cursor(cursor)


def test_every_cursor_is_read_back():
    for number in (0, 1, 2**128 - 1):
        assert audit_reading.read_cursor(audit_reading.cursor_after(UUID(int=number))) == UUID(int=number)
