"""A real HTTP server that receives webhooks, and can be as bad at it as servers are. It keeps what it was sent."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

Manner = Literal["answer", "hang", "endless", "never_close", "drip", "close", "garbage", "early_hints"]
"""How it answers: as it should, never, with a body without end, with one that is never finished, with headers one byte
at a time, by hanging up, with what is no HTTP, or with hints without end that the answer will come."""


@dataclass(frozen=True)
class Received:
    """A request. Names of headers are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def message_id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """`status` may be a function of the request. `on_request` is called with each."""

    url: str = ""
    status: int | Callable[[Received], int] = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"thanks"
    manner: Manner = "answer"
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    on_request: Callable[[Received], None] | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def ids(self) -> list[str]:
        """Of the messages received, in their order."""
        return [each.message_id for each in self.requests]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        self._writers.add(writer)
        try:
            while (request := await _read(reader)) is not None:
                self.requests.append(request)
                if self.on_request is not None:
                    self.on_request(request)
                if not await self._answer(request, reader, writer):
                    break
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if self.manner in ("hang", "close"):
            if self.manner == "hang":
                await reader.read()
            return False
        status = self.status if isinstance(self.status, int) else self.status(request)
        length = {"endless": 1 << 30, "never_close": len(self.body) + 1}.get(self.manner, len(self.body))
        lines = [f"HTTP/1.1 {status} Status", f"Content-Length: {length}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode()
        if self.manner == "garbage":
            head = b"220 smtp.example.com ESMTP\r\n\r\n"
        if self.manner == "early_hints":
            head = b"HTTP/1.1 103 Early Hints\r\n\r\n"
        if self.manner == "drip":
            for byte in head:
                writer.write(bytes([byte]))
                await writer.drain()
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1), 0.1)
            return False
        writer.write(head + self.body * (self.manner != "early_hints"))
        await writer.drain()
        if self.manner == "never_close":
            await reader.read()
        while self.manner in ("endless", "early_hints"):
            writer.write(b"x" * 65536 if self.manner == "endless" else b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)
            await writer.drain()
        return True

    async def hang_up(self) -> None:
        """Cut all connections."""
        for writer in list(self._writers):
            writer.transport.abort()


@asynccontextmanager
async def receiver(*, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator[Receiver]:
    """A receiver on a port of its own."""
    running = Receiver()
    server = await asyncio.start_server(running.serve, host, 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    running.url = f"{'https' if tls else 'http'}://{host}:{port}/hook"
    try:
        yield running
    finally:
        server.close()
        await running.hang_up()
        await server.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(path=first.split(" ")[1], headers=headers, body=body, at=time.time())
