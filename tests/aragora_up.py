"""`aragora` as a person starts it: a real process, real ports, real signals."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import httpx
from servers import starting_alone

from standalone import credentials, datadir, machine
from standalone.datadir import Running

ARAGORA = [sys.executable, "-P", "-c", "from standalone.cli import app; app()"]
END_OF_PANEL = "╰"


@dataclass
class Up:
    """A running `aragora up`."""

    process: asyncio.subprocess.Process
    data_dir: Path
    printed: str

    @property
    def running(self) -> Running:
        return datadir.current_run(self.data_dir)

    def client(self) -> httpx.AsyncClient:
        key = credentials.read(self.data_dir).service_key
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.AsyncClient(base_url=self.running.url, headers=headers, timeout=30)

    async def read_until(self, text: str, timeout_seconds: float = 60) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout_seconds):
            while text not in self.printed:
                line = await self.process.stdout.readline()
                assert line, f"it ended and said:\n{self.printed}"
                self.printed += line.decode()

    async def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        rest, _ = await asyncio.wait_for(self.process.communicate(), 60)
        self.printed += rest.decode()
        return self.process.returncode or 0


StartUp = Callable[..., Awaitable[Up]]


@asynccontextmanager
async def starter(data_dir: Path) -> AsyncIterator[StartUp]:
    """Starts `aragora up` on the directory, any number of times, with arguments and environment variables."""
    async with AsyncExitStack() as stack:

        async def start(*arguments: str, until: str = END_OF_PANEL, **variables: str) -> Up:
            async with starting_alone():
                return await start_now(str(machine.free_port()), *arguments, until=until, **variables)

        async def start_now(port: str, *arguments: str, until: str, **variables: str) -> Up:
            process = await aragora("up", "--workers", "1", "--port", port, *arguments, at=data_dir, **variables)
            started = Up(process, data_dir, "")

            async def leave_nothing() -> None:
                if process.returncode is None:
                    await started.end(signal.SIGTERM)

            stack.push_async_callback(leave_nothing)
            await started.read_until(until)
            return started

        yield start


async def aragora(*arguments: str, at: Path, **variables: str) -> asyncio.subprocess.Process:
    """Starts a command."""
    environment = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "NATS_URL"}}
    return await asyncio.create_subprocess_exec(
        *ARAGORA,
        *arguments,
        env={**environment, "ARAGORA_DATA_DIR": str(at), "COLUMNS": "200", **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def output(*arguments: str, at: Path, **variables: str) -> tuple[int, str]:
    """Runs a command to its end. Returns its exit code and what it printed."""
    async with starting_alone() if arguments[0] == "up" else nullcontext():
        process = await aragora(*arguments, at=at, **variables)
        printed, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, printed.decode()
