"""The SDK may first be used by several threads at once. A crash of the interpreter shows in a process of its own."""

import subprocess
import sys

BEGINNING = """
import sys, threading
from datetime import UTC, datetime

sys.setswitchinterval(1e-6)
barrier = threading.Barrier(8)
done = []

def first(use):
    barrier.wait()
    use()
    done.append(True)

def together(use):
    threads = [threading.Thread(target=first, args=(use,)) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(done) == 8
"""
USAGE = """
from aragora.billing import usage
event = {"id": "a", "org_id": "o", "event_type": "debate", "occurred_at": "2026-01-01T00:00:00Z"}
together(lambda: usage._checked(dict(event), datetime(2026, 1, 2, tzinfo=UTC)))
"""


def test_several_threads_may_be_the_first_to_record():
    # Without the preparation in `usage` about two of three processes crash: all of five would not live by chance.
    for _ in range(5):
        process = subprocess.run([sys.executable, "-c", BEGINNING + USAGE], capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
