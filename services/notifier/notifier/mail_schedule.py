"""When mail is tried again, and when no more. Pure."""

from datetime import datetime, timedelta
from typing import Literal

DELAYS = (
    timedelta(seconds=30),
    timedelta(minutes=2),
    timedelta(minutes=10),
    timedelta(hours=1),
    timedelta(hours=3),
    timedelta(hours=6),
    timedelta(hours=12),
    timedelta(hours=24),
)
"""After the first attempt, the second, …: two days in all."""
AWAY_DELAY = timedelta(seconds=30)
"""Where nothing could be attempted, because the mail server or auth is away. It counts as no attempt."""
_LASTS = {"mail": timedelta(days=2), "digest": timedelta(days=3)}
"""For how long nothing could be attempted before mail is given up. What goes into a digest has waited a day before."""


def next_attempt(attempts: int, now: datetime) -> datetime | None:
    """When mail is tried again after so many attempts, the latest one now; None: never."""
    return now + DELAYS[attempts - 1] if attempts <= len(DELAYS) else None


def is_worth_waiting(mode: Literal["mail", "digest"], created_at: datetime, now: datetime) -> bool:
    """Whether mail that cannot be attempted just now may wait on."""
    return now < created_at + _LASTS[mode]
