"""A child's log file: bounded in size, and its last lines in memory for error messages."""

from collections import deque
from pathlib import Path

from standalone.machine import MIB


class CappedLog:
    """Appends what a child prints to `path`; past `max_bytes` the file becomes `path.1` and a new one begins.

    So a child's logs never take more than twice `max_bytes`. A full disk silences the log; it never stops the child.
    """

    def __init__(self, path: Path, max_bytes: int = 16 * MIB) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._max_bytes = max_bytes
        self._file = path.open("ab", buffering=0)
        path.chmod(0o600)
        self._size = self._file.tell()
        self._tail: deque[bytes] = deque(maxlen=16)

    def write(self, chunk: bytes) -> None:
        """Append what the child printed, as it came."""
        self._tail.append(chunk)
        try:
            if self._size > self._max_bytes:
                self._file.close()
                self.path.replace(self.path.with_name(self.path.name + ".1"))
                self._file = self.path.open("ab", buffering=0)
                self.path.chmod(0o600)
                self._size = 0
            self._file.write(chunk)
            self._size += len(chunk)
        except (OSError, ValueError):
            # A full disk, or a log that was closed while the child's last words were on their way.
            return

    def last_lines(self, count: int = 8) -> str:
        """The last lines that this run printed, for an error message."""
        lines = b"".join(self._tail).decode(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-count:])

    def close(self) -> None:
        """Close the file."""
        self._file.close()
