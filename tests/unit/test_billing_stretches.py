"""What was in force when, from the events of a subscription."""

from datetime import UTC, datetime
from itertools import pairwise

from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events import SubscriptionChanged, SubscriptionStarted
from billing.stretches import Stretch, day_in_words, name_of_month, next_month, span_of, stretches
from billing.subscription import Sold


def day(number: int, month: int = 10) -> datetime:
    return datetime(2026, month, number, tzinfo=UTC)


def changed(plan: str, at: datetime, reason: str = "operator", **more) -> tuple[datetime, SubscriptionChanged]:
    told_at = more.pop("told_at", at)
    event = SubscriptionChanged(
        from_plan="free", from_version=1, plan=plan, plan_version=1, effective_at=at, reason=reason, **more
    )
    return told_at, event


BEGIN = (day(1, 9), SubscriptionStarted(plan="free", plan_version=1))
OCTOBER = span_of("2026-10")


def of(*history: tuple[datetime, DomainEvent]) -> list[tuple[int, int, str, str | None, bool]]:
    found = stretches([BEGIN, *history], *OCTOBER)
    assert all(one.end == other.start for one, other in pairwise(found))
    return [(one.start.day, one.end.day, one.sold.plan, one.paid_by, one.is_free) for one in found]


def test_a_month_in_which_nothing_happened():
    assert stretches([BEGIN], *OCTOBER) == [Stretch(*OCTOBER, Sold("free", 1))]
    assert stretches([], *OCTOBER) == []
    assert stretches([(day(5, 11), BEGIN[1])], *OCTOBER) == []


def test_what_began_and_ended_within_it():
    assert of(changed("team", day(10)), changed("free", day(20), "cancelled")) == [
        (1, 10, "free", None, False), (10, 20, "team", None, False), (20, 1, "free", None, False),
    ]  # fmt: skip
    assert stretches([(day(5), BEGIN[1])], *OCTOBER)[0].start == day(5)


def test_what_ended_by_itself_ended_as_of_its_moment():
    trial = changed("team", day(3), trial_ends_at=day(17))
    ended = changed("free", day(17), "trial_ended", told_at=day(4, 11))
    assert of(trial, ended) == [(1, 3, "free", None, False), (3, 17, "team", None, True), (17, 1, "free", None, False)]


def test_what_is_comped_is_free_and_what_stripe_pays_for_is_paid():
    history = [
        changed("team", day(5), "comp"),
        changed("team", day(9), "paid", payment_reference="sub_1"),
        changed("big", day(20), "paid", payment_reference="sub_1"),
    ]
    assert of(*history)[1:] == [(5, 9, "team", None, True), (9, 20, "team", "sub_1", False),
                                (20, 1, "big", "sub_1", False)]  # fmt: skip


def test_what_is_only_announced_changes_nothing_yet():
    announced = changed("team", day(1, 11), "chosen", told_at=day(12), at_period_end=True)
    assert of(announced) == [(1, 1, "free", None, False)]


def test_a_clock_that_was_set_back_leaves_no_gap():
    assert of(changed("team", day(20)), changed("big", day(18))) == [
        (1, 20, "free", None, False), (20, 1, "big", None, False),
    ]  # fmt: skip


def test_months():
    assert span_of("2028-02") == (datetime(2028, 2, 1, tzinfo=UTC), datetime(2028, 3, 1, tzinfo=UTC))
    assert (next_month("2026-12"), next_month("2026-01")) == ("2027-01", "2026-02")
    assert name_of_month("2026-03") == "March 2026"
    assert day_in_words(day(5)) == "5 October 2026"
    assert day_in_words(day(5).replace(hour=7)) == "5 October 2026, 07:00:00 UTC"
