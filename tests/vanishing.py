"""A host that vanishes without a word, as when its node is lost or its cable is cut. Linux only; needs no privileges.

`Vanishing` stands between a client and a server of this machine. When it vanishes, its kernel drops whatever comes for
it before that is acknowledged, from both sides and from whoever wants to connect, and it says nothing ever again.
"""

import asyncio
import ctypes
import socket
from asyncio.trsock import TransportSocket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

_SO_ATTACH_FILTER = 26
_LET_THROUGH = 0x06
"""The instruction of a packet filter that says how many bytes of a packet are let through."""


class Vanishing:
    """Passes on what comes, to and from `to_port`, until it vanishes. With port 0 it takes a free one at its start."""

    def __init__(self, to_port: int, port: int = 0) -> None:
        self.to_port = to_port
        self.port = port
        self._server: asyncio.Server | None = None
        self._sockets: list[socket.socket | TransportSocket] = []
        self._writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Vanishing"]:
        """Be there while the block runs, or until it vanishes."""
        await self.start()
        try:
            yield self
        finally:
            await self.stop()

    async def start(self) -> None:
        """Be there; again, if it has vanished: whoever was connected before hears nothing of that."""
        if self._server is not None:
            self._server.close()
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)
        self._sockets.extend(self._server.sockets)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything, which both sides hear now."""
        if self._server is not None:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()
            await self._server.wait_closed()

    def url(self, url: str) -> str:
        """The URL of what it stands before, by way of it."""
        return url.replace(f":{urlsplit(url).port}/", f":{self.port}/")

    def vanish(self) -> None:
        """Drop whatever comes from now on, also what wants to connect."""
        for one in self._sockets:
            if one.fileno() >= 0:
                _deafen(one.fileno())

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_there, to_there = await asyncio.open_connection("127.0.0.1", self.to_port)
        self._writers += [writer, to_there]
        self._sockets += [writer.get_extra_info("socket"), to_there.get_extra_info("socket")]
        await asyncio.gather(_pump(reader, to_there), _pump(from_there, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while some := await reader.read(65536):
            writer.write(some)
    writer.close()


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint))


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def _deafen(file_number: int) -> None:
    nothing = _Filter(1, ctypes.pointer(_Instruction(_LET_THROUGH, 0, 0, 0)))
    libc, size = ctypes.CDLL(None, use_errno=True), ctypes.sizeof(_Filter)
    if libc.setsockopt(file_number, socket.SOL_SOCKET, _SO_ATTACH_FILTER, ctypes.byref(nothing), size):
        raise OSError(ctypes.get_errno(), "the kernel takes no filter for a socket")
