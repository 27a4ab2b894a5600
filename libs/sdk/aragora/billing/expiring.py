"""A bounded memory of values that are good until a moment."""

from itertools import islice
from threading import Lock
from typing import Generic, TypeVar

_Value = TypeVar("_Value")


class Expiring(Generic[_Value]):
    """At most `capacity` values by key, each until its moment (seconds since 1970). Safe from any thread.

    Reading takes no lock. When it is full, what has expired goes, and then the oldest until half is free.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held: dict[str, tuple[float, _Value]] = {}
        self._writing = Lock()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: str, now: float) -> _Value | None:
        """What is held under the key, unless its moment has come."""
        found = self._held.get(key)
        return found[1] if found is not None and now < found[0] else None

    def put(self, key: str, value: _Value, until: float, now: float) -> None:
        """Hold a value until a moment, or until there is no room for it."""
        with self._writing:
            if len(self._held) >= self._capacity:
                alive = [entry for entry in self._held.items() if now < entry[1][0]]
                # A new dict: whoever is reading the old one is not disturbed.
                self._held = dict(islice(alive, max(0, len(alive) - self._capacity // 2), None))
            self._held[key] = (until, value)
