"""The right to deliver from a spool, which one process has at a time.

It is SQLite's exclusive lock on an empty file of its own: the same on every operating system, and released by that
system when the process that holds it dies.
"""

import sqlite3
from pathlib import Path

from aragora.billing.spool_file import is_busy


class DeliveryLock:
    """The lock. It belongs to the process: a fork's child must take its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: sqlite3.Connection | None = None

    def take(self) -> bool:
        """Hold the lock until `release`; False while another process holds it. To take it twice is fine.

        Raises:
            sqlite3.Error: the file cannot be opened.
        """
        if self._held is not None:
            return True
        connection = None
        try:
            connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            if is_busy(error):
                return False
            raise
        self._held = connection
        return True

    def release(self) -> None:
        """Let another process have it."""
        if self._held is not None:
            self._held.close()
            self._held = None
