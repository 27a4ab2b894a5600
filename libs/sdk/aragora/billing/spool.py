"""The durable local spool: a SQLite file that holds usage events until the platform has them.

An event that `append` took is on disk: it survives a crash of the process and, as far as the disk keeps its promises,
of the machine (WAL journal, `synchronous=FULL`). Any number of threads and processes may append to one file; one
process at a time delivers from it. The file must lie on a local disk, because SQLite's locks need one.

Beside `usage.db` live `usage.db-wal` and `usage.db-shm`, which are parts of the database, and
`usage.db.delivery`, which is empty and only ever locked.
"""

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aragora.billing import forks
from aragora.billing.delivery_lock import DeliveryLock
from aragora.billing.spool_file import open_spool

LOCK_TIMEOUT_SECONDS = 30.0
"""How long a write waits for another process that is writing to the same file."""
LOOK_AGAIN_SECONDS = 1.0
"""How long a thread waits at most for another's word; only one that was struck by Ctrl-C keeps it back."""


class SpoolUnavailable(Exception):
    """The spool's file cannot be read or written, so the event was not recorded. The message names the file.

    Free disk space, mend the path or its permissions, then record the event again.
    """


@dataclass(frozen=True, slots=True)
class Pending:
    """An event that waits for delivery. `event` is its JSON; positions only ever grow."""

    position: int
    event: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the platform does not take one event. `field` is the JSON name, or empty if the event as a whole is meant."""

    pending: Pending
    field: str
    reason: str


class _Entry:
    """One caller's event on its way to the disk. Its `turn` is released when it is settled, or to look after itself."""

    __slots__ = ("event", "failure", "settled", "turn")

    def __init__(self, event: bytes) -> None:
        self.event = event
        self.settled = False
        self.failure: SpoolUnavailable | None = None
        self.turn = threading.Lock()
        self.turn.acquire()

    def wake(self) -> None:
        with suppress(RuntimeError):  # it is awake already
            self.turn.release()


