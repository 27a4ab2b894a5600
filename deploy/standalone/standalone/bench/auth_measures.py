"""What is measured of auth: signing in, verifying tokens and keys, how soon a revoked token is refused everywhere."""

import asyncio
import multiprocessing
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from aragora.billing.api_keys import digest_of
from aragora.billing.jwt_auth import TokenBlacklist, create_access_token, validate_access_token
from aragora.contracts.ids import new_id
from aragora.contracts.keys import KeyVerdict, VerifyKey
from aragora.contracts.topology import VERIFY_KEY
from aragora_nats.connecting import connect_once
from standalone.bench.http_load import Connection
from standalone.bench.measures import Bench

ACCOUNTS = 240
PASSWORD = "tangerine-lamp-orbit-42"  # noqa: S105 - of nobody
REVOCATIONS = 200
PROBES_PER_SECOND = 50
TOKENS = 20_000
REPEATED_TOKENS = 5_000
"""As many as a process remembers the signatures of, and more."""
REVOKED = 10_000
PERSONAL_ROUTES = {
    "auth": "/api/auth/me",
    "metering": "/api/subscription/pricing",
    "billing": "/api/subscription/plans",
    "notifier": "/api/notifications/kinds",
}
"""A route of each service that every person may ask."""


@dataclass(frozen=True, slots=True)
class Person:
    """An account of the bench, signed in."""

    email: str
    org_id: str
    token: str


async def register(bench: Bench, accounts: int = ACCOUNTS) -> list[Person]:
    """Open accounts, each with an organization of its own, over HTTP."""

    async def open_account(connection: Connection, email: str) -> Person:
        body = msgspec.json.encode({"email": email, "password": PASSWORD})
        begun = msgspec.json.decode(await connection.post("/api/auth/register", body, b"201"))["data"]
        return Person(email, begun["organization"]["org_id"], begun["access_token"])

    emails = [f"{time.time_ns()}-{number}@example.com" for number in range(accounts)]
    return await _over(8, bench, emails, open_account)


async def sign_ins(
    bench: Bench, people: Sequence[Person], seconds: float = 8
) -> tuple[float, list[float], list[float]]:
    """(sign-ins per second of many accounts, milliseconds of `GET /api/auth/me` alone, and while they sign in)."""
    running, token = bench.running, people[0].token
    alone = await _probe(bench, token, seconds / 2)
    done = 0
    started_at = time.perf_counter()

    async def sign_in(first: int) -> None:
        nonlocal done
        async with Connection(running.host, running.port, bench.service_key) as connection:
            turn = first
            while time.perf_counter() - started_at < seconds:
                body = msgspec.json.encode({"email": people[turn % len(people)].email, "password": PASSWORD})
                await connection.post("/api/auth/login", body, b"200")
                done, turn = done + 1, turn + 16

    probing = asyncio.create_task(_probe(bench, token, seconds))
    await asyncio.gather(*(sign_in(first) for first in range(16)))
    per_second = done / (time.perf_counter() - started_at)
    bench.look_at_memory()
    return per_second, alone, await probing


async def _probe(bench: Bench, token: str, seconds: float) -> list[float]:
    """Milliseconds per request at a steady rate, each counted from when it was due."""
    took: list[float] = []
    async with Connection(bench.running.host, bench.running.port, token) as connection:
        started_at = time.perf_counter()
        for turn in range(int(seconds * PROBES_PER_SECOND)):
            due = started_at + turn / PROBES_PER_SECOND
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await connection.get("/api/auth/me")
            took.append((time.perf_counter() - due) * 1000)
    return sorted(took)


