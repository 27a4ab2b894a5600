"""From an HTTP body to usage events: every form that people send, and every way to get one wrong."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from usage import NOON, cloudevent, native

from aragora.contracts.usage import InvalidUsage, UsageRecorded
from metering.ingest import MAX_EVENTS, UnreadableBody, read_body

JSON = "application/json"
NDJSON = "application/x-ndjson"
STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


def read(body: bytes | str | list[Any] | dict[str, Any], content_type: str = JSON, **ce: str) -> list[UsageRecorded]:
    encoded = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    headers = {"content-type": content_type} | {f"ce-{name}": value for name, value in ce.items()}
    return read_body(encoded, headers, source="/test", now=NOON)


def refused(
    body: bytes | str | list[Any] | dict[str, Any], content_type: str = JSON, **ce: str
) -> list[tuple[int, str]]:
    with pytest.raises(InvalidUsage) as caught:
        read(body, content_type, **ce)
    return [(each.index, each.field) for each in caught.value.errors]


def unreadable(body: bytes | str | list[Any] | dict[str, Any], content_type: str = JSON, **ce: str) -> int:
    with pytest.raises(UnreadableBody) as caught:
        read(body, content_type, **ce)
    assert str(caught.value)
    return caught.value.status


def attributes(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != "data"}


def test_every_form_says_the_same():
    event, enveloped = native(id="e1", metadata={"a": [1]}), cloudevent(id="e1", metadata={"a": [1]})
    forms = [
        read(event),
        read([event]),
        read("\n".join([json.dumps(event), "", "  "]), NDJSON),
        read(json.dumps(event), "application/jsonl"),
        read(event, "Application/JSON ; charset=utf-8"),
        read(enveloped, STRUCTURED),
        read([enveloped], BATCH),
        read(enveloped["data"], **attributes(enveloped)),
    ]
    for form in forms:
        (one,) = form
        assert (one.id, one.subject, one.time, one.type) == ("e1", "org_acme", NOON, enveloped["type"])
        assert json.loads(msgspec.json.encode(one.data)) == enveloped["data"]


def test_every_field_survives():
    fields: dict[str, Any] = {
        "tokens_cached": 1, "tokens_cache_write": 2, "tokens_reasoning": 3, "tokens_audio_in": 4, "tokens_audio_out": 5,
        "requests": 0, "searches": 7, "images": 8, "pages": 2**53, "seconds": "1.5", "cost_usd": "0.000000000000000001",
        "reservation_id": "r", "endpoint": "/v1/chat", "method": "POST", "status": 200, "response_time_ms": 12,
        "metadata": {"key": "välue"},
    }  # fmt: skip
    (one,) = read(native(**fields))
    assert json.loads(msgspec.json.encode(one.data)) == cloudevent(**fields)["data"]


def test_attributes_of_binary_mode_are_percent_decoded():
    enveloped = cloudevent(id="a b/é")
    (one,) = read(enveloped["data"], **attributes(enveloped) | {"id": "a%20b/%C3%A9"})
    assert one.id == "a b/é"


def test_binary_mode_needs_no_content_type():
    enveloped = cloudevent(id="e1")
    headers = {f"ce-{name}": value for name, value in attributes(enveloped).items()}
    (one,) = read_body(json.dumps(enveloped["data"]).encode(), headers, source="/test", now=NOON)
    assert one.id == "e1"


def test_extension_attributes_are_the_publishers_own():
    (one,) = read(cloudevent(id="e1") | {"traceparent": "00-1-2-03", "correlationid": "c1"}, STRUCTURED)
    assert one.correlationid == "c1"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"tokens_in": -1}, "tokens_in"),
        ({"tokens_out": 2**53 + 1}, "tokens_out"),
        ({"tokens_in": 10**30}, "tokens_in"),
        ({"tokens_in": 1.5}, "tokens_in"),
        ({"tokens_in": "7"}, "tokens_in"),
        ({"tokens_in": True}, "tokens_in"),
        ({"tokens_in": None}, "tokens_in"),
        ({"requests": []}, "requests"),
        ({"cost_usd": 0.1}, "cost_usd"),
        ({"cost_usd": "NaN"}, "cost_usd"),
        ({"cost_usd": "Infinity"}, "cost_usd"),
        ({"cost_usd": "-0.1"}, "cost_usd"),
        ({"cost_usd": "1e3"}, "cost_usd"),
        ({"cost_usd": "٣"}, "cost_usd"),
        ({"cost_usd": ""}, "cost_usd"),
        ({"seconds": "1 "}, "seconds"),
        ({"id": ...}, "id"),
        ({"id": ""}, "id"),
        ({"id": "x" * 129}, "id"),
        ({"id": 7}, "id"),
        ({"id": "tab\there"}, "id"),
        ({"org_id": ...}, "org_id"),
        ({"org_id": ""}, "org_id"),
        ({"org_id": "x" * 65}, "org_id"),
        ({"org_id": "a.b"}, "org_id"),
        ({"org_id": "a*"}, "org_id"),
        ({"org_id": "ü"}, "org_id"),
        ({"org_id": "org\n"}, "org_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "\x00"}, "user_id"),
        ({"model": "m" * 129}, "model"),
        ({"event_type": ...}, "event_type"),
        ({"event_type": ["debate"]}, "event_type"),
        ({"occurred_at": ...}, "occurred_at"),
        ({"occurred_at": (NOON + timedelta(hours=1, seconds=1)).isoformat()}, "occurred_at"),
        ({"occurred_at": "9999-12-31T23:59:59Z"}, "occurred_at"),
        ({"occurred_at": "1999-12-31T23:59:59Z"}, "occurred_at"),
        ({"occurred_at": "0001-01-01T00:00:00+14:00"}, "occurred_at"),
        ({"occurred_at": "yesterday"}, "occurred_at"),
        ({"occurred_at": "2026-06-15T12:00:00"}, "occurred_at"),
        ({"occurred_at": "2026-02-30T12:00:00Z"}, "occurred_at"),
        ({"occurred_at": 1781524800}, "occurred_at"),
        ({"status": 1000}, "status"),
        ({"endpoint": "/" * 513}, "endpoint"),
        ({"metadata": []}, "metadata"),
        ({"metadata": "{}"}, "metadata"),
        ({"metadata": {"x": "y" * 8192}}, "metadata"),
        ({"metadata": {"x": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}}, "metadata"),
        ({"tokens_im": 1}, "tokens_im"),
    ],
)
def test_a_wrong_field_is_named_with_its_index_in_every_form(wrong: dict[str, Any], field: str):
    events = [native(), native(**wrong), native()]
    named = {"org_id": "subject", "occurred_at": "time"}.get(field, field)
    enveloped = cloudevent(**wrong)
    assert refused(events) == [(1, field)]
    assert refused(native(**wrong)) == [(0, field)]
    assert refused("\n".join(map(json.dumps, events)), NDJSON) == [(1, field)]
    assert refused([cloudevent(), enveloped], BATCH) == [(1, named)]
    assert refused(enveloped, STRUCTURED) == [(0, named)]
    if all(isinstance(value, str) and value.isascii() for value in attributes(enveloped).values()):
        assert refused(enveloped["data"], **attributes(enveloped)) == [(0, named)]


def test_all_wrong_events_are_named_up_to_a_hundred():
    events = [native(tokens_in=-1) if n % 3 else native() for n in range(90)]
    assert refused(events) == [(n, "tokens_in") for n in range(90) if n % 3]
    assert len(refused([native(org_id="a b") for _ in range(500)])) == 100
    assert len(refused([native(tokens_in=-1) for _ in range(500)])) == 100


def test_an_id_with_different_content_in_one_batch_is_a_mistake_and_a_plain_repeat_is_not():
    assert refused([native(id="x"), native(id="y"), native(id="x", tokens_in=2)]) == [(2, "id")]
    # With another timestamp it is a retry, here as in the worker.
    assert len(read([native(id="x"), native(id="x", occurred_at="2026-06-15T12:00:01Z")])) == 2
    assert len(read([native(id="x"), native(id="x"), native(id="x", org_id="org_other", tokens_in=2)])) == 3


def test_the_hour_ahead_is_allowed():
    latest = (NOON + timedelta(hours=1)).astimezone(UTC)
    (one,) = read(native(occurred_at=latest.isoformat()))
    assert one.time == datetime(2026, 6, 15, 13, tzinfo=UTC)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"   ", 400),
        (b"[", 400),
        (b"{", 400),
        (b"not json", 400),
        (b"[{}", 400),
        (b'{"id": "\xff\xfe"}', 400),
        (b'\xef\xbb\xbf{"id": "bom"}', 400),
        (b"\x00", 400),
        (b"[" * 200_000, 400),
        (b'{"metadata":' * 200_000, 400),
        (b'[{"metadata":' + b"[" * 200_000 + b"]" * 200_000 + b"}]", 400),
        (json.dumps([native(tokens_in=0)]).replace('"tokens_in": 0', '"tokens_in": NaN').encode(), 400),
        (json.dumps([native(tokens_in=0)]).replace('"tokens_in": 0', '"tokens_in": Infinity').encode(), 400),
        (json.dumps([native(tokens_in=0)]).replace('"tokens_in": 0', '"tokens_in": 007').encode(), 400),
        (json.dumps(native(model="?")).replace("?", r"\ud800").encode(), 400),
        (b"[]", 422),
        (b" [ ] ", 422),
    ],
)
def test_a_body_that_cannot_be_read_as_a_whole(body: bytes, status: int):
    assert unreadable(body) == status
    assert unreadable(body, BATCH) in {status, 422}


@pytest.mark.parametrize("body", [b"7", b"null", b'"text"', b"true", b"{}", b"[7]", b"[null]", b"[[]]"])
def test_what_is_json_but_no_event(body: bytes):
    assert refused(body) == [(0, "event" if body != b"{}" else "event_type")]


def test_a_number_out_of_range_is_the_fields_fault():
    body = json.dumps([native(), native(tokens_in=0)]).replace('"tokens_in": 0', '"tokens_in": 1e999')
    assert [index for index, _ in refused(body)] == [1]


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/xml", "application/x-www-form-urlencoded", "json"]
)
def test_another_content_type(content_type: str):
    assert unreadable(native(), content_type) == 415
    if content_type:
        assert unreadable(cloudevent()["data"], content_type, **attributes(cloudevent())) == 415


def test_too_many_events():
    events = [native(id=str(n)) for n in range(MAX_EVENTS)]
    assert len(read(events)) == MAX_EVENTS
    assert unreadable([*events, native()]) == 413
    assert unreadable("\n".join(map(json.dumps, [*events, native()])), NDJSON) == 413


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"type": "com.example.other"}, "type"),
        ({"source": None}, "source"),
        ({"data": "text"}, "data"),
        ({"data": None}, "data"),
        ({"data_base64": "e30=", "data": ...}, "data"),
    ],
)
def test_a_wrong_envelope(changed: dict[str, Any], field: str):
    event = {name: value for name, value in (cloudevent() | changed).items() if value is not ...}
    assert refused(event, STRUCTURED) == [(0, field)]
