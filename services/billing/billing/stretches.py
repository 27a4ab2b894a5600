"""What an organization had when: the stretches of time between the changes of its subscription. Pure."""

import calendar
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events import SubscriptionChanged
from billing.subscription import Sold, Subscription, evolve

History = Sequence[tuple[datetime, DomainEvent]]
"""The events of a subscription, in order, each with the moment at which it occurred."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """From `start` to `end` (excluded) a version of a plan was in force, in one way."""

    start: datetime
    end: datetime
    sold: Sold
    paid_by: str | None = None
    """Stripe's subscription that paid for it."""
    is_free: bool = False
    """Comped, or for trial, by an operator's decision."""


def stretches(history: History, start: datetime, end: datetime) -> list[Stretch]:
    """What was in force from `start` to `end`, in order and without gaps; nothing where nothing was yet.

    What ends by itself is in the history with the moment as of which it ended.
    """
    found: list[Stretch] = []
    state, since = Subscription(), None
    for moment, event in history:
        # A clock that was set back does not undo what was before it.
        begins = max(_takes_effect(moment, event), since or start)
        if since is not None:
            _add(found, state, max(since, start), min(begins, end))
        state, since = evolve(state, event), begins
    if since is not None:
        _add(found, state, max(since, start), end)
    return found


def _takes_effect(moment: datetime, event: DomainEvent) -> datetime:
    if isinstance(event, SubscriptionChanged) and not event.at_period_end:
        return event.effective_at
    return moment


def _add(found: list[Stretch], state: Subscription, start: datetime, end: datetime) -> None:
    if start >= end or state.sold is None:
        return
    is_free = state.paid_by is None and (state.comped or state.trial_ends_at is not None)
    new = Stretch(start, end, state.sold, state.paid_by, is_free)
    last = found[-1] if found else None
    same = last is not None and (last.sold, last.paid_by, last.is_free) == (new.sold, new.paid_by, new.is_free)
    if last is not None and same and last.end == start:
        found[-1] = replace(last, end=end)
    else:
        found.append(new)


def within(found: Iterable[Stretch], start: datetime, end: datetime) -> list[Stretch]:
    """The parts of these stretches that lie from `start` to `end`."""
    cut = [replace(one, start=max(one.start, start), end=min(one.end, end)) for one in found]
    return [one for one in cut if one.start < one.end]


def span_of(month: str) -> tuple[datetime, datetime]:
    """When a month (`2026-10`) begins and ends, its end excluded, in UTC."""
    start = datetime(int(month[:4]), int(month[5:]), 1, tzinfo=UTC)
    return start, (start + timedelta(days=32)).replace(day=1)


def month_of(moment: datetime) -> str:
    """The month of a moment in UTC: `2026-10`."""
    return f"{moment:%Y-%m}"


def next_month(month: str) -> str:
    """The month after this one."""
    return month_of(span_of(month)[1])


def name_of_month(month: str) -> str:
    """`October 2026`."""
    return f"{calendar.month_name[int(month[5:])]} {month[:4]}"


def midnight(day: date) -> datetime:
    """When a day begins, in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def span_in_words(start: datetime, end: datetime) -> str:
    """`10 October 2026 to 31 October 2026`, both days included; with the times where it is not whole days."""
    if start == midnight(start) and end == midnight(end):
        return f"{day_in_words(start)} to {day_in_words(end - timedelta(days=1))}"
    return f"{day_in_words(start)} until {day_in_words(end)}"


def day_in_words(moment: datetime) -> str:
    """`5 October 2026`, with the time where it is not midnight."""
    day = f"{moment.day} {calendar.month_name[moment.month]} {moment.year}"
    return day if moment == midnight(moment) else f"{day}, {moment:%H:%M:%S} UTC"
