"""Every Python of an image begins with this: whoever is told to end while it still starts, ends.

The kernel ignores SIGTERM for the first process of a container until somebody handles it. The services do, once they
run.
"""

# ruff: noqa: INP001 - Python finds it by its name

import signal
import sys
from types import FrameType


def _end(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


signal.signal(signal.SIGTERM, _end)
