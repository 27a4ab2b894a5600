"""Opening the spool's file: made if it is not there, durable, and with its tables."""

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pending_events (position INTEGER PRIMARY KEY AUTOINCREMENT, event BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS refused_events (
    position INTEGER PRIMARY KEY, event BLOB NOT NULL,
    field TEXT NOT NULL, reason TEXT NOT NULL, refused_at TEXT NOT NULL
);
"""


def open_spool(path: Path, lock_timeout_seconds: float) -> sqlite3.Connection:
    """A connection that any thread may use, one at a time; every statement outside a transaction is one of its own.

    Raises:
        OSError: the folder or file cannot be made.
        sqlite3.Error: the file is no database, or another process held it for longer than `lock_timeout_seconds`.
    """
    _create(path)
    deadline = time.monotonic() + lock_timeout_seconds
    while True:
        db = sqlite3.connect(path, timeout=lock_timeout_seconds, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            db.close()
            # Where processes begin a new file together, SQLite turns some away without its usual waiting.
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return db


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection holds the file."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_BUSY  # the rest are details


def _create(path: Path) -> None:
    """Make the file, readable by its owner only, unless it is there.

    An existing file is left alone: opening and closing it beside SQLite would drop this process's locks on it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
