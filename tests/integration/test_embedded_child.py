import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
from servers import eventually

from standalone import child as child_module
from standalone.child import Child, Program
from standalone.logs import CappedLog
from standalone.problems import StartFailed
from standalone.service import PythonService

MakeChild = Callable[..., Child]
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
PARENT = """
import os, subprocess, sys, time
own = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("grandchild", own.pid, flush=True)
time.sleep(600)
"""
SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from standalone import child
from standalone.child import Child, Program
from standalone.logs import CappedLog
child.KERNEL_TELLS = sys.argv[2] == "True" and child.KERNEL_TELLS
async def main():
    program = Program("sleeper", [sys.executable, "-c", "import time; time.sleep(600)"], {})
    one = Child(program, CappedLog(Path(sys.argv[1])))
    await one.start()
    print(one.pid, flush=True)
    await one.wait()
asyncio.run(main())
"""


@pytest.fixture
async def make_child(tmp_path: Path) -> AsyncIterator[MakeChild]:
    made: list[Child] = []

    def make(code: str, *, stop_signal: signal.Signals = signal.SIGTERM) -> Child:
        program = Program("child", [sys.executable, "-c", code], dict(os.environ), stop_signal=stop_signal)
        made.append(Child(program, CappedLog(tmp_path / f"{len(made)}.log")))
        return made[-1]

    yield make
    for child in made:
        await child.stop(0)


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_its_words_reach_the_log_and_its_code_the_caller(make_child: MakeChild) -> None:
    child = make_child("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    await child.start()
    assert await child.wait() == 3
    assert set(child.log.path.read_text().split()) == {"out", "err"}
    assert not child.running


async def test_a_program_that_is_not_there_ends_and_its_log_says_so(tmp_path: Path) -> None:
    child = Child(Program("absent", ["/nowhere/absent"], {}), CappedLog(tmp_path / "log"))
    await child.start()
    assert await child.wait() == 1
    assert "/nowhere/absent cannot be executed" in child.log.last_lines()


async def test_it_is_asked_to_end(make_child: MakeChild) -> None:
    child = make_child(SLEEPER)
    await child.start()
    await eventually(lambda: "up" in child.log.last_lines())
    assert await child.stop(20) == -signal.SIGTERM


async def test_who_does_not_listen_is_killed(make_child: MakeChild) -> None:
    child = make_child(STUBBORN)
    await child.start()
    await eventually(lambda: "up" in child.log.last_lines())
    assert await child.stop(0.05) == -signal.SIGKILL


async def test_a_kill_takes_its_children_too(make_child: MakeChild) -> None:
    child = make_child(PARENT)
    await child.start()
    line = await eventually(lambda: child.log.last_lines(1).split())
    grandchild = int(line[1])
    assert not _gone(grandchild)
    await child.kill()
    assert _gone(grandchild)
    assert not child.running


async def test_it_does_not_hear_the_terminal(make_child: MakeChild) -> None:
    child = make_child(SLEEPER)
    await child.start()
    assert os.getsid(child.pid) == child.pid != os.getsid(0)


@pytest.mark.parametrize("kernel_tells", [True, False])
async def test_it_does_not_outlive_a_killed_parent(tmp_path: Path, kernel_tells: bool) -> None:  # noqa: FBT001
    arguments = ["-c", SUPERVISOR, str(tmp_path / "log"), str(kernel_tells)]
    parent = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(await asyncio.wait_for(parent.stdout.readline(), 20))
    assert not _gone(pid)
    parent.kill()
    await parent.communicate()
    await eventually(lambda: _gone(pid))


async def test_the_guard_goes_with_its_child(make_child: MakeChild, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "KERNEL_TELLS", False)
    child = make_child(SLEEPER)
    await child.start()
    guard = child._guard
    assert guard is not None
    await child.stop(20)
    assert _gone(guard.pid)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_it_can_run_as_somebody_else(tmp_path: Path) -> None:
    nobody = child_module.SystemUser("nobody", 65534, 65534)
    log = CappedLog(tmp_path / "log")
    child = Child(Program("id", ["/usr/bin/id"], {"PATH": os.defpath}, user=nobody), log)
    await child.start()
    assert await child.wait() == 0
    assert "uid=65534" in log.last_lines()
    assert "root" not in log.last_lines()


async def answered() -> bool:
    return True


async def test_one_that_was_launched_is_started_where_it_stands(tmp_path: Path):
    server = PythonService("server", tmp_path, ["http.server", "--bind", "127.0.0.1", "0"], {}, answered)
    await server.launch()
    try:
        launched = server.pid
        await server.start()
        assert server.pid == launched
        psutil.Process(launched).kill()
        await server.wait()
        await server.start()
        assert server.pid != launched
    finally:
        await server.stop(5)


async def test_one_that_was_launched_and_ended_is_said_to_have_failed(tmp_path: Path):
    nothing = PythonService("nothing", tmp_path, ["no_such_module"], {}, answered)
    await nothing.launch()
    await nothing.wait()
    with pytest.raises(StartFailed, match=r"it ended with 1\)\. Its log:\s+.*No module named no_such_module"):
        await nothing.start()
