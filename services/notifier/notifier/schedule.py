"""When a message is tried again, when it is given up, and when an endpoint is given up. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Literal

WAITS: Sequence[timedelta] = (
    timedelta(seconds=5), timedelta(minutes=5), timedelta(minutes=30), timedelta(hours=2), timedelta(hours=5),
    timedelta(hours=10), timedelta(hours=14), timedelta(hours=20), timedelta(hours=24),
)  # fmt: skip
"""After the first failure in a row, the second, …: what Standard Webhooks recommends. There is no jitter: each endpoint
has a schedule of its own that begins with its own failure, and few of them are tried at once."""
GIVEN_UP_AFTER = sum(WAITS, timedelta())
"""A message that has been due for so long, about 76 hours, is not tried after another failure."""
WAIT_AFTER_GIVING_UP = timedelta(minutes=5)
"""Perhaps it was that message: the one behind it need not wait for a day."""
WARNED_AFTER = timedelta(hours=1)
DISABLED_AFTER = timedelta(days=5)
MAX_RETRY_AFTER = timedelta(hours=24)

Disabled = Literal["failing", "gone"]


@dataclass(frozen=True, slots=True)
class Stretch:
    """How an endpoint fails: so many times in a row, since then; when its organization was told so."""

    failures: int = 0
    failing_since: datetime | None = None
    warned_at: datetime | None = None


WELL = Stretch()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """What a failed attempt leads to."""

    stretch: Stretch
    next_attempt_at: datetime
    gives_up: bool
    """The message is not tried any more."""
    warns: bool
    """The organization is to be told that the endpoint fails."""
    disables: Disabled | None


def is_success(status_code: int | None) -> bool:
    """Whether an answer says that the message was taken. A redirection does not: it is not followed."""
    return status_code is not None and HTTPStatus.OK <= status_code < HTTPStatus.MULTIPLE_CHOICES


def after_failure(
    stretch: Stretch,
    now: datetime,
    *,
    due_at: datetime,
    status_code: int | None,
    retry_after: str | None,
    may_disable: bool = True,
) -> Failed:
    """What follows when an attempt fails at `now`.

    Args:
        stretch: how the endpoint failed before.
        now: when the attempt failed.
        due_at: since when the message was to be delivered.
        status_code: of the answer; None: there was none.
        retry_after: the answer's header.
        may_disable: whether the endpoint is one that is given up.
    """
    failures, since = stretch.failures + 1, stretch.failing_since or now
    gives_up = now - due_at >= GIVEN_UP_AFTER
    wait = WAIT_AFTER_GIVING_UP if gives_up else WAITS[min(failures, len(WAITS)) - 1]
    if status_code in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        wait = max(wait, min(_asked_for(retry_after, now), MAX_RETRY_AFTER))
    disables: Disabled | None = None
    if may_disable and status_code == HTTPStatus.GONE:
        disables = "gone"
    elif may_disable and now - since >= DISABLED_AFTER:
        disables = "failing"
    warns = disables is None and stretch.warned_at is None and now - since >= WARNED_AFTER
    return Failed(
        stretch=Stretch(failures, since, now if warns else stretch.warned_at),
        next_attempt_at=now + wait,
        gives_up=gives_up,
        warns=warns,
        disables=disables,
    )


def _asked_for(retry_after: str | None, now: datetime) -> timedelta:
    # RFC 9110, section 10.2.3: seconds, or a date
    if retry_after is None:
        return timedelta()
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=min(int(text[:9]), 10**8))
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # a year or an hour beyond all numbers
        return timedelta()
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now
