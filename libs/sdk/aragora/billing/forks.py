"""What a fork must not carry along: a connection of SQLite, open in both processes, corrupts its file.

`subprocess` is not concerned, nor is any program that does not fork; `os.fork` and `multiprocessing` are.
"""

import os
import threading
from typing import Protocol


class Survivor(Protocol):
    """Something that puts itself away before a fork and takes up again after it, in both processes."""

    def before_fork(self) -> None:
        """Finish what is being done, begin nothing new, and let go of files."""

    def after_fork(self, *, in_child: bool) -> None:
        """Go on. In the child, only the thread that forked is left."""


_survivors: set[Survivor] = set()
_held: list[Survivor] = []
_one_fork = threading.Lock()


def survive(survivor: Survivor) -> None:
    """Tell this object about forks, until `forget`."""
    _survivors.add(survivor)


def forget(survivor: Survivor) -> None:
    """Tell it no more; an unknown object is fine."""
    _survivors.discard(survivor)


def _before() -> None:
    _one_fork.acquire()
    _held.extend(_survivors)
    for survivor in _held:
        survivor.before_fork()


def _after(*, in_child: bool) -> None:
    for survivor in _held:
        survivor.after_fork(in_child=in_child)
    _held.clear()
    _one_fork.release()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(
        before=_before,
        after_in_parent=lambda: _after(in_child=False),
        after_in_child=lambda: _after(in_child=True),
    )
