"""A small HTTP/1.1 client for load: one keep-alive connection, prepared requests, no parsing beyond what is needed."""

import asyncio
import re
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


class Connection:
    """One keep-alive connection to the API, with the operator's service key."""

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
        return await self._send(f"GET {path} HTTP/1.1\r\n{self._head}\r\n".encode(), b"200")

    async def post_events(self, body: bytes) -> bytes:
        """Post native events; the body of the 202 answer."""
        return await self.post("/api/usage/events", body, b"202")

    async def post(self, path: str, body: bytes, expected: bytes) -> bytes:
        """Post JSON; the body of the answer, whose status must be the expected one."""
        head = f"POST {path} HTTP/1.1\r\n{self._head}Content-Type: application/json\r\n"
        return await self._send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body, expected)

    async def _send(self, request: bytes, expected: bytes) -> bytes:
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        body = await self._reader.readexactly(int(length[1])) if length else b""
        if head[9:12] != expected:
            raise RuntimeError(f"the API answered {head[:40]!r} {body[:300]!r}")
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
