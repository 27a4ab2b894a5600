"""Connections to endpoints: to vetted addresses only, and kept for a while.

Not httpcore's pool: with hundreds of connections it spends more time on looking through them than on sending.
"""

import asyncio
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpcore

from notifier.destinations import Network, Resolver, look_up, resolve

IDLE_SECONDS = 4.0
"""Connections are kept for less than most servers keep them (Node.js and uvicorn: 5 s)."""

MAX_ANSWER_BYTES = 131_072
"""Of one answer no more is read. Reading "103 Early Hints" again and again would leave no time for other endpoints."""

_Key = tuple[bool, str]


class Connections:
    """Made when they are needed, one for each request at once. One that is guarded never serves for one that is not."""

    def __init__(self, networks: Sequence[Network], resolver: Resolver | None, tls: ssl.SSLContext) -> None:
        self._networks = networks
        self._resolver = resolver
        self._tls = tls
        self._idle: dict[_Key, list[httpcore.AsyncHTTPConnection]] = defaultdict(list)
        self._sweep_at = 0.0
        self._closed = False

    @asynccontextmanager
    async def connection(self, url: httpcore.URL, *, guarded: bool) -> AsyncIterator[httpcore.AsyncHTTPConnection]:
        """A connection to the URL's host, for one request. Whether it can be kept is seen at the end."""
        key = guarded, str(url.origin)
        connection = await self._kept(key) or self._new(url.origin, guarded=guarded)
        try:
            yield connection
        finally:
            if connection.is_idle() and not connection.is_closed() and not self._closed:
                self._idle[key].append(connection)
            else:
                await _close(connection)
        await self._sweep()

    async def aclose(self) -> None:
        """Close what is kept, and keep nothing any more."""
        self._closed = True
        for connections in self._idle.values():
            for connection in connections:
                await _close(connection)
        self._idle.clear()

    def _new(self, origin: httpcore.Origin, *, guarded: bool) -> httpcore.AsyncHTTPConnection:
        tls = self._tls if origin.scheme == b"https" else None
        backend = _Backend(self._networks, self._resolver, tls, guarded=guarded)
        return httpcore.AsyncHTTPConnection(origin, self._tls, keepalive_expiry=IDLE_SECONDS, network_backend=backend)

    async def _kept(self, key: _Key) -> httpcore.AsyncHTTPConnection | None:
        connections = self._idle.get(key, [])
        while connections:
            connection = connections.pop()
            if not connection.has_expired():
                return connection
            await _close(connection)
        return None

    async def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._sweep_at:
            return
        self._sweep_at = now + IDLE_SECONDS
        for key, connections in list(self._idle.items()):
            expired = [each for each in connections if each.has_expired()]
            connections[:] = [each for each in connections if each not in expired]
            if not connections:
                del self._idle[key]
            for each in expired:
                await _close(each)


class _Backend(httpcore.AsyncNetworkBackend):
    """Opens connections; if it is guarded, to vetted addresses only. TLS verifies the host by its name all the same."""

    def __init__(
        self, networks: Sequence[Network], resolver: Resolver | None, tls: ssl.SSLContext | None, *, guarded: bool
    ) -> None:
        self._networks = networks
        self._resolver = resolver
        self._tls = tls
        self._guarded = guarded

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """The first address that answers, each within `timeout` seconds. Raises as `resolve` does, and httpcore's."""
        if self._guarded:
            encrypted = self._tls is not None
            addresses = await resolve(host, port, self._networks, encrypted=encrypted, resolver=self._resolver)
        else:
            addresses = list(await (self._resolver or look_up)(host, port))
        for address in addresses[:-1]:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._connect(address, host, port, timeout)
        return await self._connect(addresses[-1], host, port, timeout)

    async def _connect(self, address: str, host: str, port: int, timeout: float | None) -> "_Stream":
        try:
            async with asyncio.timeout(timeout):
                name = host if self._tls else None
                return _Stream(*await asyncio.open_connection(address, port, ssl=self._tls, server_hostname=name))
        except TimeoutError as error:
            raise httpcore.ConnectTimeout from error
        except OSError as error:
            raise httpcore.ConnectError from error


class _Stream(httpcore.AsyncNetworkStream):
    """An open connection. How long one waits for it is for the caller: an attempt ends as a whole."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._left_bytes = MAX_ANSWER_BYTES

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._left_bytes <= 0:
            raise httpcore.ReadError("the answer is too long")
        try:
            found = await self._reader.read(max_bytes)
        except OSError as error:
            raise httpcore.ReadError from error
        self._left_bytes -= len(found)
        return found

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._left_bytes = MAX_ANSWER_BYTES
        try:
            self._writer.write(buffer)
            await self._writer.drain()
        except OSError as error:
            raise httpcore.WriteError from error

    async def aclose(self) -> None:
        # Nobody waits for the other side to agree, which it may never do.
        self._writer.transport.abort()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return self  # it was begun with the connection

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # httpcore asks it of an idle connection: has the server closed it?
            return self._reader.at_eof() or self._writer.is_closing()
        return self._writer.get_extra_info(info)


async def _close(connection: httpcore.AsyncHTTPConnection) -> None:
    with suppress(httpcore.NetworkError, OSError):
        await connection.aclose()
