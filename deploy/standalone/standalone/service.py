"""One of the platform's own Python processes, as our child."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from standalone.child import Child, Program, log_for, until_answers
from standalone.problems import StartFailed


class PythonService:
    """Runs `python -m MODULE ...`.

    Args:
        name: what people and log files call it.
        data_dir: its log goes to `data_dir/logs/NAME.log`.
        module: the module and its arguments.
        settings: environment variables that it gets beside ours.
        ready: answers whether it can work; without one, it is ready once it runs.
    """

    def __init__(
        self,
        name: str,
        data_dir: Path,
        module: Sequence[str],
        settings: Mapping[str, str],
        ready: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self.name = name
        self._data_dir = data_dir
        argv = [sys.executable, "-P", "-m", *module]
        self._program = Program(name, argv, {**os.environ, **settings, "PYTHONUNBUFFERED": "1"}, cwd=str(Path.cwd()))
        self._ready = ready
        self._child: Child | None = None
        self._is_launched = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._launched().pid

    def _launched(self) -> Child:
        if self._child is None:
            raise StartFailed(f"{self.name} was never started.")
        return self._child

    async def launch(self) -> None:
        """Let it begin, for who has something else to do before `start`. Whoever launches it stops it."""
        self._child = Child(self._program, log_for(self._data_dir, self.name))
        self._is_launched = True
        await self._child.start()

    async def start(self) -> None:
        """Start it unless it was launched; returns when it is ready. Raises `StartFailed` with its last log lines."""
        if not self._is_launched:
            await self.launch()
        self._is_launched = False
        child = self._launched()
        if self._ready is None or await until_answers(child, self._ready, timeout_seconds=60):
            return
        ended = "" if child.running else f" (it ended with {await child.wait()})"
        await child.stop(5)
        raise StartFailed(f"{self.name} did not become ready{ended}. Its log:\n{child.log.last_lines()}")

    async def run_once(self) -> str:
        """Run it to its end. Returns the last line it printed. Raises `StartFailed` if it failed."""
        await self.launch()
        self._is_launched = False
        child = self._launched()
        try:
            code = await child.wait()
        except asyncio.CancelledError:
            await child.stop(10)
            raise
        if code != 0:
            raise StartFailed(f"{self.name} failed with {code}. Its log:\n{child.log.last_lines()}")
        return child.log.last_lines(1).strip()

    async def wait(self) -> int:
        """Wait until it ends. Returns its exit code."""
        return await self._child.wait() if self._child else 0

    async def stop(self, timeout_seconds: float = 40) -> None:
        """Let it finish what it has begun; after the timeout, kill it."""
        if self._child is not None:
            await self._child.stop(timeout_seconds)

    def hurry(self) -> None:
        """Kill it. Nothing acknowledged is lost: the bus delivers again."""
        if self._child is not None:
            self._child.signal(self._program.hurry_signal)
