"""One correlation id is enough to find what a command became of, in the logs and traces of every service."""

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from separate_services import SeparateServices, separate_services
from servers import eventually
from span_collector import Collector, collector

from aragora.contracts.ids import new_id

pytestmark = pytest.mark.long

STARTED = ("billing-api", "billing-worker", "metering-worker", "auth-worker")
STEPS = ("postgres", "nats", "topology", "billing-migrate", "metering-migrate", "auth-migrate", *STARTED)


@pytest.fixture(scope="module")
async def traces() -> AsyncIterator[Collector]:
    async with collector() as running:
        yield running


@pytest.fixture(scope="module")
async def parts(traces: Collector) -> AsyncIterator[SeparateServices]:
    async with separate_services(environment=traces.settings | {"ARAGORA_LOG_LEVEL": "DEBUG"}) as running:
        await running.take(STEPS)
        await running.ready(STARTED)
        yield running


def lines_of(parts: SeparateServices, name: str, correlation_id: str) -> list[dict[str, Any]]:
    """What a process logged under this id."""
    lines = (json.loads(line) for line in parts.log(name).splitlines() if line.startswith("{"))
    return [line for line in lines if line.get("correlation_id") == correlation_id]


async def test_a_command_is_followed_through_every_service(parts: SeparateServices, traces: Collector):
    given = str(new_id())
    async with parts.client("billing") as billing:
        path = "/api/subscription/organizations/acme/subscription"
        answer = await billing.put(path, json={"plan": "professional"}, headers={"X-Correlation-ID": given})
    assert answer.is_success, answer.text

    for name, consumer in (("metering-worker", "metering-entitlements"), ("auth-worker", "auth-entitlements")):
        (handled, *_) = await eventually(partial(lines_of, parts, name, given), 20, what=f"{name} tells of it")
        assert (handled["event"], handled["consumer"]) == ("handled", consumer)
    (asked,) = [line for line in lines_of(parts, "billing-api", given) if line["event"] == "request"]
    assert asked["route"] == "/api/subscription/organizations/{org_id}/subscription"

    def found() -> set[tuple[str, str]]:
        return {(span.service, span.name) for span in traces.trace(given)}

    expected = {
        ("billing-api", "PUT /api/subscription/organizations/{org_id}/subscription"),
        ("billing-api", "append_events"),
        ("billing-worker", "EntitlementsChanged publish"),
        ("metering-worker", "metering-entitlements process"),
        ("metering-worker", "keep_limits"),
        ("auth-worker", "auth-entitlements process"),
        ("auth-worker", "keep_entitlements"),
    }
    await eventually(lambda: expected <= found(), 20, what=f"all of {expected - found()}")
    (told,) = {span.span_id for span in traces.trace(given) if span.name == "EntitlementsChanged publish"}
    heard = [span for span in traces.trace(given) if span.kind == "CONSUMER"]
    assert {span.parent_id for span in heard} == {told}


async def test_what_fails_is_told_under_the_id_of_its_event(parts: SeparateServices):
    given, operator = str(new_id()), await parts.operator()
    try:
        broken = {"correlationid": given, "type": "aragora.billing.EntitlementsChanged.v1"}
        body = json.dumps(broken).encode()
        await operator.jetstream().publish("events.billing.EntitlementsChanged.acme", body)
    finally:
        await operator.close()
    for name in ("metering-worker", "auth-worker"):
        (failed, *_) = await eventually(partial(lines_of, parts, name, given), 20, what=f"{name} tells of it")
        assert failed["event"] == "delivery failed"
