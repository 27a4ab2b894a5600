"""Good input in every form on the one URL, and what 202 promises."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import httpx
from cloudevents.core.bindings.http import HTTPMessage, to_binary_event, to_structured_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from metering_platform import MeteringPlatform, metering_platform
from one_service import ALL_SCOPES, JSON, bearer, checked
from servers import PostgresServer, eventually
from usage import cloudevent, native

from aragora.contracts.topology import USAGE
from aragora.contracts.usage import USAGE_RECORDED
from aragora_nats.configuration import STREAM_MAX_BYTES
from aragora_nats.topology import apply_topology
from standalone.nats import EmbeddedNats

URL = "/api/usage/events"


async def logged(platform: MeteringPlatform, org: str) -> list[dict[str, Any]]:
    await platform.settled()
    page = (await platform.get(URL, org_id=org)).json()
    assert page["next_cursor"] is None
    events: list[dict[str, Any]] = page["events"]
    return events[::-1]


async def sent(platform: MeteringPlatform, message: HTTPMessage) -> httpx.Response:
    """What the CloudEvents SDK made, sent as it is."""
    headers = message.headers | bearer(ALL_SCOPES)
    return checked(await platform.client.post(URL, content=message.body, headers=headers))


def sdk_event(org: str, event_id: str, **fields: Any) -> CloudEvent:
    usage = cloudevent(**fields)["data"]
    attributes = {
        "id": event_id,
        "source": "/my/product",
        "type": USAGE_RECORDED,
        "subject": org,
        "time": datetime.fromisoformat("2026-06-15T12:00:00+00:00"),
        "datacontenttype": "application/json",
    }
    return CloudEvent(attributes, usage)


async def test_one_event_a_list_and_lines(platform: MeteringPlatform, org: str):
    events = [native(id=f"e{n}", org_id=org, occurred_at=f"2026-06-15T12:00:0{n}Z") for n in range(5)]
    lines = "\r\n".join(map(json.dumps, events[3:])).encode() + b"\n\n"
    for body, content_type, ids in (
        (events[0], JSON, ["e0"]),
        (events[1:3], "application/json; charset=utf-8", ["e1", "e2"]),
        (lines, "application/x-ndjson", ["e3", "e4"]),
    ):
        answer = await platform.post(body, content_type)
        assert (answer.status_code, answer.json()) == (202, {"accepted": len(ids), "ids": ids})
    assert [each["id"] for each in await logged(platform, org)] == ["e0", "e1", "e2", "e3", "e4"]


async def test_the_cloudevents_sdk_in_every_mode(platform: MeteringPlatform, org: str):
    format_ = JSONFormat()
    batch = b",".join(format_.write(sdk_event(org, f"batch {n}")) for n in range(2))
    batched = HTTPMessage({"content-type": "application/cloudevents-batch+json"}, b"[" + batch + b"]")
    for message, ids in (
        (to_structured_event(sdk_event(org, "structured")), ["structured"]),
        (to_binary_event(sdk_event(org, "binary/ü%")), ["binary/ü%"]),
        (batched, ["batch 0", "batch 1"]),
    ):
        answer = await sent(platform, message)
        assert (answer.status_code, answer.json()["ids"]) == (202, ids), answer.text
    events = await logged(platform, org)
    assert {each["id"] for each in events} == {"structured", "binary/ü%", "batch 0", "batch 1"}
    assert all((each["cost_usd"], each["tokens_in"]) == ("0.0075", 1000) for each in events)


async def test_the_cloudevents_sdk_without_a_content_type(platform: MeteringPlatform, org: str):
    attributes = {"id": "e1", "source": "/my", "type": USAGE_RECORDED, "subject": org}
    answer = await sent(platform, to_binary_event(CloudEvent(attributes, {"event_type": "debate"})))
    assert answer.status_code == 202, answer.text
    (event,) = await logged(platform, org)
    assert event["event_type"] == "debate"


async def test_every_field_is_kept(platform: MeteringPlatform, org: str):
    fields: dict[str, Any] = {
        "tokens_cached": 1, "tokens_cache_write": 2, "tokens_reasoning": 3, "tokens_audio_in": 4, "tokens_audio_out": 5,
        "requests": 6, "searches": 7, "images": 8, "pages": 2**53, "seconds": "1.5", "cost_usd": "0.000000000000000001",
        "reservation_id": "r ü", "endpoint": "/v1/chat?x=\"y'", "method": "POST", "status": 200, "response_time_ms": 12,
        "metadata": {"key": "välue\u0000", "deep": [[{"n": 1}]], "big": 10**30},
    }  # fmt: skip
    await platform.record(native(org_id=org, **fields))
    (event,) = await logged(platform, org)
    event["cost_usd"] = f"{Decimal(event['cost_usd']):f}"
    assert {name: event[name] for name in fields} == fields
    assert event["price_source"] == "publisher"


async def test_metadata_come_back_as_they_were_written(platform: MeteringPlatform, org: str):
    metadata = '{"n": 1e999, "m": 12345678901234567890123, "a": ' + "[" * 31 + "]" * 31 + "}"
    body = json.dumps(native(org_id=org, metadata="?")).replace('"?"', metadata)
    assert (await platform.post(body.encode())).status_code == 202
    await platform.settled()
    assert metadata in (await platform.get(URL, org_id=org)).text


async def test_an_id_counts_once_however_often_and_by_which_way_it_comes(platform: MeteringPlatform, org: str):
    event, enveloped = native(id="e1", org_id=org), cloudevent(id="e1", org_id=org)
    retry = native(id="e1", org_id=org, occurred_at="2026-07-01T00:00:00Z")
    for body, content_type in (
        (event, JSON), (event, JSON), ([event, event], JSON), (retry, JSON), (enveloped, "application/cloudevents+json")
    ):  # fmt: skip
        assert (await platform.post(body, content_type)).status_code == 202
    assert len(await logged(platform, org)) == 1


async def test_the_largest_batch(platform: MeteringPlatform, org: str):
    events = [native(id=str(n), org_id=org, endpoint="x" * 450) for n in range(10_000)]
    answer = await platform.post(events)
    assert (answer.status_code, answer.json()["accepted"]) == (202, 10_000)
    await platform.settled()
    summary = (await platform.get(f"/api/usage/organizations/{org}/summary")).json()["data"]
    assert (summary["total_events"], summary["total_cost"]) == (10_000, "75")


async def test_the_correlation_id_travels_with_the_event(platform: MeteringPlatform, org: str):
    answer = await platform.post(native(org_id=org), **{"X-Correlation-ID": "order-4711"})
    assert answer.headers["X-Correlation-ID"] == "order-4711"


async def test_202_means_that_the_bus_has_it_on_disk(
    postgres_server: PostgresServer, metering_template: str, private_nats: Callable[[], Awaitable[EmbeddedNats]]
):
    nats = await private_nats()
    async with metering_platform(
        postgres_server, metering_template, nats.url(), account_url=nats.url("metering"), workers=0
    ) as platform:
        os.kill(nats.pid, signal.SIGSTOP)  # the bus hears nothing
        try:
            requests = [asyncio.create_task(platform.post(native(id=f"e{n}"))) for n in range(80)]
            done, _ = await asyncio.wait(requests, timeout=1.5)
            assert not done
        finally:
            os.kill(nats.pid, signal.SIGCONT)
        answers = await asyncio.gather(*requests)
        assert [(answer.status_code, answer.json()["ids"]) for answer in answers] == [
            (202, [f"e{n}"]) for n in range(80)
        ]
        published = await platform.published()
        assert published <= 3  # what came while the bus was silent left together
        await nats.kill()  # what was promised is on disk
        await nats.start()
        client = await nats.connect()
        assert (await client.jetstream().stream_info(USAGE.name)).state.messages == published
        await client.close()


async def test_without_a_stream_it_is_503_and_sending_again_is_right(
    postgres_server: PostgresServer, metering_template: str, private_nats: Callable[[], Awaitable[EmbeddedNats]]
):
    nats = await private_nats()
    async with metering_platform(
        postgres_server, metering_template, nats.url(), account_url=nats.url("metering")
    ) as platform:
        await platform.bus.delete_stream(USAGE.name)
        headers = bearer(ALL_SCOPES)
        answer = await platform.client.post(URL, json=native(id="e1", org_id="org_a"), headers=headers)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert "same ids" in answer.json()["detail"]
        await apply_topology(platform.bus, replicas=1, max_bytes=STREAM_MAX_BYTES)

        async def accepted() -> bool:
            again = await platform.client.post(URL, json=native(id="e1", org_id="org_a"), headers=headers)
            return again.status_code == 202

        await eventually(accepted)
        # the worker, too, finds its way back to a stream that was made anew
        await platform.settled()
        assert len(await logged(platform, "org_a")) == 1
