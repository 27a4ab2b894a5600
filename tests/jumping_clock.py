"""A clock that goes on as the real one does, and jumps when it is told to."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass
class JumpingClock:
    """`ahead` of the real time by so much."""

    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def advance(self, by: timedelta) -> None:
        """Jump."""
        self.ahead += by
