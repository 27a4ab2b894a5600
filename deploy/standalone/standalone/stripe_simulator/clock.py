"""The simulator's time: one clock that may be set ahead or stopped, and the arithmetic of billing periods."""

import calendar
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

DAY = 86_400
HOUR = 3_600


@dataclass(slots=True)
class Clock:
    """Unix seconds: the wall's time plus `offset_seconds`, or `stopped_at` while the clock is stopped."""

    wall: Callable[[], int]
    offset_seconds: int = 0
    stopped_at: int | None = None

    def now(self) -> int:
        """The moment the simulator takes it to be."""
        return self.wall() + self.offset_seconds if self.stopped_at is None else self.stopped_at

    def set(self, moment: int) -> None:
        """Be at that moment, and go on (or stay stopped) from there."""
        if self.stopped_at is None:
            self.offset_seconds = moment - self.wall()
        else:
            self.stopped_at = moment

    def stop(self) -> None:
        """Stand still."""
        self.stopped_at = self.now()

    def run(self) -> None:
        """Go on from where it stands."""
        if self.stopped_at is not None:
            moment, self.stopped_at = self.stopped_at, None
            self.set(moment)


def boundary(anchor: int, interval: str, count: int) -> int:
    """The end of the `count`-th interval after the anchor: a month end keeps its day where the month has it.

    Jan 31 is followed by Feb 28 (29), Mar 31, Apr 30: always counted from the anchor, as Stripe's billing cycle is.
    """
    start = datetime.fromtimestamp(anchor, UTC)
    if interval in {"day", "week"}:
        return int((start + timedelta(days=count * (7 if interval == "week" else 1))).timestamp())
    months = start.month - 1 + count * (12 if interval == "year" else 1)
    year, month = start.year + months // 12, months % 12 + 1
    day = min(start.day, calendar.monthrange(year, month)[1])
    return int(start.replace(year=year, month=month, day=day).timestamp())


def period_after(moment: int, anchor: int, interval: str, interval_count: int) -> int:
    """The first boundary of the billing cycle that lies after the moment."""
    approximate = {"day": DAY, "week": 7 * DAY, "month": 31 * DAY, "year": 366 * DAY}[interval] * interval_count
    count = max((moment - anchor) // approximate, 0)
    while boundary(anchor, interval, count * interval_count) <= moment:
        count += 1
    return boundary(anchor, interval, count * interval_count)


def day_of(moment: int) -> str:
    """`6 Mar 2027`, for descriptions and pages."""
    at = datetime.fromtimestamp(moment, UTC)
    return f"{at.day} {at:%b %Y}"
