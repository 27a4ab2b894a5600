"""A collector of traces: a real OTLP/HTTP receiver, and what the spans that came say of each other."""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from webhook_receiver import Receiver, receiver

from aragora.chassis.tracing import trace_id_of


@dataclass(frozen=True)
class Span:
    """As it was exported. Ids are in hexadecimal; `links` are (trace, span)."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, str | int]
    failed: bool


class Collector:
    """Every span that came, and the settings with which a process sends its spans here."""

    def __init__(self, server: Receiver) -> None:
        self._server = server
        self.settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": server.url.removesuffix("/hook"),
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

        self._requests: list[ExportTraceServiceRequest] = []
        self._spans: list[Span] = []

    @property
    def text(self) -> str:
        """Everything that was sent, as text."""
        self.spans()
        return "\n".join(map(str, self._requests))

    def spans(self) -> list[Span]:
        """All of them, in the order in which they came."""
        for each in self._server.requests[len(self._requests) :]:
            assert each.path == "/v1/traces"
            request = ExportTraceServiceRequest.FromString(each.body)
            self._requests.append(request)
            for group in request.resource_spans:
                service = str(dict(_attributes(group.resource.attributes))["service.name"])
                self._spans += [_span(service, span) for scope in group.scope_spans for span in scope.spans]
        return self._spans

    def trace(self, correlation_id: str) -> list[Span]:
        """The spans that are found under this correlation id."""
        wanted = f"{trace_id_of(correlation_id):032x}"
        return [span for span in self.spans() if span.trace_id == wanted]

    def reached(self, correlation_id: str) -> list[Span]:
        """Those spans, and those of the traces that they lead to."""
        found, new = set[str](), {f"{trace_id_of(correlation_id):032x}"}
        spans = self.spans()
        while new:
            found |= new
            new = {trace for span in spans if span.trace_id in found for trace, _ in span.links} - found
        return [span for span in spans if span.trace_id in found]


def _span(service: str, span: WireSpan) -> Span:
    return Span(
        service=service,
        name=span.name,
        kind=WireSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        attributes=dict(_attributes(span.attributes)),
        failed=span.status.code == 2,
    )


def _attributes(given: Iterable[object]) -> Iterator[tuple[str, str | int]]:
    for each in given:
        value = each.value  # type: ignore[attr-defined]
        yield each.key, getattr(value, value.WhichOneof("value"))  # type: ignore[attr-defined]


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """A collector on a port of its own."""
    async with receiver() as server:
        server.body = b""
        yield Collector(server)
