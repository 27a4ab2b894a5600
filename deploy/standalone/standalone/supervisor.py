"""Starts children in order, starts a crashed one again, and stops all in reverse order."""

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Protocol

from standalone.problems import StandaloneError

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A child that ran this long had recovered: its next crash is a first one again."""


class Service(Protocol):
    """What can be supervised."""

    name: str

    @property
    def pid(self) -> int:
        """Its process id, once it was started."""

    async def start(self) -> None:
        """Start it; returns when it is ready. Raises a `StandaloneError` otherwise."""

    async def wait(self) -> int:
        """Wait until it ends. Returns its exit code."""

    async def stop(self) -> None:
        """End it in good order, within a bounded time."""

    def hurry(self) -> None:
        """End it now."""


def describe_exit(code: int) -> str:
    """An exit code in words, such as `exit code 1` or `SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


class Supervisor:
    """Watches over services.

    Args:
        say: gets a sentence for whatever the operator should know.
        restarted: is called when a service runs again, with another process id.
    """

    def __init__(self, say: Callable[[str], None], restarted: Callable[[], None] = lambda: None) -> None:
        self._say = say
        self._restarted = restarted
        self._groups: list[tuple[Service, ...]] = []
        self._watchers: list[asyncio.Task[None]] = []

    async def start(self, *services: Service) -> None:
        """Start services that do not need each other, together, and watch them from then on.

        If one does not become ready, its `StandaloneError` is raised; the others keep running until `stop`.
        """
        self._groups.append(services)
        outcomes = await asyncio.gather(*(self._first_start(service) for service in services), return_exceptions=True)
        for service, outcome in zip(services, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            self._watchers.append(asyncio.create_task(self._watch(service)))

    async def _first_start(self, service: Service) -> None:
        started_at = time.monotonic()
        await service.start()
        self._say(f"{service.name} is ready ({time.monotonic() - started_at:.1f} s)")

    def pids(self) -> dict[str, int]:
        """The process ids of all services, by name."""
        return {service.name: service.pid for services in self._groups for service in services}

    async def stop(self) -> None:
        """Stop all, the last started first. Repeating it is harmless."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        self._watchers.clear()
        while self._groups:
            await asyncio.gather(*(service.stop() for service in self._groups[-1]))
            self._groups.pop()

    def hurry(self) -> None:
        """End at once what `stop` is still waiting for."""
        for services in reversed(self._groups):
            for service in services:
                service.hurry()

    async def _watch(self, service: Service) -> None:
        delay_seconds = FIRST_DELAY_SECONDS
        while True:
            started_at = time.monotonic()
            ended = describe_exit(await service.wait())
            if time.monotonic() - started_at > STEADY_SECONDS:
                delay_seconds = FIRST_DELAY_SECONDS
            self._say(f"{service.name} ended with {ended}; it starts again in {delay_seconds:g} s.")
            delay_seconds = await self._start_again(service, delay_seconds)
            self._restarted()
            self._say(f"{service.name} runs again.")

    async def _start_again(self, service: Service, delay_seconds: float) -> float:
        """Try until it runs. Returns how long to wait before the next time."""
        while True:
            await asyncio.sleep(delay_seconds)
            delay_seconds = min(2 * delay_seconds, LONGEST_DELAY_SECONDS)
            try:
                await service.start()
            except StandaloneError as error:
                self._say(f"{error}\nThe next try is in {delay_seconds:g} s.")
            else:
                return delay_seconds
