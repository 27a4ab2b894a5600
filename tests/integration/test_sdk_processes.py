"""One spool file under many threads and processes, forks, kills and exits."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from usage_platform import KEY, UsagePlatform

from aragora.billing.usage import UsageTracker

PRELUDE = """
import json, os, signal, sys, threading
from aragora.billing.usage import SpoolUnavailable, UsageTracker
path, url, key = sys.argv[1:]
tracker = UsageTracker(path, base_url=url, api_key=key)
def record(count):
    return [tracker.record_event(org_id="org_1", event_type="api_call").id for _ in range(count)]
"""


Start = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def platform() -> Iterator[UsagePlatform]:
    with UsagePlatform() as platform:
        yield platform


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.db"


@pytest.fixture
def start(path: Path, platform: UsagePlatform) -> Iterator[Start]:
    """Starts programs that share the file; none of them, nor a child of theirs, outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(program), str(path), platform.url, KEY],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def finished(process: subprocess.Popen[str], returncode: int = 0) -> list[str]:
    """The ids that the program printed, one JSON list per line."""
    output, _ = process.communicate(timeout=60)
    assert process.returncode == returncode
    return [each for line in output.splitlines() for each in json.loads(line)]


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def sent(platform: UsagePlatform) -> list[str]:
    return [each for batch in platform.batches for each in batch]


def test_many_threads_share_one_tracker(path: Path, platform: UsagePlatform) -> None:
    ids: list[str] = []
    with UsageTracker(path, base_url=platform.url, api_key=KEY) as tracker:

        def work() -> None:
            for _ in range(100):
                ids.append(tracker.record_event(org_id="org_1", event_type="api_call").id)  # noqa: PERF401 - as it goes

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert tracker.flush(20)
    assert len(set(ids)) == 1600
    assert sorted(sent(platform)) == sorted(ids)


