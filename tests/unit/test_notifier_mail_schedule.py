"""When mail is tried again, and when no more."""

from datetime import UTC, datetime, timedelta

from notifier.mail_schedule import DELAYS, is_worth_waiting, next_attempt

NOW = datetime(2026, 7, 6, 8, 0, tzinfo=UTC)


def test_mail_is_tried_for_about_two_days_ever_more_rarely():
    attempts, at = 1, NOW
    tried = [at]
    while (again_at := next_attempt(attempts, at)) is not None:
        assert again_at > at
        attempts, at = attempts + 1, again_at
        tried.append(at)
    assert len(tried) == len(DELAYS) + 1
    assert list(DELAYS) == sorted(DELAYS)
    assert DELAYS[0] == timedelta(seconds=30)
    assert timedelta(days=1, hours=20) < tried[-1] - tried[0] <= timedelta(days=2)


def test_what_cannot_be_attempted_waits_for_as_long():
    assert is_worth_waiting("mail", NOW, NOW + timedelta(hours=47))
    assert not is_worth_waiting("mail", NOW, NOW + timedelta(hours=48))
    assert is_worth_waiting("digest", NOW, NOW + timedelta(hours=71)), "it has waited for its hour first"
    assert not is_worth_waiting("digest", NOW, NOW + timedelta(hours=72))
