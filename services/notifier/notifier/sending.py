"""One attempt to hand a message over: an HTTP request that ends in time, whatever the other side does."""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpcore
import httpx

from aragora.chassis import tracing
from notifier import destinations, schedule
from notifier.connections import Connections
from notifier.destinations import ForbiddenUrl, Network, Resolver

ATTEMPT_SECONDS = 15.0
"""For all of an attempt: looking the host up, connecting, sending, and the beginning of the answer. Standard Webhooks
recommends 15 to 30."""
CONNECT_SECONDS = 5.0
"""For each address of the host."""
READ_SECONDS = 2.0
"""For the body of an answer, which only the log wants."""
MAX_READ_BYTES = 4096
MAX_KEPT_CHARACTERS = 1024
MAX_RETRY_AFTER_CHARACTERS = 100
USER_AGENT = "Aragora-Webhooks/1"

_BROKEN = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of an attempt."""

    status_code: int | None = None
    """None: there was no answer."""
    text: str | None = None
    """The beginning of the answer's body."""
    failure: str | None = None
    """Why the message does not count as delivered; None: it does."""
    milliseconds: int = 0
    retry_after: str | None = None


class Sender:
    """Posts to endpoints, over connections that are kept for a while. No redirect is followed, no proxy is asked.

    Args:
        networks: that may be called although they are not public, also without TLS.
        resolver: how hosts are looked up; None: as the system does.
        attempt_seconds: for all of an attempt.
        tls: whose certificates are believed; None: those of the machine (`SSL_CERT_FILE`), or else Mozilla's.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        *,
        resolver: Resolver | None = None,
        attempt_seconds: float = ATTEMPT_SECONDS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._networks = tuple(networks)
        self._attempt_seconds = attempt_seconds
        self._connections = Connections(self._networks, resolver, tls or httpx.create_ssl_context())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connections.aclose()

    async def post(self, url: str, body: str, headers: Mapping[str, str], *, guarded: bool) -> Answer:
        """Send a JSON body. Never raises for what the other side does. Not `guarded`: the operator's own endpoint."""
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        try:
            about = {"server.address": httpx.URL(url).host}
            with tracing.continuing("webhook POST", "CLIENT", attributes=about) as span:
                async with asyncio.timeout(self._attempt_seconds):
                    status_code, text, retry_after = await self._exchange(url, body, headers, guarded=guarded)
                if span is not None:
                    span.set_attribute("http.response.status_code", status_code)
        except (*_BROKEN, ForbiddenUrl, httpcore.UnsupportedProtocol, httpx.InvalidURL) as error:
            return Answer(failure=self._reason(error), milliseconds=_since(started_at))
        failure = None
        if not schedule.is_success(status_code):
            followed = ": redirections are not followed" if 300 <= status_code < 400 else ""
            failure = f"answered with {status_code}{followed}"
        return Answer(
            status_code=status_code,
            text=text,
            failure=failure,
            milliseconds=_since(started_at),
            retry_after=retry_after,
        )

    async def _exchange(
        self, url: str, body: str, headers: Mapping[str, str], *, guarded: bool
    ) -> tuple[int, str, str | None]:
        if guarded:
            destinations.check_url(url, self._networks)
        parsed = httpx.URL(url)
        target = httpcore.URL(scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path)
        sent = [("Host", parsed.netloc.decode()), *headers.items(), ("Accept-Encoding", "identity")]
        async with (
            self._connections.connection(target, guarded=guarded) as connection,
            connection.stream(
                "POST",
                target,
                headers=sent,
                content=body.encode(),
                extensions={"timeout": {"connect": CONNECT_SECONDS}},
            ) as response,
        ):
            found = {name.lower(): value for name, value in response.headers}
            retry_after = found.get(b"retry-after", b"").decode("latin-1")[:MAX_RETRY_AFTER_CHARACTERS]
            return response.status, await _beginning(response), retry_after or None

    def _reason(self, error: Exception) -> str:
        match error:
            case ForbiddenUrl():
                return str(error)
            case httpcore.ConnectTimeout():
                return f"no connection within {CONNECT_SECONDS:g} s"
            case TimeoutError() | httpcore.TimeoutException():
                return f"no answer within {self._attempt_seconds:g} s"
            case httpcore.ConnectError():
                return _tls_reason(error) or "no connection could be made"
            case httpcore.NetworkError() | httpcore.ProtocolError():
                return "the connection was cut, or the answer was no HTTP"
            case OSError():
                return "the name of the host is not known"
            case _:
                return "the URL cannot be called"


def _tls_reason(error: BaseException) -> str | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not valid: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "no TLS connection could be made"
        cause = cause.__cause__ or cause.__context__
    return None


async def _beginning(response: httpcore.Response) -> str:
    """What the body begins with, as text that can be stored. However it ends: the status is known."""
    found = b""
    with suppress(*_BROKEN):
        async with asyncio.timeout(READ_SECONDS):
            async for part in response.aiter_stream():
                found += part
                if len(found) >= MAX_READ_BYTES:
                    break
    return found[:MAX_READ_BYTES].decode(errors="replace").replace("\0", "�")[:MAX_KEPT_CHARACTERS]


def _since(started_at: float) -> int:
    return round((asyncio.get_running_loop().time() - started_at) * 1000)
