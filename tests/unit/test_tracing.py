"""The correlation id: where it is from, what has it, and which trace it is."""

import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, TraceIdRatioBased
from opentelemetry.trace import Link, SpanContext, TraceFlags

from aragora.chassis import sql, tracing
from aragora.chassis.relay import Relay
from aragora.chassis.spans import _Sampler
from aragora.chassis.tracing import CORRELATION_HEADER, continuing, correlation_id, outgoing, trace_id_of
from aragora.contracts.ids import new_id


@pytest.fixture(autouse=True)
def unbound() -> None:
    structlog.contextvars.clear_contextvars()


def test_the_trace_of_a_uuid_is_the_uuid_and_of_another_text_its_hash():
    given = new_id()
    assert trace_id_of(str(given)) == trace_id_of(given.hex) == given.int
    assert f"{trace_id_of('order-17'):032x}" == "72a90ea3da8b5dd01bde2f27314e02e2"
    assert trace_id_of("0" * 32) > 0, "W3C knows no trace 0"


@pytest.mark.parametrize(
    "wrong",
    [
        "", "00", "nonsense",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
    ],
)  # fmt: skip
def test_what_is_no_traceparent_names_no_trace(wrong: str):
    assert tracing.parent_in(wrong) is None


def test_a_traceparent_of_a_later_version_is_understood():
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    assert tracing.parent_in(f"00-{trace}-{span}-01") == (trace, span, "01")
    assert tracing.parent_in(f"cc-{trace}-{span}-03-what-comes-next") == (trace, span, "03")


@pytest.mark.parametrize(
    "wrong", [b"", b"[]", b"{", b"\xff", b'{"correlationid": 7}', b'{"correlationid": "a b"}', b"{}"]
)
def test_an_event_that_names_no_correlation_id_has_none(wrong: bytes):
    assert tracing.correlation_in(wrong) is None
    assert tracing.correlation_in(b'{"id": "7", "correlationid": "order-17", "data": {}}') == "order-17"


def test_what_follows_from_one_thing_has_its_id_and_gives_it_on():
    assert (correlation_id(), outgoing()) == (None, {})
    with continuing("work", "CONSUMER", [{CORRELATION_HEADER: "order-17"}, {CORRELATION_HEADER: "order-17"}]):
        assert (correlation_id(), outgoing()) == ("order-17", {CORRELATION_HEADER: "order-17"})
        with continuing("part", "INTERNAL", [{CORRELATION_HEADER: "order-18"}]):
            assert correlation_id() == "order-18"
        assert correlation_id() == "order-17"
    assert correlation_id() is None


@pytest.mark.parametrize(
    "origins", [[], [{}], [{CORRELATION_HEADER: "a"}, {CORRELATION_HEADER: "b"}], [{CORRELATION_HEADER: "<"}]]
)
def test_what_follows_from_several_things_or_none_has_an_id_of_its_own(origins: list[dict[str, str]]):
    found = set()
    for _ in range(2):
        with continuing("work", "CONSUMER", origins):
            found.add(correlation_id())
    assert len(found) == 2
    assert not found & {None, "a", "b", "<"}


async def test_the_relay_gives_on_the_id_of_each_event():
    sent: list[dict[str, str]] = []

    async def publish(_subject: str, _payload: bytes, headers: dict[str, str]) -> None:
        sent.append(headers | {"bound": correlation_id() or ""})

    nowhere: Any = None
    row: Any = {
        "id": new_id(), "org_id": "acme", "stream": "s", "type": "aragora.billing.PlanPublished.v1", "data": "{}",
        "occurred_at": "2026-01-31T12:00:00Z", "correlation_id": "order-17", "causation_id": None,
    }  # fmt: skip
    relay = Relay(nowhere, publish)
    rows = [row, row | {"correlation_id": "order-18", "stream": "t"}]
    assert await relay._publish_rows(rows) == rows
    assert [headers[CORRELATION_HEADER] for headers in sent] == ["order-17", "order-18"]
    assert [headers["bound"] for headers in sent] == ["order-17", "order-18"]


def test_a_query_is_called_by_its_name():
    queries = sql.load("aragora.chassis")
    assert sql.name_of(queries.append_events) == "append_events"
    assert sql.name_of("SELECT 1 AS nobody_named_this") is None


def test_a_ratio_of_traces_is_that_ratio_also_of_uuids():
    quarter = _Sampler(TraceIdRatioBased(0.25))
    kept = Counter(quarter.should_sample(None, new_id().int, "work").decision.is_sampled() for _ in range(4000))
    assert 0.2 < kept[True] / 4000 < 0.3
    for trace in (new_id().int for _ in range(100)):
        assert len({quarter.should_sample(None, trace, "work").decision for _ in range(3)}) == 1


def test_what_follows_from_several_things_is_kept_if_one_of_them_is():
    sampler, kept, left = (
        _Sampler(ALWAYS_OFF),
        *(Link(SpanContext(new_id().int, 7, is_remote=True, trace_flags=TraceFlags(flags))) for flags in (1, 0)),
    )
    assert sampler.should_sample(None, new_id().int, "work", links=[left, kept]).decision.is_sampled()
    assert not sampler.should_sample(None, new_id().int, "work", links=[left]).decision.is_sampled()


def test_without_a_collector_no_process_loads_the_sdk():
    asks = """
import sys
import auth.main, auth.worker, billing.main, billing.worker
import metering.main, metering.worker, notifier.main, notifier.worker
from aragora.chassis import tracing
tracing.start("anything")
with tracing.span("work") as span, tracing.continuing("more", "CONSUMER") as part:
    assert span is None and part is None
loaded = [name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "google"))]
assert loaded == [], loaded
"""
    subprocess.run([sys.executable, "-c", asks], check=True, timeout=60, env={"PATH": ""})
