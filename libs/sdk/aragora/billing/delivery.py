"""The background thread that carries events from the spool to the platform.

An event leaves the spool only after the platform has said that it is on disk there, so it may be sent twice, never
not at all; the platform counts an id once. Trouble with the platform delays delivery; trouble with one event sets that
event aside.
"""

import logging
import random
import threading
import time
from collections.abc import Callable

from aragora.billing.client import NotAuthorized, PlatformClient, PlatformUnavailable, RequestRefused
from aragora.billing.spool import Pending, Refusal, Spool, SpoolUnavailable

MAX_BATCH_EVENTS = 500
MAX_BATCH_BYTES = 1024 * 1024
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 60.0
LONGEST_ASKED_PAUSE_SECONDS = 3600.0
"""The longest `Retry-After` that is followed to the letter."""
LOOK_AGAIN_SECONDS = 1.0
"""How soon events from other processes are seen, and how soon delivery is taken over from one that ended."""

_log = logging.getLogger("aragora.billing")


def pause_seconds(failures: int, chance: float) -> float:
    """The pause after this many failures in a row (from 1): doubling up to a minute, shortened by up to half.

    `chance`, from 0 to 1, spreads the returning senders, so that they do not all come back at once.
    """
    longest: float = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 16))
    return longest * (1 - chance / 2)


class Delivery:
    """Delivers from one spool, on a thread that starts with the first `wake`."""

    def __init__(self, spool: Spool, client: PlatformClient) -> None:
        self._spool = spool
        self._client = client
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._awake = False
        self._hurried = False
        self._stopping = False
        self._attempts = 0
        self._failed_attempts = 0
        self._failures_in_a_row = 0
        self._told_to_wait = False
        self._standing_by = False
        self._trouble = ""
        self._max_events = MAX_BATCH_EVENTS

    def wake(self) -> None:
        """Say that events were added."""
        if not self._awake:
            with self._changed:
                self._awake = True
                self._start()
                self._changed.notify_all()

    def flush(self, timeout_seconds: float, *, patient: bool = True, leave_to_others: bool = False) -> bool:
        """Wait until all that waits now has left the spool; False if it has not.

        It tries at once, whatever pause is running, unless the platform asked for that pause. With `patient` false, it
        gives up at the first attempt that fails, and while the platform has asked for a pause; with `leave_to_others`,
        also if another process is the one that delivers.
        """
        deadline = time.monotonic() + timeout_seconds
        target = self._spool.last_position()
        failed_before = self._failed_attempts
        with self._changed:
            if target:
                self._hurried = True
                self._failures_in_a_row = 0
                self._start()
                self._changed.notify_all()
        while True:
            with self._changed:
                seen = self._attempts
            if not 0 < self._spool.first_position() <= target:
                return True
            hopeless = (
                self._told_to_wait or self._failed_attempts > failed_before or (leave_to_others and self._standing_by)
            )
            remaining = deadline - time.monotonic()
            if remaining <= 0 or (hopeless and not patient):
                return False
            self._await_attempt_after(seen, remaining)

    def _await_attempt_after(self, seen: int, seconds: float) -> None:
        # Not for long: another process, which cannot notify this one, may be the one that delivers.
        with self._changed:
            self._changed.wait_for(lambda: self._attempts != seen, min(seconds, 0.1))

    def stop(self, timeout_seconds: float) -> bool:
        """End the thread; False if it is still in the middle of a request when the time is up."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout_seconds)
        return thread is None or not thread.is_alive()

    def _start(self) -> None:
        if self._thread is None and not self._stopping:
            self._thread = threading.Thread(target=self._run, name="aragora-usage-delivery", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._stopping:
            self._awake = self._hurried = False  # cleared before the spool is read: what comes later wakes again
            try:
                self._step()
            except (PlatformUnavailable, NotAuthorized, SpoolUnavailable) as error:
                self._rest_after_failure(error)
            except Exception as error:  # noqa: BLE001 - a thread that died would let events pile up in silence
                _log.exception("delivery of usage events failed in an unforeseen way; it goes on")
                self._rest_after_failure(error)

    def _step(self) -> None:
        """Deliver one batch, or rest until there may be one."""
        self._standing_by = not self._spool.take_delivery()
        if self._standing_by:
            self._rest(LOOK_AGAIN_SECONDS, lambda: False)
            return
        batch = self._spool.head(self._max_events, MAX_BATCH_BYTES)
        if not batch:
            self._rest(LOOK_AGAIN_SECONDS, lambda: self._awake or self._hurried)
            return
        try:
            self._client.post_events([pending.event for pending in batch])
        except RequestRefused as refused:
            self._sort_out(batch, refused)
        else:
            self._spool.remove_through(batch[-1].position)
            self._max_events = min(MAX_BATCH_EVENTS, self._max_events * 2)
        self._count_attempt(failed=False)

    def _sort_out(self, batch: list[Pending], refused: RequestRefused) -> None:
        """Set aside the events that the platform names; if it names none, find them by sending fewer at a time."""
        named: dict[int, Refusal] = {}
        for error in refused.errors:
            if 0 <= error.index < len(batch):
                named.setdefault(error.index, Refusal(batch[error.index], error.field, error.message))
        if not named:
            if refused.status not in (400, 413, 422):  # it is the request, not the events, that is refused
                raise PlatformUnavailable(str(refused)) from refused
            if len(batch) > 1:
                self._max_events = len(batch) // 2
                return
            named[0] = Refusal(batch[0], "", str(refused))
        self._spool.refuse(list(named.values()))
        first = next(iter(named.values()))
        _log.warning(
            "%d usage events were refused and are set aside in %s (see UsageTracker.refused); the first: %s %s",
            len(named),
            self._spool.path,
            first.field,
            first.reason,
        )

    def _rest_after_failure(self, error: Exception) -> None:
        self._count_attempt(failed=True)
        trouble = str(error)
        if trouble != self._trouble and not self._stopping:
            self._trouble = trouble
            _log.warning("usage events stay in %s and will be sent again: %s", self._spool.path, trouble)
        pause = pause_seconds(self._failures_in_a_row, random.random())  # noqa: S311 - spreads retries; no secret
        asked = getattr(error, "retry_after_seconds", None)
        if asked is None:
            self._rest(pause, lambda: self._hurried)
            return
        self._told_to_wait = True
        self._rest(max(pause, min(asked, LONGEST_ASKED_PAUSE_SECONDS)), lambda: False)
        self._told_to_wait = False

    def _count_attempt(self, *, failed: bool) -> None:
        with self._changed:
            self._attempts += 1
            if failed:
                self._failed_attempts += 1
                self._failures_in_a_row += 1
            else:
                self._failures_in_a_row = 0
                if self._trouble:
                    self._trouble = ""
                    _log.info("usage events from %s are delivered again", self._spool.path)
            self._changed.notify_all()

    def _rest(self, seconds: float, ended_by: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or ended_by(), seconds)
