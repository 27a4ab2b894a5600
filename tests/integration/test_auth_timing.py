"""Passwords are hashed beside the event loop: however many sign in at once, others get their answers."""

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from auth_platform import AuthPlatform, auth_platform
from one_service import bearer, checked
from servers import PostgresServer

AT_ONCE = 64
LOGINS = 3 * AT_ONCE
OF_THE_LINE = 4
"""Were hashes made on the loop, everybody would wait for the whole line, 64 times as long as one sign-in takes.
Whatever the machine: others wait for less than a quarter of that."""
LOGINS_PER_SECOND = 8
"""What a single slow core does; `make bench` measures what it really is (20 a second and core are wanted)."""


@pytest.fixture(scope="module")
async def costly(postgres_server: PostgresServer, auth_template: str, nats_server: str) -> AsyncIterator[AuthPlatform]:
    """Auth with hashes that cost what they do by default."""
    default = {"ARAGORA_PASSWORD_MEMORY_KIB": "19456", "ARAGORA_PASSWORD_TIME_COST": "2"}
    async with auth_platform(postgres_server, auth_template, nats_server, **default) as running:
        yield running


async def test_while_many_sign_in_others_are_answered(costly: AuthPlatform):
    people = await asyncio.gather(*(costly.register() for _ in range(8)))
    alone = []
    for person in people:
        begun = time.monotonic()
        await costly.sign_in(person)
        alone.append(time.monotonic() - begun)
    line_seconds = AT_ONCE * sorted(alone)[len(alone) // 2]
    waited: list[float] = []
    all_in = asyncio.Event()

    async def ask_who_i_am() -> None:
        async with httpx.AsyncClient(base_url=costly.client.base_url, headers=bearer(people[0].access_token)) as client:
            while not all_in.is_set():
                begun = time.monotonic()
                assert checked(await client.get("/api/auth/me", timeout=30)).status_code == 200
                waited.append(time.monotonic() - begun)

    asking = asyncio.create_task(ask_who_i_am())
    turns, begun = asyncio.Semaphore(AT_ONCE), time.monotonic()

    async def sign_in(number: int) -> None:
        async with turns:
            await costly.sign_in(people[number % len(people)])

    await asyncio.gather(*map(sign_in, range(LOGINS)))
    per_second = LOGINS / (time.monotonic() - begun)
    all_in.set()
    await asking
    waited.sort()
    p99 = waited[len(waited) * 99 // 100]
    print(f"{per_second:.0f} sign-ins/s; meanwhile {len(waited)} answers, p99 {p99 * 1e3:.0f} ms")
    assert len(waited) > 20
    assert p99 < line_seconds / OF_THE_LINE
    assert per_second > LOGINS_PER_SECOND