async def verifications() -> tuple[float, float]:
    """(tokens verified per second of a core's time, at first and again), where 10,000 others are revoked."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, _verify)


def _verify() -> tuple[float, float]:
    os.environ |= {"ARAGORA_JWT_ALGORITHM": "HS256", "ARAGORA_JWT_SECRET": "of nobody, and long enough for it"}
    expires_at = datetime.now(UTC) + timedelta(days=1)
    for number in range(REVOKED):
        TokenBlacklist.get_instance().revoke(str(new_id()), expires_at=expires_at, reason="bench")
        TokenBlacklist.get_instance().revoke_all_for_user(f"somebody else {number}", "bench")
    tokens = [
        create_access_token(str(new_id()), "a@example.com", "acme", session_id=str(new_id())) for _ in range(TOKENS)
    ]
    first = _timed(tokens)
    repeated = tokens[-REPEATED_TOKENS:]
    return first, _timed(repeated * (TOKENS // REPEATED_TOKENS))


def _timed(tokens: Sequence[str]) -> float:
    started_at = time.process_time()  # what others do on this core meanwhile is not what is measured
    if not all(map(validate_access_token, tokens)):
        raise RuntimeError("a good token was refused")
    return len(tokens) / (time.process_time() - started_at)


async def key_verifications(bench: Bench, owner: Person, seconds: float = 4, at_once: int = 64) -> float:
    """API keys verified per second by auth, on the bus, as if nobody remembered an answer."""
    question = msgspec.json.encode(VerifyKey(digest=digest_of(await _make_key(bench, owner))))
    client = await connect_once(bench.bus_url)
    done = 0
    started_at = time.perf_counter()

    async def ask() -> None:
        nonlocal done
        while time.perf_counter() - started_at < seconds:
            reply = await client.request(VERIFY_KEY, question, timeout=10)
            if msgspec.json.decode(reply.data, type=KeyVerdict).holder is None:
                raise RuntimeError("a good key was refused")
            done += 1

    await asyncio.gather(*(ask() for _ in range(at_once)))
    await client.close()
    return done / (time.perf_counter() - started_at)


async def _make_key(bench: Bench, owner: Person) -> str:
    """An API key of the person's organization, which gets a plan with API access."""
    host, port = bench.running.host, bench.running.port
    async with Connection(host, port, bench.service_key) as operator, Connection(host, port, owner.token) as person:
        plans = msgspec.json.decode(await operator.get("/api/subscription/plans"))["data"]
        plan = next(plan["id"] for plan in plans if plan["features"].get("api_access"))
        path = f"/api/subscription/organizations/{owner.org_id}/subscription"
        await operator.ask("PUT", path, msgspec.json.encode({"plan": plan}))
        wanted = msgspec.json.encode({"name": "bench", "scopes": ["usage.read"]})
        while True:  # until auth has heard of the plan
            status, made = await person.ask("POST", "/api/auth/api-keys", wanted)
            if status == b"201":
                return str(msgspec.json.decode(made)["data"]["key"])
            await asyncio.sleep(0.05)


async def revocations(bench: Bench, people: Sequence[Person], apis: Sequence[tuple[str, int]]) -> list[float]:
    """Milliseconds from the answer to a revocation until the last of all API processes refuses the token.

    Args:
        bench: the gateway revokes.
        people: whose tokens are revoked, one after the other.
        apis: further processes, each as the service that it is of and its port.
    """
    running = bench.running
    everywhere = [("auth", running.port), *apis]
    waits: list[float] = []
    for person in people:
        answered = asyncio.Event()
        revoked_at = 0.0
        known = asyncio.Barrier(len(everywhere) + 1)

        async def refused(
            service: str, port: int, person: Person = person, answered: asyncio.Event = answered,
            known: asyncio.Barrier = known,
        ) -> float:  # fmt: skip
            async with Connection(running.host, port, person.token) as connection:
                await connection.get(PERSONAL_ROUTES[service])
                await known.wait()
                await answered.wait()
                while (await connection.ask("GET", PERSONAL_ROUTES[service]))[0] != b"401":
                    continue
            return time.perf_counter()

        watching = [asyncio.create_task(refused(service, port)) for service, port in everywhere]
        async with Connection(running.host, running.port, person.token) as connection:
            await known.wait()
            await connection.post("/api/auth/revoke", msgspec.json.encode({"token": person.token}), b"200")
            revoked_at = time.perf_counter()
            answered.set()
        waits.append((max(await asyncio.gather(*watching)) - revoked_at) * 1000)
    return sorted(waits)


async def _over(
    connections: int, bench: Bench, items: Sequence[str], ask: Callable[[Connection, str], Awaitable[Any]]
) -> list[Any]:
    """Ask about all items over so many connections; the answers, in the order of the items."""
    found: dict[str, Any] = {}

    async def take(share: Sequence[str]) -> None:
        async with Connection(bench.running.host, bench.running.port, bench.service_key) as connection:
            for item in share:
                found[item] = await ask(connection, item)

    await asyncio.gather(*(take(items[start::connections]) for start in range(connections)))
    return [found[item] for item in items]
