"""The letters that are kept: the newest `KEPT` of them, in one SQLite file that its owner alone can read."""

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from standalone.problems import DataDirUnusable

FILE_NAME = "mailbox.sqlite"
KEPT = 500
_TABLE = """
CREATE TABLE IF NOT EXISTS letters (
    letter_id   INTEGER PRIMARY KEY AUTOINCREMENT,
    received_at TEXT NOT NULL,
    recipients  TEXT NOT NULL,
    source      BLOB NOT NULL
)"""
_ADD = "INSERT INTO letters (received_at, recipients, source) VALUES (?, ?, ?)"
_FORGET = "DELETE FROM letters WHERE letter_id <= ?"
_NEWEST = """
SELECT letter_id, received_at, recipients, source FROM letters
WHERE ? = '' OR instr(lower(recipients), lower(?)) > 0 ORDER BY letter_id DESC LIMIT ?"""
_ONE = "SELECT letter_id, received_at, recipients, source FROM letters WHERE letter_id = ?"


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter, as it came."""

    letter_id: int
    received_at: datetime
    recipients: str
    """To whom the server was to deliver it; its own `To` is whatever the sender wrote."""
    source: bytes

    @property
    def message(self) -> EmailMessage:
        """The letter, parsed."""
        return message_from_bytes(self.source, policy=policy.default)

    @property
    def subject(self) -> str:
        """Its subject."""
        return self.header("Subject") or "(no subject)"

    def header(self, name: str) -> str:
        """A header, empty if there is none."""
        return str(self.message.get(name, ""))

    def part(self, subtype: str) -> str:
        """What it says as `html` or `plain` text; empty if it has no such part."""
        found = self.message.get_body((subtype,))
        return "" if found is None else str(found.get_content()).replace("\r\n", "\n")


class Letters:
    """The letters of a data directory.

    Raises:
        DataDirUnusable: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._connection = sqlite3.connect(path, isolation_level=None)
            self._connection.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            raise DataDirUnusable(
                f"{path} cannot be used ({error}). Move it away, and the mailbox begins anew: it holds copies of "
                "letters and nothing else."
            ) from error

    def add(self, recipients: Sequence[str], source: bytes) -> int:
        """Keep a letter, and forget the oldest that are too many. Returns its number."""
        letter = (datetime.now(UTC).isoformat(), ", ".join(recipients), source)
        letter_id = self._connection.execute(_ADD, letter).lastrowid or 0
        self._connection.execute(_FORGET, (letter_id - KEPT,))
        return letter_id

    def newest(self, to: str = "", count: int = KEPT) -> list[Letter]:
        """The newest letters first; of those to recipients that contain `to`."""
        return [_letter(row) for row in self._connection.execute(_NEWEST, (to, to, count))]

    def find(self, letter_id: int) -> Letter | None:
        """One letter."""
        row = self._connection.execute(_ONE, (letter_id,)).fetchone()
        return None if row is None else _letter(row)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _letter(row: tuple[Any, ...]) -> Letter:
    letter_id, received_at, recipients, source = row
    return Letter(letter_id, datetime.fromisoformat(received_at), recipients, source)
