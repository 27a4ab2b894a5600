"""One id finds what became of a usage event, from the request through the bus to the statements of the worker."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from metering_platform import MeteringPlatform, metering_platform
from one_service import ALL_SCOPES, bearer
from servers import PostgresServer, eventually
from span_collector import Collector, Span, collector

from aragora.contracts.ids import new_id

EVENT = {"org_id": "acme", "event_type": "api_call", "provider": "anthropic", "model": "claude-sonnet-4"}


@pytest.fixture(scope="module")
async def traces() -> AsyncIterator[Collector]:
    async with collector() as running:
        yield running


@pytest.fixture(scope="module")
async def platform(
    postgres_server: PostgresServer, metering_template: str, nats_server: str, traces: Collector
) -> AsyncIterator[MeteringPlatform]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in traces.settings.items():
            patch.setenv(name, value)
        async with metering_platform(postgres_server, metering_template, nats_server) as running:
            yield running


def usage() -> dict[str, str]:
    return {**EVENT, "id": str(new_id()), "occurred_at": datetime.now(UTC).isoformat()}


def named(spans: list[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name == name]


async def asked_in(traces: Collector, correlation_id: str) -> Span:
    (asked,) = await eventually(lambda: named(traces.trace(correlation_id), "POST /api/usage/events"))
    return asked


async def send(platform: MeteringPlatform, **headers: str) -> str:
    """Send an event. Returns the correlation id that the answer names."""
    answer = await platform.post([usage()], **headers)
    assert answer.status_code == 202, answer.text
    return answer.headers["X-Correlation-ID"]


@pytest.mark.parametrize("given", ["01890a5d-ac96-774b-bcce-b302099a8057", "order-17"])
async def test_a_usage_event_is_one_trace(platform: MeteringPlatform, traces: Collector, given: str):
    assert await send(platform, **{"X-Correlation-ID": given}) == given
    await eventually(lambda: [span for span in traces.trace(given) if span.kind == "CONSUMER"], 20)
    asked = await asked_in(traces, given)
    spans = traces.trace(given)
    by_id = {span.span_id: span for span in spans}
    (published,) = named(spans, "UsageRecorded publish")
    (consumed,) = (span for span in spans if span.kind == "CONSUMER")
    assert (asked.service, asked.kind, asked.parent_id) == ("metering-api", "SERVER", "")
    assert asked.attributes == {
        "http.request.method": "POST",
        "http.route": "/api/usage/events",
        "http.response.status_code": 202,
    }
    assert (published.service, published.kind, published.parent_id) == ("metering-api", "PRODUCER", asked.span_id)
    assert (consumed.service, consumed.parent_id) == ("metering-worker", published.span_id)
    assert consumed.name.startswith("metering-workers-")
    statements = [span for span in spans if span.attributes.get("db.system.name") == "postgresql"]
    folded = {span.name for span in statements if by_id[span.parent_id].name == consumed.name}
    assert folded >= {"append_to_log", "fold_daily", "fold_monthly"}
    assert {span.parent_id for span in spans} <= {"", *by_id}


async def test_events_that_travel_together_lead_to_one_another(platform: MeteringPlatform, traces: Collector):
    given = [str(new_id()) for _ in range(40)]
    await asyncio.gather(*(send(platform, **{"X-Correlation-ID": each}) for each in given))
    await platform.settled()

    def are_recorded() -> bool:
        return all(named(traces.reached(each), "append_to_log") for each in given)

    await eventually(are_recorded, 20)
    grouped = [span for span in traces.spans() if span.name == "UsageRecorded publish" and len(span.links) > 1]
    assert grouped, "40 requests at once were not grouped"


async def test_a_trace_that_was_begun_elsewhere_goes_on(platform: MeteringPlatform, traces: Collector):
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    assert await send(platform, traceparent=f"00-{trace}-{parent}-01") == trace
    asked = await asked_in(traces, trace)
    assert (asked.trace_id, asked.parent_id) == (trace, parent)


async def test_an_id_of_ones_own_comes_before_a_trace_which_is_linked(platform: MeteringPlatform, traces: Collector):
    given, trace, parent = str(new_id()), "5bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    await send(platform, traceparent=f"00-{trace}-{parent}-01", **{"X-Correlation-ID": given})
    asked = await asked_in(traces, given)
    assert (asked.parent_id, asked.links) == ("", ((trace, parent),))


async def test_a_path_is_told_as_its_route_and_a_probe_not_at_all(platform: MeteringPlatform, traces: Collector):
    given = str(new_id())
    headers = {"X-Correlation-ID": given, **bearer(ALL_SCOPES)}
    asked = "/api/subscription/usage/somebody-17?org_id=acme&period=secret-query"
    await platform.client.get(asked, headers=headers)
    await platform.client.get("/readyz", headers=headers)
    spans = await eventually(lambda: [span for span in traces.trace(given) if span.kind == "SERVER"])
    assert [span.attributes["http.route"] for span in spans] == ["/api/subscription/usage/{user_id}"]
    assert "somebody-17" not in traces.text
    assert "secret-query" not in traces.text
    assert "readyz" not in traces.text


async def test_what_is_refused_or_fails_is_told_under_the_id_of_its_event(platform: MeteringPlatform):
    refused, failed = str(new_id()), str(new_id())
    usage_event = {"specversion": "1.0", "id": "1", "type": "aragora.metering.UsageRecorded.v1"}
    await platform.bus.publish("usage.recorded.0", json.dumps([usage_event | {"correlationid": refused}]).encode())
    broken = {"correlationid": failed, "type": "aragora.billing.EntitlementsChanged.v1"}
    await platform.bus.publish("events.billing.EntitlementsChanged.acme", json.dumps(broken).encode())

    def told(event: str, name: str, value: object) -> bool:
        lines = [json.loads(line) for line in platform.log("worker-0").splitlines() if line.startswith("{")]
        return any(line["event"] == event and line.get(name) == value for line in lines)

    await eventually(lambda: told("usage_refused", "correlation_ids", [refused]))
    await eventually(lambda: told("delivery failed", "correlation_id", failed))
