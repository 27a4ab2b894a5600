"""The correlation id, under which logs, events and traces of one thing are found, and the spans of those traces.

It comes with a request or a message, or is made where something begins. Log lines have it, the events that follow
have it (`store.append`), and so do the messages and questions that leave meanwhile (`outgoing`). A trace's id is made
from it (`trace_id_of`), so that whoever has the one has the other.

Spans are made only if OTEL_EXPORTER_OTLP_ENDPOINT says where they go. Otherwise nothing of the SDK is even loaded.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal
from uuid import UUID

import msgspec
from structlog.contextvars import bind_contextvars, get_contextvars, reset_contextvars

from aragora.contracts.ids import new_id

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from aragora.chassis.spans import Spans

CORRELATION_HEADER = "X-Correlation-ID"
"""In HTTP and on the bus. Beside it stands `traceparent`, as W3C's Trace Context says."""

Kind = Literal["INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]
Headers = Mapping[str, str]
"""Of a request or message: they say what it follows from."""
Attributes = Mapping[str, str | int]
"""Of a span. Never secret or personal: no parameter, no body, no path or query string of a URL."""

_CORRELATION_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-|\Z)")


class _Correlated(msgspec.Struct):
    correlationid: str = ""


_correlated = msgspec.json.Decoder(_Correlated)
_NO_SPAN: AbstractContextManager[None] = nullcontext()
_exported: list["Spans"] = []


def start(service: str) -> None:
    """Export this process' spans, under the service's name, if OTEL_EXPORTER_OTLP_ENDPOINT is set."""
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") and not _exported:
        from aragora.chassis.spans import Spans  # noqa: PLC0415 - the SDK is for those who ask for it

        _exported.append(Spans(service))


def correlation_id() -> str | None:
    """Under which id things are done here and now, if there is one."""
    found: str | None = get_contextvars().get("correlation_id")
    return found


def given_in(headers: Headers) -> str | None:
    """The correlation id that a request or message comes with; None if it has none, or something that is none."""
    given = headers.get(CORRELATION_HEADER) or ""
    return given if _CORRELATION_ID.match(given) else None


def correlation_in(event: bytes) -> str | None:
    """The correlation id that an event names, as it travels: a JSON object in CloudEvents' structured form."""
    try:
        given = _correlated.decode(event).correlationid
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return given_in({CORRELATION_HEADER: given})


def trace_id_of(correlation: str) -> int:
    """The 128 bits that are the trace's id: the UUID's own (32 hexadecimal digits, with hyphens or without); of another
    text, the first half of its SHA-256.
    """
    try:
        return UUID(correlation).int or 1
    except ValueError:
        return int.from_bytes(hashlib.sha256(correlation.encode()).digest()[:16]) or 1


def parent_in(traceparent: str) -> tuple[str, str, str] | None:
    """The trace's id, the span's and the flags, as hexadecimal digits; None: it is no valid `traceparent`."""
    found = _TRACEPARENT.match(traceparent)
    return (found[1], found[2], found[3]) if found else None


def outgoing() -> dict[str, str]:
    """The headers with which a message or question says what it follows from."""
    given, here = correlation_id(), _exported[0].traceparent() if _exported else None
    headers = {} if given is None else {CORRELATION_HEADER: given}
    return headers if here is None else {**headers, "traceparent": here}


def span(
    name: str, kind: Kind = "INTERNAL", attributes: Attributes | None = None, origins: Iterable[Headers] | None = None
) -> AbstractContextManager["Span | None"]:
    """A span around what the block does; None if there are none.

    Args:
        name: what is done: one of few, the same for all that do it.
        kind: in OpenTelemetry's words.
        attributes: known from the beginning.
        origins: from what it follows; None: it is a part of the current span.
    """
    return _exported[0].span(name, kind, attributes, origins) if _exported else _NO_SPAN


@contextmanager
def continuing(
    name: str, kind: Kind, origins: Iterable[Headers] = (), attributes: Attributes | None = None
) -> "Iterator[Span | None]":
    """Do the block under the correlation id of what it follows from, in a span of that trace.

    What follows from several things, or from none, has a correlation id of its own; and its span is linked to theirs.
    """
    origins = list(origins)
    given = {given_in(origin) for origin in origins}
    tokens = bind_contextvars(correlation_id=(given.pop() if len(given) == 1 else None) or str(new_id()))
    try:
        with span(name, kind, attributes, origins) as current:
            yield current
    finally:
        reset_contextvars(**tokens)
