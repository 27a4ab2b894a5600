"""A small HTTP/1.1 client for load: one keep-alive connection, prepared requests, no parsing beyond what is needed."""

import asyncio
import re
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


class Connection:
    """One keep-alive connection to the API, with a key or token."""

    def __init__(self, host: str, port: int, key: str) -> None:
        self._address = (host, port)
        self._head = f"Host: {host}:{port}\r\nAuthorization: Bearer {key}\r\n"

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def get(self, path: str) -> bytes:
        """The body of a 200 answer."""
        return _expected(await self.ask("GET", path), b"200")

    async def post_events(self, body: bytes) -> bytes:
        """Post native events; the body of the 202 answer."""
        return await self.post("/api/usage/events", body, b"202")

    async def post(self, path: str, body: bytes, expected: bytes) -> bytes:
        """Post JSON; the body of the answer, whose status must be the expected one."""
        return _expected(await self.ask("POST", path, body), expected)

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[bytes, bytes]:
        """The status and the body of any answer."""
        head = f"{method} {path} HTTP/1.1\r\n{self._head}"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self._writer.write(f"{head}\r\n".encode() + body)
        answered = await self._reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(answered)
        return answered[9:12], await self._reader.readexactly(int(length[1])) if length else b""


def _expected(answer: tuple[bytes, bytes], expected: bytes) -> bytes:
    status, body = answer
    if status != expected:
        raise RuntimeError(f"the API answered {status!r} {body[:300]!r}")
    return body


async def post_for(seconds: float, connections: int, bodies: Iterator[bytes], host: str, port: int, key: str) -> float:
    """Post these bodies over so many connections for so long; requests answered per second."""
    answered = 0
    started_at = time.perf_counter()

    async def post() -> None:
        nonlocal answered
        async with Connection(host, port, key) as connection:
            while time.perf_counter() - started_at < seconds:
                await connection.post_events(next(bodies))
                answered += 1

    await asyncio.gather(*(post() for _ in range(connections)))
    return answered / (time.perf_counter() - started_at)
