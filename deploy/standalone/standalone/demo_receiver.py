"""A customer's webhook endpoint, in the demo's own process: it takes what is signed rightly, and nothing else.

It verifies as the specification of Standard Webhooks says (https://www.standardwebhooks.com), and knows nothing of the
code that signs.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

TOLERANCE_SECONDS = 300
MAX_BODY_BYTES = 1024 * 1024


def is_signed(secret: str, headers: Mapping[str, str], body: bytes, now_seconds: float) -> bool:
    """Whether one of the signatures is of this body, made with the secret (`whsec_…`), and not long ago."""
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(now_seconds - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    signed = f"{message_id}.{timestamp}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    right = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    given = headers.get("webhook-signature", "").split()
    return any(hmac.compare_digest(one.encode(), right.encode()) for one in given)


class Receiver:
    """Listens on a free port of 127.0.0.1. `secret` is what the platform shows when the endpoint is made."""

    def __init__(self) -> None:
        self.secret = ""
        self.received: dict[str, Any] = {}
        """What was signed rightly, by the message's id: a message that comes again is known."""
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        port = self._server.sockets[0].getsockname()[1] if self._server else 0
        return f"http://127.0.0.1:{port}/webhooks"

    def has(self, kind: str) -> bool:
        """Whether a message of this kind has come."""
        return any(message["type"] == kind for message in self.received.values())

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1").split("\r\n")[1:]
            headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head)}
            body = await reader.readexactly(min(int(headers.get("content-length", "0")), MAX_BODY_BYTES))
            status = "401 Unauthorized"
            if self.secret and is_signed(self.secret, headers, body, time.time()):
                self.received[headers["webhook-id"]] = json.loads(body)
                status = "204 No Content"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
            return  # nobody that we know
        finally:
            writer.close()
