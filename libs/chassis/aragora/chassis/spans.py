"""Spans, by OpenTelemetry's SDK: see `tracing`, which loads this only if somebody collects them.

No span holds the text of an error: it may say whose address is taken already. It holds the error's type.
"""

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import asyncpg
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, get_current_span
from structlog.contextvars import bound_contextvars

from aragora.chassis import sql
from aragora.chassis.tracing import Attributes, Headers, Kind, correlation_id, given_in, parent_in, trace_id_of
from aragora.contracts.ids import new_id

MAX_LINKS = 128
"""What a span follows from, at most (the SDK's own limit, unless OTEL_SPAN_LINK_COUNT_LIMIT says otherwise)."""
MAX_QUERY_CHARACTERS = 200


class Spans:
    """Makes this process' spans, and sends them where the OTEL_ variables say; what is left, at its end."""

    def __init__(self, service: str) -> None:
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: service}))
        provider = TracerProvider(resource=resource, id_generator=_CorrelationIds())
        provider.sampler = _Sampler(provider.sampler)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        # Not the global one: FastAPI would make spans of its own there, with paths and query strings.
        self._tracer = provider.get_tracer("aragora")
        self._watch_queries()

    def traceparent(self) -> str | None:
        """The current span, in W3C's words, if there is one."""
        here = get_current_span().get_span_context()
        return f"00-{here.trace_id:032x}-{here.span_id:016x}-{here.trace_flags:02x}" if here.is_valid else None

    @contextmanager
    def span(
        self, name: str, kind: Kind, attributes: Attributes | None, origins: Iterable[Headers] | None
    ) -> Iterator[Span]:
        """See `tracing.span`."""
        distinct = {(given_in(one), one.get("traceparent") or ""): None for one in origins or ()}
        context, links = (None, ()) if origins is None else _place([parent for _, parent in distinct])
        started_at = time.time_ns()
        made = self._tracer.start_span(name, context, SpanKind[kind], attributes, links, started_at)
        # What it says of an exception by itself is too much: see above.
        with trace.use_span(made, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield made
            except BaseException as error:
                _fail(made, error)
                raise
            finally:
                if len(distinct) > 1:
                    self._tell(name, kind, list(distinct)[:MAX_LINKS], started_at)

    def _tell(self, name: str, kind: Kind, origins: Sequence[tuple[str | None, str]], started_at: int) -> None:
        """Whoever looks at a trace of which others were handled together sees that too: when, and in which trace."""
        here, own = get_current_span().get_span_context(), correlation_id()
        for given, parent in origins:
            if given is not None and given != own:
                with bound_contextvars(correlation_id=given):
                    context, links = _place([parent])
                    together = [Link(here), *links]
                    self._tracer.start_span(name, context, SpanKind[kind], None, together, started_at).end()

    def _watch_queries(self) -> None:
        begin = asyncpg.Connection.__init__

        def begin_watched(connection: "asyncpg.Connection[Any]", *args: Any, **named: Any) -> None:
            begin(connection, *args, **named)
            connection.add_query_logger(self._on_query)

        # Every connection, whoever makes it: pools, commands.
        asyncpg.Connection.__init__ = begin_watched  # type: ignore[assignment,method-assign]

    def _on_query(self, record: Any) -> None:
        # What nobody asked for, such as the looks of a relay into its outbox, would be noise.
        if not get_current_span().get_span_context().trace_flags.sampled:
            return
        ended_at = time.time_ns()
        name, attributes = sql.name_of(record.query), {"db.system.name": "postgresql"}
        if name is None:
            name = record.query.split(None, 1)[0].rstrip(";").upper()
            attributes["db.query.text"] = record.query[:MAX_QUERY_CHARACTERS]
        made = self._tracer.start_span(
            name, None, SpanKind.CLIENT, attributes, start_time=ended_at - round(record.elapsed * 1e9)
        )
        if record.exception is not None:
            _fail(made, record.exception)
        made.end(ended_at)


def _fail(span: Span, error: BaseException) -> None:
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(trace.StatusCode.ERROR)


def _place(traceparents: Sequence[str]) -> tuple[Context, Sequence[Link]]:
    """In which context a span belongs, and to what it is linked: its trace is that of the current correlation id."""
    wanted = trace_id_of(correlation_id() or "")
    parents = [
        SpanContext(int(given, 16), int(span, 16), is_remote=True, trace_flags=trace.TraceFlags(int(flags, 16)))
        for given, span, flags in filter(None, map(parent_in, traceparents))
    ]
    own = next((parent for parent in parents if parent.trace_id == wanted), None)
    context = Context() if own is None else trace.set_span_in_context(trace.NonRecordingSpan(own), Context())
    return context, [Link(parent) for parent in parents if parent is not own][:MAX_LINKS]


class _CorrelationIds(RandomIdGenerator):
    def generate_trace_id(self) -> int:
        return trace_id_of(correlation_id() or str(new_id()))

    def is_trace_id_random(self) -> bool:
        return False


class _Sampler(Sampler):
    """The sampler that OTEL_TRACES_SAMPLER chose, for ids that are not random in every bit.

    Of a UUID, two bits say which kind it is: a ratio of such ids would be another one. And what follows from several
    things is kept if one of them is.
    """

    def __init__(self, chosen: Sampler) -> None:
        self._chosen = chosen

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[Link] | None = None,
        trace_state: trace.TraceState | None = None,
    ) -> SamplingResult:
        is_root = not get_current_span(parent_context).get_span_context().is_valid
        if is_root and any(link.context.trace_flags.sampled for link in links or ()):
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)
        mixed = int.from_bytes(hashlib.sha256(trace_id.to_bytes(16)).digest()[:16])
        return self._chosen.should_sample(parent_context, mixed, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return f"Mixed({self._chosen.get_description()})"