class Spool:
    """One spool file. Every method is safe from any thread; the file is opened when it is first needed.

    It may be open when the process forks. `in_forked_child` is then called in the child, where no thread runs but one.
    """

    def __init__(self, path: Path, in_forked_child: Callable[[], None]) -> None:
        self.path = path
        self._in_forked_child = in_forked_child
        self._waiting: deque[_Entry] = deque()
        self._lock = threading.RLock()  # a signal's handler may record or close, in the midst of its own thread's write
        self._closed = False
        self._connection: sqlite3.Connection | None = None
        self._delivery_lock = DeliveryLock(path.with_name(path.name + ".delivery"))
        forks.survive(self)

    def append(self, event: bytes) -> None:
        """Write the event and return when it is on disk.

        Callers that arrive while another one's transaction runs share the next: one of them writes for all who wait,
        so that many threads cost few disk flushes.

        Raises:
            SpoolUnavailable: it could not be written.
        """
        entry = _Entry(event)
        self._waiting.append(entry)
        while not entry.settled:
            if self._lock.acquire(blocking=False):
                try:
                    group = self._write_waiting()
                finally:
                    self._release()
                for written in group:
                    written.wake()
            else:
                entry.turn.acquire(timeout=LOOK_AGAIN_SECONDS)
        if entry.failure is not None:
            raise SpoolUnavailable(str(entry.failure)) from entry.failure

    def _write_waiting(self) -> list[_Entry]:
        group = [self._waiting.popleft() for _ in range(len(self._waiting))]
        # One statement is a transaction of its own, and releases the interpreter's lock once instead of for every row.
        rows = ",".join(["(?)"] * len(group))
        insert = f"INSERT INTO pending_events (event) VALUES {rows}"  # noqa: S608 - only parameter marks
        failure = None
        try:
            self._open().execute(insert, [entry.event for entry in group])
        except sqlite3.Error as error:
            failure = self._unavailable(error)
        except SpoolUnavailable as error:
            failure = error
        except BaseException:
            # Ctrl-C struck the one who wrote for the others. Should the commit have happened after all, they are
            # written twice under one id, which the platform counts once.
            self._waiting.extendleft(reversed(group))
            raise
        for entry in group:
            entry.failure = failure
            entry.settled = True
        return group

    def _release(self) -> None:
        """Release the lock to whoever waits longest."""
        self._lock.release()
        with suppress(IndexError):  # nobody waits
            self._waiting[0].wake()

    def head(self, max_events: int, max_bytes: int) -> list[Pending]:
        """The oldest pending events, at least one if there is any, within both bounds."""
        with self._database() as db:
            rows = db.execute("SELECT position, event FROM pending_events ORDER BY position LIMIT ?", (max_events,))
            batch: list[Pending] = []
            size = 0
            for position, event in rows:
                size += len(event)
                if batch and size > max_bytes:
                    break
                batch.append(Pending(position, event))
            return batch

    def remove_through(self, position: int) -> None:
        """Forget the pending events up to and including this position: the platform has them."""
        with self._database() as db:
            db.execute("DELETE FROM pending_events WHERE position <= ?", (position,))

    def refuse(self, refusals: Sequence[Refusal]) -> None:
        """Set these events aside, with the reason, so that those behind them can pass."""
        now = datetime.now(UTC).isoformat()
        with self._transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO refused_events (position, event, field, reason, refused_at)"
                " VALUES (?, ?, ?, ?, ?)",
                [(r.pending.position, r.pending.event, r.field, r.reason, now) for r in refusals],
            )
            db.executemany("DELETE FROM pending_events WHERE position = ?", [(r.pending.position,) for r in refusals])

    def refusals(self) -> list[tuple[Refusal, datetime]]:
        """The refused events with the moment of their refusal, oldest first."""
        with self._database() as db:
            rows = db.execute("SELECT position, event, field, reason, refused_at FROM refused_events ORDER BY position")
            return [
                (Refusal(Pending(position, event), field, reason), datetime.fromisoformat(refused_at))
                for position, event, field, reason, refused_at in rows.fetchall()
            ]

    def take_back_refused(self) -> int:
        """Put every refused event back in the queue, with the id it has, and say how many they were."""
        with self._transaction() as db:
            db.execute("INSERT INTO pending_events (event) SELECT event FROM refused_events ORDER BY position")
            return db.execute("DELETE FROM refused_events").rowcount

    def count(self) -> int:
        """How many events wait for delivery."""
        return self._number("SELECT count(*) FROM pending_events")

    def first_position(self) -> int:
        """The position of the oldest pending event; 0 if none waits."""
        return self._number("SELECT coalesce(min(position), 0) FROM pending_events")

    def last_position(self) -> int:
        """The position of the newest pending event; 0 if none waits."""
        return self._number("SELECT coalesce(max(position), 0) FROM pending_events")

    def _number(self, query: str) -> int:
        with self._database() as db:
            (number,) = db.execute(query).fetchone()
            return int(number)

    def take_delivery(self) -> bool:
        """Become the process that delivers from this file, until `close`; False while another one is.

        Raises:
            SpoolUnavailable: the lock file cannot be opened.
        """
        with self._exclusively():
            try:
                return not self._closed and self._delivery_lock.take()
            except sqlite3.Error as error:
                raise self._unavailable(error) from error

    def close(self) -> None:
        """Close the file; what is pending stays in it. Repeating this does nothing."""
        forks.forget(self)
        with self._exclusively():
            self._closed = True
            self._disconnect()

    def before_fork(self) -> None:
        """Take the lock and close the file: a connection of SQLite must not cross a fork."""
        self._lock.acquire()
        self._disconnect()

    def after_fork(self, *, in_child: bool) -> None:
        """Release what `before_fork` took; the file opens again when needed."""
        if in_child:
            self._waiting.clear()  # the parent's threads write these
            self._in_forked_child()
        self._release()

    def _disconnect(self) -> None:
        self._delivery_lock.release()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        self._lock.acquire()
        try:
            yield
        finally:
            self._release()

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        with self._exclusively():
            db = self._open()
            try:
                yield db
            except sqlite3.Error as error:
                raise self._unavailable(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._database() as db, db:  # commits, or rolls back if an exception passes
            db.execute("BEGIN IMMEDIATE")
            yield db

    def _open(self) -> sqlite3.Connection:
        if self._closed:
            raise SpoolUnavailable(f"the usage spool {self.path} is closed; make a new UsageTracker")
        if self._connection is None:
            try:
                self._connection = open_spool(self.path, LOCK_TIMEOUT_SECONDS)
            except (sqlite3.Error, OSError) as error:
                raise self._unavailable(error) from error
        return self._connection

    def _unavailable(self, error: Exception) -> SpoolUnavailable:
        return SpoolUnavailable(
            f"the usage spool {self.path} cannot be used ({error}); "
            "see that the disk has space, that the path can be written and that the file is a usage spool"
        )
