"""Connections to Postgres that end when the other side has vanished. docs/decisions/0028 has the measurements.

A host that is lost, or cut off, says nothing any more. Unless somebody asks whether it is still there, who waits for an
answer waits for ever, and what a vanished client had (locks, turns) is kept for it for two hours. So both kernels ask.
"""

import socket
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from aragora.chassis.sql import Connection, Pool

IDLE_SECONDS = 10
"""After so long without a word the other side is asked whether it is there."""
INTERVAL_SECONDS = 5
QUESTIONS = 3
CONNECT_SECONDS = 10.0
_ASK_THE_NEXT = (OSError, asyncpg.CannotConnectNowError, asyncpg.TargetServerAttributeNotMatched)


def vanished_after_seconds() -> int:
    """How long the other side says nothing, not even that it has received something, until the connection ends."""
    return IDLE_SECONDS + INTERVAL_SECONDS * QUESTIONS


def open_pool(url: str, *, server_settings: dict[str, str] | None = None, **options: Any) -> Pool:
    """A pool of connections as `connect` makes them, to be entered with `async with`.

    Args:
        url: of the database; it may name several hosts, `postgresql://user:password@one:5432,two:5432/name`.
        server_settings: of each session, beside those that notice a vanished client.
        **options: further arguments of `asyncpg.create_pool`. `timeout`, in seconds, is for making a connection.
    """
    hosts = _each_host(url)

    async def connect_pooled(*_: object, **arguments: Any) -> "asyncpg.Connection[asyncpg.Record]":
        return await _connect(hosts, **arguments)

    settings = _noticing() | (server_settings or {})
    options = {"timeout": CONNECT_SECONDS, "connection_class": _Noticing, "server_settings": settings, **options}
    return asyncpg.create_pool(url, connect=connect_pooled, **options)


async def connect(url: str, *, server_settings: dict[str, str] | None = None) -> Connection:
    """One such connection; see `open_pool`.

    Raises:
        OSError, asyncpg.PostgresError, asyncpg.InternalClientError: why the last of the hosts will not have us.
    """
    settings = _noticing() | (server_settings or {})
    return await _connect(
        _each_host(url), timeout=CONNECT_SECONDS, connection_class=_Noticing, server_settings=settings
    )


async def _connect(hosts: list[str], *, timeout: float, **arguments: Any) -> "asyncpg.Connection[asyncpg.Record]":
    """Ask each host for its share of the time: asyncpg would give all of it to the first, also if that has vanished.

    Who did not answer in time is asked last from then on, also if it was the caller who had no patience for more.
    """
    for left in reversed(range(len(hosts))):
        url = hosts[0]
        try:
            connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
                url, timeout=timeout / len(hosts), **arguments
            )
        except BaseException as error:
            if hosts[0] == url:
                hosts.append(hosts.pop(0))
            if not left or not isinstance(error, _ASK_THE_NEXT):
                raise
        else:
            return connection
    raise ValueError("a URL that names no host")


def _each_host(url: str) -> list[str]:
    """One URL for each host that the URL names."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    return [urlunsplit(parts._replace(netloc=f"{user}{at}{host}")) for host in hosts.split(",")]


def _noticing() -> dict[str, str]:
    """How the server notices that this client has vanished, idle or at work for it. In seconds and milliseconds."""
    return {
        "tcp_keepalives_idle": str(IDLE_SECONDS),
        "tcp_keepalives_interval": str(INTERVAL_SECONDS),
        "tcp_keepalives_count": str(QUESTIONS),
        "tcp_user_timeout": str(vanished_after_seconds() * 1000),
        "client_connection_check_interval": str(IDLE_SECONDS * 1000),
    }


class _Noticing(asyncpg.Connection):
    """Notices that the server has vanished, whether it waits for an answer or for something to be received."""

    def __init__(self, protocol: Any, transport: Any, *rest: Any) -> None:
        super().__init__(protocol, transport, *rest)
        connected: socket.socket = transport.get_extra_info("socket")
        if connected.family not in (socket.AF_INET, socket.AF_INET6):
            return
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_KEEPIDLE", IDLE_SECONDS),
            ("TCP_KEEPALIVE", IDLE_SECONDS),  # what macOS calls it
            ("TCP_KEEPINTVL", INTERVAL_SECONDS),
            ("TCP_KEEPCNT", QUESTIONS),
            ("TCP_USER_TIMEOUT", vanished_after_seconds() * 1000),  # Linux: what was sent, and not received
        ):
            if hasattr(socket, option):
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