def test_events_recorded_before_a_sigkill_are_delivered_by_the_next_start(
    start: Start, path: Path, platform: UsagePlatform
) -> None:
    platform.stop()
    program = """
        print(json.dumps(record(20)), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    ids = finished(start(program), -signal.SIGKILL)
    platform.start()
    with UsageTracker(path, base_url=platform.url, api_key=KEY) as tracker:
        assert tracker.flush(10)
    assert sent(platform) == ids


def test_a_sigkill_in_the_midst_loses_nothing_that_was_recorded(
    start: Start, path: Path, platform: UsagePlatform
) -> None:
    program = """
        def work():
            while True:
                print(json.dumps(record(1)), flush=True)
        for _ in range(4):
            threading.Thread(target=work).start()
    """
    process = start(program)
    platform.await_events(50)
    process.kill()
    output, _ = process.communicate(timeout=60)
    ids = set(re.findall(r'\["([0-9a-f-]{36})"\]', output))
    with UsageTracker(path, base_url=platform.url, api_key=KEY) as tracker:
        assert tracker.flush(20)
    assert ids
    assert ids <= set(platform.events)


def test_several_processes_record_to_one_file_and_one_at_a_time_delivers(start: Start, platform: UsagePlatform) -> None:
    program = """
        lists = [None] * 4
        def work(n):
            lists[n] = record(100)
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        print(json.dumps(sum(lists, [])), flush=True)
        assert tracker.flush(30)
    """
    processes = [start(program) for _ in range(3)]
    ids = [each for process in processes for each in finished(process)]
    assert len(ids) == 1200
    assert sorted(sent(platform)) == sorted(ids)  # none twice: no two processes delivered at once


def test_processes_may_begin_new_files_together(start: Start) -> None:
    # SQLite turns away some of those that open a new file at the very same moment.
    program = """
        import time
        from pathlib import Path
        from aragora.billing.spool import Spool
        print("[]", flush=True)
        for line in sys.stdin:
            number, moment = line.split()
            spool = Spool(Path(path).with_name(number), in_forked_child=lambda: None)
            while time.time() < float(moment):
                continue
            spool.append(b"1")
            spool.close()
            print(json.dumps([number]), flush=True)
    """
    processes = [start(program) for _ in range(8)]
    assert all(read_line(process) for process in processes)
    for number in range(40):
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(f"{number}.db {time.time() + 0.01}\n")
            process.stdin.flush()
        assert [read_line(process) for process in processes] == [f'["{number}.db"]\n'] * 8
    for process in processes:
        finished(process)


def test_another_process_takes_over_when_the_delivering_one_is_killed(
    start: Start, path: Path, platform: UsagePlatform
) -> None:
    program = """
        record(1)
        assert tracker.flush(10)
        print("[]", flush=True)
        sys.stdin.read()
    """
    delivering = start(program)
    read_line(delivering)
    with UsageTracker(path, base_url=platform.url, api_key=KEY) as tracker:
        delivering.send_signal(signal.SIGSTOP)  # it holds the right to deliver, and does nothing
        event = tracker.record_event(org_id="org_1", event_type="api_call")
        assert not tracker.flush(0.3)
        delivering.kill()
        finished(delivering, -signal.SIGKILL)
        assert tracker.flush(10)
    assert event.id in platform.events


def test_a_program_that_just_ends_delivers_first(start: Start, platform: UsagePlatform) -> None:
    ids = finished(start("print(json.dumps(record(20)))"))
    assert sorted(platform.events) == sorted(ids)


def test_a_program_ends_soon_though_the_platform_is_down(start: Start, path: Path, platform: UsagePlatform) -> None:
    platform.stop()
    ids = finished(start("print(json.dumps(record(20)))"))
    platform.start()
    with UsageTracker(path, base_url=platform.url, api_key=KEY) as tracker:
        assert tracker.pending() == 20
        assert tracker.flush(10)
    assert sent(platform) == ids


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_tracker_may_be_used_on_both_sides_of_a_fork(start: Start, platform: UsagePlatform) -> None:
    # Threads record during the forks, so that these happen in the midst of writing and delivering.
    program = """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads
        busy = [[] for _ in range(3)]
        def work(ids):
            for _ in range(100):
                ids.extend(record(1))
        threads = [threading.Thread(target=work, args=(ids,)) for ids in busy]
        [thread.start() for thread in threads]
        children = []
        for _ in range(5):
            child = os.fork()
            if child == 0:
                ids = record(20)
                flushed = tracker.flush(30)
                os.write(1, (json.dumps(ids) + "\\n").encode())
                os._exit(0 if flushed else 1)
            children.append(child)
            busy[0].extend(record(5))
        [thread.join() for thread in threads]
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 5
        assert tracker.flush(30)
        print(json.dumps(sum(busy, [])))
    """
    ids = finished(start(program))
    assert len(ids) == 5 * 20 + 5 * 5 + 300
    assert sorted(platform.events) == sorted(ids)


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_child_delivers_when_its_parent_is_gone(start: Start, platform: UsagePlatform) -> None:
    program = """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        record(1)
        if os.fork():
            os._exit(0)
        ids = record(20)
        print(json.dumps(ids if tracker.flush(30) else []))
    """
    ids = finished(start(program))
    assert len(ids) == 20
    assert set(ids) <= set(platform.events)


def test_a_signals_handler_may_record_and_close_in_the_midst_of_recording(
    start: Start, path: Path, platform: UsagePlatform
) -> None:
    program = """
        def end(number, frame):
            ids.extend(record(1))
            tracker.close(0.2)  # which cannot deliver while the interrupted write holds the file
            print(json.dumps(ids))
            sys.exit(0)
        ids = []
        signal.signal(signal.SIGTERM, end)
        while True:
            ids.extend(record(1))
    """
    process = start(program)
    platform.await_events(20)
    process.terminate()
    ids = finished(process)
    with UsageTracker(path, base_url=platform.url, api_key=KEY) as tracker:
        assert tracker.flush(10)
    assert set(ids) <= set(platform.events)
