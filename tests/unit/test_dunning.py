"""Dunning: from what is owed and the time to what follows."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events import (
    GracePeriodExpired,
    PaymentFailed,
    PaymentRecovered,
    PaymentReminderDue,
    PaymentWaived,
)
from billing.dunning import Dunning, Fate, Owed, decide, evolve, reminder_days

BEGIN = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
GRACE = timedelta(days=10)
DAY = timedelta(days=1)


def owed(attempts: int = 1, invoice_id: str = "in_1", since: datetime = BEGIN) -> Owed:
    return Owed(invoice_id, Decimal("299.00"), "usd", attempts, since)


def after(state: Dunning, *events: DomainEvent) -> Dunning:
    return reduce(evolve, events, state)


def days_of(events: Sequence[DomainEvent]) -> list[int]:
    return [event.day for event in events if isinstance(event, PaymentReminderDue)]


def test_a_failure_begins_a_grace_period_and_reminds_at_once():
    failed, reminder = decide(Dunning(), owed(), None, GRACE, BEGIN)
    assert failed == PaymentFailed(
        invoice_id="in_1", attempt=1, amount=Decimal("299.00"), currency="usd", failed_at=BEGIN,
        grace_ends_at=BEGIN + GRACE,
    )  # fmt: skip
    assert isinstance(reminder, PaymentReminderDue)
    assert (reminder.day, reminder.is_last, reminder.due_at) == (0, False, BEGIN)


def test_reminders_come_on_their_days_and_then_the_end():
    state, found = Dunning(), []
    for hours in range(11 * 24):
        now = BEGIN + timedelta(hours=hours)
        events = decide(state, owed(), None, GRACE, now)
        state = after(state, *events)
        found += [(event, now) for event in events]
    said = [(event, (now - BEGIN) / DAY) for event, now in found]
    assert [(type(event).__name__, day) for event, day in said] == [
        ("PaymentFailed", 0), ("PaymentReminderDue", 0), ("PaymentReminderDue", 3), ("PaymentReminderDue", 5),
        ("PaymentReminderDue", 7), ("PaymentReminderDue", 9), ("GracePeriodExpired", 10),
    ]  # fmt: skip
    assert [event.is_last for event, _ in said if isinstance(event, PaymentReminderDue)] == [False] * 4 + [True]
    assert state.expired_at == BEGIN + GRACE
    assert state.due_at is None


def test_who_was_away_makes_up_for_all_of_it_once():
    events = decide(Dunning(), owed(attempts=4), None, GRACE, BEGIN + 30 * DAY)
    assert days_of(events) == [0, 3, 5, 7, 9]
    assert isinstance(events[-1], GracePeriodExpired)
    assert events[-1].expired_at == BEGIN + GRACE
    assert decide(after(Dunning(), *events), owed(attempts=4), None, GRACE, BEGIN + 31 * DAY) == []


def test_another_attempt_is_said_and_changes_no_deadline():
    state = after(Dunning(), *decide(Dunning(), owed(), None, GRACE, BEGIN))
    (failed,) = decide(state, owed(attempts=2), None, timedelta(days=99), BEGIN + DAY)
    assert isinstance(failed, PaymentFailed)
    assert (failed.attempt, failed.grace_ends_at) == (2, BEGIN + GRACE)
    assert after(state, failed).reminded == {0}


@pytest.mark.parametrize(
    ("fate", "kind"),
    [("paid", PaymentRecovered), ("voided", PaymentWaived), ("uncollectible", PaymentWaived), (None, PaymentWaived)],
)
def test_it_ends_when_nothing_is_owed_any_more(fate: Fate | None, kind: type[DomainEvent]):
    state = after(Dunning(), *decide(Dunning(), owed(), None, GRACE, BEGIN))
    (ended,) = decide(state, None, fate, GRACE, BEGIN + DAY)
    assert isinstance(ended, kind)
    assert after(state, ended) == Dunning()


def test_who_pays_after_the_end_has_recovered_too():
    state = after(Dunning(), *decide(Dunning(), owed(), None, GRACE, BEGIN + 11 * DAY))
    (ended,) = decide(state, None, "paid", GRACE, BEGIN + 12 * DAY)
    assert isinstance(ended, PaymentRecovered)


def test_the_next_invoice_begins_anew():
    state = after(Dunning(), *decide(Dunning(), owed(), None, GRACE, BEGIN))
    later = BEGIN + 5 * DAY
    events = decide(state, owed(invoice_id="in_2", since=later), "paid", GRACE, later)
    assert [type(event) for event in events] == [PaymentRecovered, PaymentFailed, PaymentReminderDue]
    assert after(state, *events).ends_at == later + GRACE


@pytest.mark.parametrize(
    ("grace_days", "days"),
    [(1, [0]), (2, [0, 1]), (3, [0, 2]), (6, [0, 3, 5]), (10, [0, 3, 5, 7, 9]), (30, [0, 3, 5, 7, 29])],
)
def test_the_days_follow_from_the_length_of_the_grace_period(grace_days: int, days: list[int]):
    assert reminder_days(grace_days * DAY) == days


@given(
    looks=st.lists(st.tuples(st.integers(0, 15 * 24), st.integers(1, 4)), max_size=12),
    paid_after_hours=st.integers(0, 15 * 24) | st.none(),
)
def test_however_often_and_late_somebody_looks_everything_is_said_once(
    looks: list[tuple[int, int]], paid_after_hours: int | None
):
    state, said = Dunning(), list[DomainEvent]()
    for hours, attempts in sorted(looks):
        is_paid = paid_after_hours is not None and hours >= paid_after_hours
        events = decide(
            state,
            None if is_paid else owed(attempts),
            "paid" if is_paid else None,
            GRACE,
            BEGIN + timedelta(hours=hours),
        )
        state = after(state, *events)
        said += events
    days = days_of(said)
    assert days == sorted(set(days))
    for kind in (GracePeriodExpired, PaymentRecovered):
        assert sum(isinstance(event, kind) for event in said) <= 1
    owing = [hours for hours, _ in looks if paid_after_hours is None or hours < paid_after_hours]
    assert set(days) == {day for day in (0, 3, 5, 7, 9) if owing and max(owing) >= 24 * day}
