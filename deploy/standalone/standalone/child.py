"""A program that runs as our child: started, watched, stopped, and never left behind."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from standalone.logs import CappedLog
from standalone.problems import StartFailed

_LAUNCH = str(Path(__file__).with_name("launch.py"))

KERNEL_TELLS = sys.platform == "linux"
"""Whether the kernel signals a child when its parent dies; elsewhere a guard beside each child does."""
_GUARD = 'read -r _; kill -s "$1" "$2"'
"""Waits for the end of its standard input, which comes when the process that holds the other end dies."""


@dataclass(frozen=True, slots=True)
class SystemUser:
    """The user that a child runs as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, and which signals mean what to it."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    stop_signal: signal.Signals = signal.SIGTERM
    """Asks it to finish what it does and end."""
    hurry_signal: signal.Signals = signal.SIGKILL
    """Ends it now; nothing acknowledged is lost."""
    user: SystemUser | None = None
    cwd: str = "/"


class Child:
    """One running program. It has its own session, so that Ctrl-C in the terminal reaches only us.

    Start it from the main thread: Linux ties a child's life to the thread that started it.
    """

    def __init__(self, program: Program, log: CappedLog) -> None:
        self.program = program
        self.log = log
        self._process: asyncio.subprocess.Process | None = None
        self._guard: asyncio.subprocess.Process | None = None
        self._pump: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The child's process id; of the last one if it has ended."""
        if self._process is None:
            raise StartFailed(f"{self.program.name} was never started.")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the program. If it cannot be executed it ends at once, and its log says why."""
        program = self.program
        user = program.user
        launch = [str(os.getpid()), str(int(program.stop_signal))]
        launch += [str(user.uid), str(user.gid)] if user else ["-1", "-1"]
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", _LAUNCH, *launch, *program.argv),
            env=dict(program.env),
            cwd=program.cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self._pump = asyncio.create_task(self._write_log(self._process))
        if not KERNEL_TELLS:
            self._guard = await asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", _GUARD, "guard", program.stop_signal.name.removeprefix("SIG"), str(self.pid)),
                stdin=asyncio.subprocess.PIPE,
                start_new_session=True,
            )

    async def _write_log(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            return
        while chunk := await process.stdout.read(65536):
            self.log.write(chunk)

    async def wait(self) -> int:
        """Wait until it ends. Returns its exit code, negative for the signal that ended it."""
        if self._process is None:
            return 0
        code = await self._process.wait()
        if self._guard is not None and self._guard.returncode is None:
            self._guard.kill()
            await self._guard.wait()
        if self._pump is not None:
            # A grandchild may hold the pipe open for ever; what the child itself said is there at once.
            await asyncio.wait([self._pump], timeout=1)
            self._pump.cancel()
        self.log.close()
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self._process is not None and self.running:
            self._process.send_signal(number)

    async def stop(self, timeout_seconds: float) -> int:
        """Ask it to end; after the timeout, hurry it; after another 10 seconds, kill it. Returns its exit code."""
        for number, patience_seconds in (
            (self.program.stop_signal, timeout_seconds),
            (self.program.hurry_signal, 10.0),
        ):
            if not self.running:
                break
            self.signal(number)
            try:
                return await asyncio.wait_for(self.wait(), patience_seconds)
            except TimeoutError:
                continue
        if self.running:
            await self.kill()
        return await self.wait()

    async def kill(self) -> None:
        """SIGKILL it and everything it started, as a crash or the kernel's out-of-memory killer would."""
        if not self.running:
            return
        try:
            family = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            family = []
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        await self.wait()
        await until(lambda: not any(_alive(process) for process in family))


async def until(condition: Callable[[], bool]) -> None:
    """Poll for what gives no signal: another process's file, the end of somebody else's child."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def until_answers(child: Child, ready: Callable[[], Awaitable[bool]], timeout_seconds: float) -> bool:
    """Ask until the answer is yes. False if the child ends before, or the time is up."""
    deadline = time.monotonic() + timeout_seconds
    while child.running and time.monotonic() < deadline:
        if await ready():
            return child.running
        await asyncio.sleep(0.05)
    return False


async def end_leftover(is_it: Callable[[psutil.Process], bool], *signals: signal.Signals) -> None:
    """End a process that outlived the `aragora up` that started it, so that two never write the same files."""
    for process in psutil.process_iter():
        try:
            if not is_it(process):
                continue
        except (psutil.Error, OSError):
            continue
        for number in (*signals, signal.SIGKILL):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
            if not (await asyncio.to_thread(psutil.wait_procs, [process], 20))[1]:
                break


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def log_for(data_dir: Path, name: str) -> CappedLog:
    """The log of the child `name` under the data directory."""
    return CappedLog(data_dir / "logs" / f"{name}.log")
