"""Passwords, beside the event loop: as many are hashed at once as there are cores, the others wait for their turn."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from aragora.billing.passwords import check_strength, hash_password, needs_rehash, verify_password
from aragora.chassis.problems import Problem

MAX_WAITING = 512
"""More sign-ins than this at once are put off: each holds memory, and would wait for seconds."""


class Hasher:
    """Argon2id with these parameters. Whoever wants something hashed takes a turn first."""

    def __init__(self, memory_kib: int, time_cost: int) -> None:
        threads = _cores()
        self._parameters = {"memory_kib": memory_kib, "time_cost": time_cost}
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._turns = asyncio.Semaphore(threads)
        self._waiting = 0
        self._nobodys = hash_password("nobody has this password", **self._parameters)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a thread. What is looked up inside is not out of date when the hash is known.

        Raises:
            Problem: 503, too many wait already.
        """
        if self._waiting >= MAX_WAITING:
            raise Problem(503, "Too many people are signing in; try again.", headers={"Retry-After": "2"})
        self._waiting += 1
        try:
            async with self._turns:
                yield
        finally:
            self._waiting -= 1

    async def hash(self, password: str) -> str:
        """The password's hash, with a salt of its own."""
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: hash_password(password, **self._parameters)
        )

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Whether this is the password. Without a hash, because there is no account, it takes as long to say no."""
        good = await asyncio.get_running_loop().run_in_executor(
            self._threads, verify_password, password, hashed or self._nobodys
        )
        return good and hashed is not None

    def outdated(self, hashed: str) -> bool:
        """Whether it was made with other parameters than ours."""
        return needs_rehash(hashed, **self._parameters)

    async def weakness(self, password: str, personal: Iterable[str]) -> str | None:
        """Why the password is too easy to guess, if it is. `personal`: words that somebody who knows them would try."""
        words = {part for text in personal for part in (text, text.partition("@")[0]) if part}
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: check_strength(password, personal=sorted(words))
        )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
