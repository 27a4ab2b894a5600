"""Questions about limits, asked from a process of their own: so fast as they are answered, or at a given rate."""

import asyncio
import multiprocessing
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import msgspec
import uvloop

from aragora.contracts.ids import new_id
from aragora_nats.connecting import connect_once
from standalone.bench.http_load import Connection

CONNECTIONS = 64
"""Over HTTP, each with one question under way."""


@dataclass(frozen=True, slots=True)
class Questions:
    """What to ask, and how: on the bus (`rpc.metering.<verb>`), or over HTTP if `http` names the API and a key."""

    verb: str
    organizations: tuple[str, ...]
    bus_url: str
    seconds: float
    per_second: int | None = None
    """None: as fast as they are answered, `at_once` at a time."""
    at_once: int = 64
    http: tuple[str, int, str] | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """How fast, and after how many milliseconds each (ordered). Under a rate, counted from when it was due."""

    per_second: float
    milliseconds: list[float]


def ask(questions: Questions) -> Answered:
    """Ask from another process, after a second of warming up. Raises `RuntimeError` if an answer is not a yes."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_in_process, args=(questions, sender), daemon=True)
    process.start()
    answered = receiver.recv()
    process.join()
    if isinstance(answered, str):
        raise RuntimeError(answered)  # noqa: TRY004 - what the other process said
    return Answered(*answered)


def _in_process(questions: Questions, sender: Any) -> None:
    try:
        sender.send(uvloop.run(_ask(questions)))
    except Exception as error:  # noqa: BLE001 - told to whoever started this process
        sender.send(f"{type(error).__name__}: {error}")


async def _ask(questions: Questions) -> tuple[float, list[float]]:
    send, close = await (_over_http(questions) if questions.http else _on_the_bus(questions))
    rnd = random.Random(5)  # noqa: S311 - a load, not a secret

    async def one() -> None:
        await send(_body(questions, rnd))

    try:
        run = _at_rate if questions.per_second else _as_fast_as_answered
        await run(one, questions, 1.0)
        started_at = time.perf_counter()
        took = await run(one, questions, questions.seconds)
        return len(took) / (time.perf_counter() - started_at), sorted(took)
    finally:
        await close()


async def _as_fast_as_answered(
    one: Callable[[], Coroutine[Any, Any, None]], questions: Questions, seconds: float
) -> list[float]:
    took: list[float] = []
    until = time.perf_counter() + seconds

    async def ask_on() -> None:
        while (started_at := time.perf_counter()) < until:
            await one()
            took.append((time.perf_counter() - started_at) * 1000)

    await asyncio.gather(*(ask_on() for _ in range(questions.at_once)))
    return took


async def _at_rate(one: Callable[[], Coroutine[Any, Any, None]], questions: Questions, seconds: float) -> list[float]:
    took: list[float] = []
    rate = questions.per_second or 1
    started_at = time.perf_counter()

    async def ask_when_due(due: float) -> None:
        await one()
        took.append((time.perf_counter() - due) * 1000)

    async with asyncio.TaskGroup() as tasks:
        for number in range(int(seconds * rate)):
            due = started_at + number / rate
            await asyncio.sleep(max(0, due - time.perf_counter()))
            tasks.create_task(ask_when_due(due))
    return took


def _body(questions: Questions, rnd: random.Random) -> bytes:
    org_id = rnd.choice(questions.organizations)
    operation = {
        "event_type": "api_call", "provider": "openai", "model": "gpt-4o",
        "tokens_in": rnd.randrange(50, 8000), "tokens_out": rnd.randrange(10, 2000),
    }  # fmt: skip
    question: dict[str, object] = {"org_id": org_id, "user_id": f"user_{rnd.randrange(50)}", "operations": [operation]}
    if questions.verb == "reserve":
        question |= {"idempotency_key": str(new_id()), "ttl_seconds": 3600}
    return msgspec.json.encode(question)


Ways = tuple[Callable[[bytes], Coroutine[Any, Any, None]], Callable[[], Coroutine[Any, Any, None]]]


async def _on_the_bus(questions: Questions) -> Ways:
    client = await connect_once(questions.bus_url)
    subject = f"rpc.metering.{questions.verb}"

    async def send(body: bytes) -> None:
        answer = (await client.request(subject, body, timeout=10)).data
        if not answer.startswith((b'{"status":200', b'{"status":201')):
            raise RuntimeError(f"metering answered {answer[:300]!r}")

    return send, client.close


async def _over_http(questions: Questions) -> Ways:
    if questions.http is None:
        raise ValueError("no API to ask")
    connections = [Connection(*questions.http) for _ in range(CONNECTIONS)]
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for connection in connections:
        await connection.__aenter__()
        free.put_nowait(connection)
    path = "/api/usage/limits/check" if questions.verb == "check" else "/api/usage/reservations"

    async def send(body: bytes) -> None:
        connection = await free.get()
        await connection.post(path, body, b"200" if questions.verb == "check" else b"201")
        free.put_nowait(connection)

    async def close() -> None:
        for connection in connections:
            await connection.__aexit__(None, None, None)

    return send, close
