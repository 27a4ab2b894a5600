"""When a message is tried again and given up, and when an endpoint is."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from notifier import schedule
from notifier.schedule import WELL, Failed, Stretch, after_failure

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def failing(
    stretch: Stretch,
    now: datetime,
    *,
    due_at: datetime = NOW,
    status_code: int | None = 500,
    retry_after: str | None = None,
) -> Failed:
    return after_failure(stretch, now, due_at=due_at, status_code=status_code, retry_after=retry_after)


def test_a_dead_endpoint_from_its_first_failure_to_its_end():
    stretch, now = WELL, NOW
    waits: list[timedelta] = []
    story: dict[str, float] = {}
    while "disabled" not in story:
        failed = failing(stretch, now)
        waits.append(failed.next_attempt_at - now)
        for what, happens in (("warned", failed.warns), ("given up", failed.gives_up), ("disabled", failed.disables)):
            if happens:
                story.setdefault(what, round((now - NOW) / timedelta(hours=1), 1))
        stretch, now = failed.stretch, failed.next_attempt_at
    assert waits[:9] == [
        timedelta(**wait)
        for wait in (
            {"seconds": 5}, {"minutes": 5}, {"minutes": 30}, {"hours": 2}, {"hours": 5}, {"hours": 10}, {"hours": 14},
            {"hours": 20}, {"hours": 24},
        )
    ]  # fmt: skip
    assert story == {"warned": 2.6, "given up": 75.6, "disabled": 120.0}


def test_a_message_is_given_up_after_the_schedule_and_the_next_one_is_soon_tried():
    stretch, ends = Stretch(9, NOW, NOW), NOW + schedule.GIVEN_UP_AFTER
    assert timedelta(hours=75) < schedule.GIVEN_UP_AFTER < timedelta(hours=77)
    assert not failing(stretch, ends - timedelta(seconds=1)).gives_up
    failed = failing(stretch, ends)
    assert failed.gives_up
    assert failed.next_attempt_at == ends + timedelta(minutes=5)
    # The one behind it came an hour later.
    behind = failing(failed.stretch, failed.next_attempt_at, due_at=NOW + timedelta(hours=1))
    assert not behind.gives_up
    assert behind.next_attempt_at == failed.next_attempt_at + timedelta(days=1)


def test_one_warning_for_each_stretch():
    first = failing(WELL, NOW)
    warned = failing(first.stretch, NOW + timedelta(hours=1))
    again = failing(warned.stretch, NOW + timedelta(hours=30))
    assert (first.warns, warned.warns, again.warns) == (False, True, False)
    assert again.stretch == Stretch(3, NOW, NOW + timedelta(hours=1))
    anew = failing(WELL, NOW + timedelta(hours=40))
    assert failing(anew.stretch, NOW + timedelta(hours=42)).warns


def test_who_is_gone_is_disabled_at_once_unless_it_is_never_given_up():
    assert failing(WELL, NOW, status_code=410).disables == "gone"
    forever = after_failure(
        Stretch(9, NOW, None), NOW + timedelta(days=9), due_at=NOW, status_code=410, retry_after=None, may_disable=False
    )
    assert forever.disables is None
    assert forever.warns


@pytest.mark.parametrize(
    ("status", "asked", "seconds"),
    [
        (429, "60", 60), (503, "3600", 3600), (503, "1", 5), (429, "9" * 40, 86_400), (503, " 120 ", 120),
        (503, format_datetime(NOW + timedelta(minutes=10), usegmt=True), 600), (429, "soon", 5), (429, "-5", 5),
        (429, "", 5), (429, None, 5), (500, "60", 5), (200, "60", 5), (503, "٣٠٠", 5),
        (503, format_datetime(NOW - timedelta(days=10), usegmt=True), 5), (503, "Fri, 01 May 2026 12:10:00", 600),
        (503, "Fri, 99 May 99999 12:10:00 GMT", 5),
    ],
)  # fmt: skip
def test_who_asks_for_more_time_gets_a_day_at_most(status: int, asked: str | None, seconds: int):
    assert failing(WELL, NOW, status_code=status, retry_after=asked).next_attempt_at == NOW + timedelta(seconds=seconds)


def test_only_the_two_hundreds_are_success():
    assert [code for code in (None, 100, 199, 200, 204, 299, 300, 301, 307, 404, 500) if schedule.is_success(code)] == [
        200, 204, 299,
    ]  # fmt: skip
