"""The spool: durable, shared, and plain about what is wrong with its file."""

import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aragora.billing.spool import Pending, Refusal, Spool, SpoolUnavailable
from aragora.billing.usage import UsageTracker


def opened(path: Path) -> Spool:
    return Spool(path, in_forked_child=lambda: None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.db"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    spool = opened(path)
    yield spool
    spool.close()


def events(spool: Spool) -> list[bytes]:
    return [pending.event for pending in spool.head(10_000, 10**9)]


def test_events_leave_in_the_order_they_came(spool: Spool) -> None:
    for n in range(5):
        spool.append(b"%d" % n)
    first, second, *_ = spool.head(10, 1000)
    assert [first.event, second.event] == [b"0", b"1"]
    spool.remove_through(second.position)
    assert events(spool) == [b"2", b"3", b"4"]
    assert spool.count() == 3


def test_a_batch_keeps_within_its_bounds_but_is_never_empty(spool: Spool) -> None:
    for _ in range(5):
        spool.append(b"x" * 100)
    assert len(spool.head(3, 10**9)) == 3
    assert len(spool.head(10, 250)) == 2
    assert len(spool.head(10, 1)) == 1


def test_a_position_is_never_used_again(spool: Spool) -> None:
    spool.append(b"1")
    (first,) = spool.head(1, 1)
    spool.remove_through(first.position)
    spool.append(b"2")
    assert spool.first_position() > first.position


def test_the_file_is_durable_and_private(spool: Spool, path: Path) -> None:
    spool.append(b"1")
    db = spool._open()
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert path.stat().st_mode & 0o077 == 0


def test_what_waits_survives_closing(path: Path) -> None:
    first = opened(path)
    first.append(b"1")
    first.close()
    second = opened(path)
    assert events(second) == [b"1"]
    second.close()


def test_refused_events_are_set_aside_with_the_reason_and_can_come_back(spool: Spool) -> None:
    for n in range(3):
        spool.append(b"%d" % n)
    middle = spool.head(3, 1000)[1]
    spool.refuse([Refusal(middle, "model", "is unknown")])
    assert events(spool) == [b"0", b"2"]
    ((refusal, _),) = spool.refusals()
    assert refusal == Refusal(Pending(middle.position, b"1"), "model", "is unknown")
    assert spool.take_back_refused() == 1
    assert spool.refusals() == []
    assert events(spool) == [b"0", b"2", b"1"]


def test_callers_that_wait_share_one_transaction(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aragora.billing.spool.LOOK_AGAIN_SECONDS", 600)  # nobody may need it
    spool.append(b"first")
    commits: list[str] = []
    spool._open().set_trace_callback(commits.append)
    threads = [threading.Thread(target=spool.append, args=(b"%d" % n,), daemon=True) for n in range(20)]
    with spool._exclusively():
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 10
        while len(spool._waiting) < 20:
            assert time.monotonic() < deadline
            os.sched_yield()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert len(commits) == 1
    assert spool.count() == 21


def test_a_caller_that_was_interrupted_leaves_the_others_events_to_the_next(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> sqlite3.Connection:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(spool, "_open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        spool.append(b"1")
    spool.append(b"2")
    assert events(spool) == [b"1", b"2"]


def test_only_one_at_a_time_may_deliver(path: Path, spool: Spool) -> None:
    other = opened(path)
    assert spool.take_delivery()
    assert spool.take_delivery()
    assert not other.take_delivery()
    spool.close()
    assert other.take_delivery()
    other.close()
    assert not other.take_delivery()


def test_a_closed_spool_says_so(spool: Spool) -> None:
    spool.close()
    with pytest.raises(SpoolUnavailable, match="closed"):
        spool.append(b"1")


def test_a_path_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "usage.db"
    with pytest.raises(SpoolUnavailable, match=str(path)):
        UsageTracker(path)


def test_a_folder_in_its_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpoolUnavailable, match=str(tmp_path)):
        UsageTracker(tmp_path)


def test_another_kind_of_file_is_named_and_left_alone(path: Path) -> None:
    path.write_text("not a database, but a long enough text to be none" * 100)
    before = path.read_bytes()
    with pytest.raises(SpoolUnavailable, match=str(path)):
        UsageTracker(path)
    assert path.read_bytes() == before


def test_a_relative_path_lies_under_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ARAGORA_DATA_DIR", raising=False)
    UsageTracker("usage.db").close()
    assert (tmp_path / ".data" / "usage.db").exists()
    monkeypatch.setenv("ARAGORA_DATA_DIR", "elsewhere")
    UsageTracker().close()
    assert (tmp_path / "elsewhere" / "usage.db").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_full_disk_is_told_and_recovered_from(path: Path) -> None:
    # RLIMIT_FSIZE makes the operating system refuse to let any file grow, as a full disk does.
    program = """
        import resource, sys
        from pathlib import Path
        from aragora.billing.spool import Spool, SpoolUnavailable
        spool = Spool(Path(sys.argv[1]), in_forked_child=lambda: None)
        spool.append(b"1")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        written = 1
        try:
            while True:
                spool.append(b"x" * 1000)
                written += 1
        except SpoolUnavailable as error:
            assert sys.argv[1] in str(error), error
        assert written > 1
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert spool.count() == written
        spool.append(b"2")
        assert spool.count() == written + 1
        spool.close()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(path)], check=True, timeout=60)


def test_a_file_that_another_program_holds_is_told(path: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aragora.billing.spool.LOCK_TIMEOUT_SECONDS", 0)
    spool.append(b"1")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(SpoolUnavailable, match="locked"):
        spool.append(b"2")
    other.execute("ROLLBACK")
    other.close()
    spool.append(b"3")
    assert events(spool) == [b"1", b"3"]
