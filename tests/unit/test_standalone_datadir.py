import asyncio
import errno
from dataclasses import replace
from pathlib import Path

import pytest

from standalone import datadir, machine
from standalone.datadir import Running
from standalone.machine import MIB
from standalone.problems import AlreadyRunning, DataDirUnusable, NotEnoughDisk, NotRunning

RUNNING = Running(
    pid=7, host="127.0.0.1", port=8000, postgres_port=1, nats_port=2, monitoring_port=3, services={"x": 9}
)


def test_only_one_may_hold_a_directory_and_the_other_learns_where_it_is(tmp_path: Path) -> None:
    with datadir.claimed(tmp_path / "new"):
        datadir.remember(tmp_path / "new", RUNNING)
        with pytest.raises(AlreadyRunning, match=r"pid 7, http://127\.0\.0\.1:8000"), datadir.claimed(tmp_path / "new"):
            pytest.fail("two hold it")
        with datadir.claimed(tmp_path / "other"):
            assert datadir.current_run(tmp_path / "new") == RUNNING
    with datadir.claimed(tmp_path / "new"):
        assert datadir.last_run(tmp_path / "new") == RUNNING


def test_what_ran_last_does_not_run(tmp_path: Path) -> None:
    with datadir.claimed(tmp_path):
        datadir.remember(tmp_path, RUNNING)
    with pytest.raises(NotRunning, match="aragora up"):
        datadir.current_run(tmp_path)
    with pytest.raises(NotRunning, match="aragora up"):
        datadir.current_run(tmp_path / "never was")
    assert not (tmp_path / "never was").exists()


async def test_who_is_launched_before_all_is_prepared_waits_for_that(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="aragora up"):
        datadir.prepared_run(tmp_path)
    datadir.remember(tmp_path, RUNNING)
    waiting = asyncio.create_task(asyncio.to_thread(datadir.prepared_run, tmp_path))
    await asyncio.wait([waiting], timeout=0.1)
    assert not waiting.done()
    prepared = replace(RUNNING, is_prepared=True)
    datadir.remember(tmp_path, prepared)
    assert await asyncio.wait_for(waiting, 10) == prepared


def test_a_record_that_another_version_wrote_is_as_none(tmp_path: Path) -> None:
    (tmp_path / "running.json").write_text('{"pid": 7}')
    assert datadir.last_run(tmp_path) is None


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataDirUnusable, match=r"file cannot be used: .*--data-dir"), datadir.claimed(tmp_path / "file"):
        pytest.fail("held a file")


def test_a_directory_that_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DataDirUnusable, match=r"Permission denied.*Make it writable"), datadir.claimed(tmp_path):
        pytest.fail("held what it may not write")


def test_a_full_disk_is_said_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_disk_bytes", lambda _: 20 * MIB)
    with pytest.raises(NotEnoughDisk, match=r"Only 20 MiB are free .* 1024 MiB are needed"), datadir.claimed(tmp_path):
        pytest.fail("started on a full disk")


def test_the_url_can_be_opened() -> None:
    assert RUNNING.url == "http://127.0.0.1:8000"
    assert replace(RUNNING, host="0.0.0.0").url == "http://127.0.0.1:8000"  # noqa: S104
    assert replace(RUNNING, host="10.0.0.7").url == "http://10.0.0.7:8000"
