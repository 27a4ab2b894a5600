import os
import stat
from pathlib import Path

import pytest

from standalone import machine, postgres, unprivileged
from standalone.child import SystemUser
from standalone.logs import CappedLog
from standalone.machine import GIB, MIB

STRANGER = SystemUser("stranger", 54321, 54321)


def test_a_container_counts_as_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    everything = machine.memory_bytes()
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.memory_bytes() == everything
    assert machine.cores() >= 1
    (tmp_path / "memory.max").write_text(f"{64 * MIB}\n")
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert machine.memory_bytes() == 64 * MIB
    assert machine.cores() == 1


@pytest.mark.parametrize("memory", [256 * MIB, 2 * GIB, 24 * GIB, 512 * GIB])
@pytest.mark.parametrize("disk", [100 * MIB, 10 * GIB, 4000 * GIB])
def test_postgres_is_sized_to_the_machine_and_never_less_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int, disk: int
) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: memory)
    monkeypatch.setattr(machine, "free_disk_bytes", lambda _: disk)
    settings = postgres.settings_for_this_machine(tmp_path)
    shared = int(settings["shared_buffers"].removesuffix("MB"))
    wal = int(settings["max_wal_size"].removesuffix("MB"))
    assert 128 <= shared <= max(128, min(4096, memory // MIB // 8))
    assert 256 <= wal <= max(256, min(8192, disk // MIB // 8))
    assert int(settings["min_wal_size"].removesuffix("MB")) < wal
    assert (settings["fsync"], settings["synchronous_commit"]) == ("on", "on")
    assert "full_page_writes" not in settings


def test_a_log_is_bounded_and_remembers_its_last_words(tmp_path: Path) -> None:
    log = CappedLog(tmp_path / "logs" / "child.log", max_bytes=1000)
    for number in range(500):
        log.write(f"line {number}\n".encode())
    log.close()
    log.write(b"too late\n")
    files = sorted(tmp_path.rglob("child.log*"))
    assert [file.name for file in files] == ["child.log", "child.log.1"]
    assert all(file.stat().st_size < 1100 for file in files)
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    assert "line 499" in files[0].read_text() + files[1].read_text()
    assert log.last_lines(2) == "    line 499\n    too late"


def test_a_log_goes_on_where_it_was(tmp_path: Path) -> None:
    for word in ("first", "second"):
        log = CappedLog(tmp_path / "child.log")
        log.write(word.encode())
        log.close()
    assert (tmp_path / "child.log").read_text() == "firstsecond"
    assert log.last_lines() == "    second"


def test_the_way_is_opened_no_wider_than_needed(tmp_path: Path) -> None:
    closed, open_, target = tmp_path / "closed", tmp_path / "closed" / "open", tmp_path / "closed" / "open" / "target"
    target.mkdir(parents=True)
    closed.chmod(0o700)
    open_.chmod(0o711)
    target.chmod(0o700)
    opened = unprivileged.open_way_to(STRANGER, target)
    assert closed in opened
    assert open_ not in opened
    assert stat.S_IMODE(closed.stat().st_mode) == 0o701
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert unprivileged.open_way_to(STRANGER, target) == []


def test_rights_count_by_owner_then_group_then_the_rest(tmp_path: Path) -> None:
    tmp_path.chmod(0o701)
    me = SystemUser("me", os.getuid(), os.getgid())
    assert unprivileged._may(me, tmp_path, 4)
    assert not unprivileged._may(SystemUser("colleague", 54321, tmp_path.stat().st_gid), tmp_path, 1)
    assert unprivileged._may(STRANGER, tmp_path, 1)
    assert not unprivileged._may(STRANGER, tmp_path, 4)


def test_an_install_with_a_closed_umask_is_opened_for_reading(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "program").touch(mode=0o700)
    (tree / "text").touch(mode=0o600)
    for folder in (tree, tree / "bin"):
        folder.chmod(0o700)
    unprivileged.open_for_reading(STRANGER, tree)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tree, *tree.rglob("*"))}
    assert modes == {"tree": 0o705, "bin": 0o705, "program": 0o705, "text": 0o604}
