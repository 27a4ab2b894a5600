"""Bad input over HTTP: the right 4xx, the index and field that are wrong, and not one event of the batch on the bus."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from metering_platform import MeteringPlatform, metering_platform
from one_service import ALL_SCOPES, JSON, KEYS, checked, token
from servers import PostgresServer
from usage import cloudevent, native

from metering.ingest import MAX_EVENTS

NDJSON = "application/x-ndjson"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
async def platform(
    postgres_server: PostgresServer, metering_template: str, nats_server: str
) -> AsyncIterator[MeteringPlatform]:
    async with metering_platform(postgres_server, metering_template, nats_server, workers=0) as running:
        yield running


@pytest.fixture(autouse=True)
async def nothing_reaches_the_bus(platform: MeteringPlatform) -> AsyncIterator[None]:
    yield
    assert await platform.published() == 0


def too_far_ahead() -> str:
    """Seen from when it is sent, which may be long after these tests were collected."""
    return (datetime.now(UTC) + timedelta(hours=1, minutes=5)).isoformat()


def batch(wrong: str) -> bytes:
    """Three events as text, the second with a field that JSON libraries would not write."""
    events = [json.dumps(native()), json.dumps(native(tokens_in="?")).replace('"?"', wrong), json.dumps(native())]
    return f"[{','.join(events)}]".encode()


@pytest.mark.parametrize("wrong", ["NaN", "Infinity", "-Infinity", "1e", "0x10", "+1", "1,000"])
async def test_not_a_json_number(platform: MeteringPlatform, wrong: str):
    answer = await platform.post(batch(wrong))
    assert answer.status_code == 400
    assert "not valid JSON" in answer.json()["detail"]


@pytest.mark.parametrize(
    "wrong", ["-1", "9007199254740993", "1" + "0" * 400, "1e999", "1.5", "1e3", '"7"', "true", "null", "[]", "{}"]
)
async def test_not_a_count(platform: MeteringPlatform, wrong: str):
    answer = await platform.post(batch(wrong))
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["index"] == 1
    assert error["field"] in {"tokens_in", "event"}
    assert error["message"]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("id", [..., "", "x" * 129, 7, "line\nfeed"]),
        ("org_id", [..., "", "x" * 65, "a.b", "a b", "*", ">", "ü", None]),
        ("user_id", ["", "x" * 129, 7]),
        ("event_type", [..., "", None, "x" * 129]),
        ("model", ["", "x" * 129, "nul\x00"]),
        ("occurred_at", [..., "yesterday", "2026-06-15", "2026-06-15T12:00:00", "2026-06-31T12:00:00Z", 1, None]),
        ("occurred_at", ["1999-12-31T23:59:59Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]),
        ("occurred_at", [too_far_ahead]),
        ("cost_usd", ["NaN", "Infinity", "-1", "1e5", 0.1, "", "0." + "1" * 19, "1" * 13]),
        ("seconds", [-1, "-1", "inf"]),
        ("status", [-1, 1000]),
        ("metadata", ["text", [], 7, {"x": "y" * 9000}]),
        ("tokens_inn", [1]),
        ("__proto__", [{}]),
    ],
)
async def test_a_wrong_field_is_named(platform: MeteringPlatform, field: str, values: list[Any]):
    for value in (each() if callable(each) else each for each in values):
        answer = await platform.post([native(), native(**{field: value}), native()])
        assert answer.status_code == 422, value
        assert [(each["index"], each["field"]) for each in answer.json()["errors"]] == [(1, field)], value
        answer = await platform.post(native(**{field: value}))
        assert [(each["index"], each["field"]) for each in answer.json()["errors"]] == [(0, field)], value


async def test_every_wrong_event_of_a_batch_is_named(platform: MeteringPlatform):
    events = [native(), native(tokens_in=-1), native(org_id="a b"), native(), native(occurred_at="?"), native(id=...)]
    named = [(each["index"], each["field"]) for each in (await platform.post(events)).json()["errors"]]
    assert named == [(1, "tokens_in"), (4, "occurred_at"), (5, "id")]
    # what only a second look shows is named once the types are right
    assert (await platform.post(events[:1] + events[2:4])).json()["errors"][0]["field"] == "org_id"


async def test_an_id_twice_in_one_batch_with_different_content(platform: MeteringPlatform):
    answer = await platform.post([native(id="one"), native(id="two"), native(id="one", tokens_in=7)])
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["index"], error["field"]) == (2, "id")
    assert "event 0" in error["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[{}", 400),
        (b"[" + json.dumps(native()).encode() + b",", 400),
        (b'{"id": "\xff"}', 400),
        (b"\xff\xfe[\x00]\x00", 400),
        (b"\x00", 400),
        (b"\x1f\x8b\x08\x00", 400),
        (b"[]", 422),
        (b"7", 422),
        (b"null", 422),
        (b"{}", 422),
        (b"[[]]", 422),
    ],
)
async def test_a_body_that_is_no_batch(platform: MeteringPlatform, body: bytes, status: int):
    assert (await platform.post(body)).status_code == status


@pytest.mark.parametrize("content_type", [NDJSON, "application/cloudevents+json", "application/cloudevents-batch+json"])
async def test_the_other_forms_are_as_strict(platform: MeteringPlatform, content_type: str):
    for body in (b"", b"[", b"{", b"\xff", b"[" * MIB, b"{}"):
        assert (await platform.post(body, content_type)).status_code in {400, 422}, body[:10]


async def test_wrong_cloudevents(platform: MeteringPlatform):
    for changed, field in (
        ({"specversion": "0.3"}, "specversion"), ({"type": "other"}, "type"), ({"subject": "a.b"}, "subject"),
        ({"time": "2026-06-15T12:00:00"}, "time"), ({"data": []}, "data"), ({"id": ""}, "id"),
    ):  # fmt: skip
        answer = await platform.post([cloudevent(), cloudevent() | changed], "application/cloudevents-batch+json")
        assert answer.status_code == 422
        assert [(each["index"], each["field"]) for each in answer.json()["errors"]] == [(1, field)]
        if field not in {"data", "specversion"}:
            headers = {f"ce-{name}": value for name, value in (cloudevent() | changed).items() if name != "data"}
            answer = await platform.post(cloudevent()["data"], **headers)
            assert [(each["index"], each["field"]) for each in answer.json()["errors"]] == [(0, field)]
    answer = await platform.post(cloudevent(tokens_inn=1), "application/cloudevents+json")
    assert [each["field"] for each in answer.json()["errors"]] == ["tokens_inn"]


@pytest.mark.parametrize(
    "bomb",
    [
        b"[" * MIB,
        b"[" * MIB + b"]" * MIB,
        b'{"metadata":' * 100_000,
        b'[{"metadata":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}]",
        b'[{"no_such_field":' + b"[" * 5_000 + b"]" * 5_000 + b"}]",
    ],
)
async def test_nesting_bombs(platform: MeteringPlatform, bomb: bytes):
    assert (await platform.post(bomb)).status_code in {400, 422}


@pytest.mark.parametrize("depth", [33, 500, 900, 960, 990])
async def test_metadata_that_a_reader_could_choke_on(platform: MeteringPlatform, depth: int):
    text = json.dumps(native(metadata="?")).replace('"?"', '{"a":' + "[" * depth + "]" * depth + "}")
    assert (await platform.post(text.encode())).status_code in {400, 422}


async def test_more_than_ten_thousand_events(platform: MeteringPlatform):
    event = {"org_id": "o", "event_type": "e", "occurred_at": "2026-06-15T12:00:00Z"}
    small = [event | {"id": str(n)} for n in range(MAX_EVENTS + 1)]
    assert (await platform.post(small)).status_code == 413
    lines = "\n".join(map(json.dumps, small)).encode()
    assert (await platform.post(lines, NDJSON)).status_code == 413


async def test_more_than_8_mib(platform: MeteringPlatform):
    answer = await platform.post(b" " * (8 * MIB + 1))
    assert answer.status_code == 413

    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(9):
            yield b" " * MIB

    headers = {"Authorization": f"Bearer {ALL_SCOPES}", "Content-Type": JSON}
    async with httpx.AsyncClient(base_url=platform.url, timeout=30) as client:
        assert (
            checked(await client.post("/api/usage/events", content=unannounced(), headers=headers)).status_code == 413
        )


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/xml", "multipart/form-data", "application/json5"]
)
async def test_a_wrong_content_type(platform: MeteringPlatform, content_type: str | None):
    answer = await platform.post(native(), content_type)
    assert answer.status_code == 415
    assert "application/json" in answer.json()["detail"]


def _credentials() -> Iterator[tuple[str | None, int]]:
    yield None, 401
    yield "Basic", 401
    yield "svc_" + "x" * 43, 401
    yield "nonsense", 401
    yield "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.", 401
    yield KEYS["usage.read"], 403
    yield KEYS["operator"], 403


async def test_wrong_credentials(platform: MeteringPlatform):
    for key, status in [*_credentials(), (token("user_ann", "org_acme", "owner"), 403)]:
        answer = await platform.post(native(), key=key)
        assert answer.status_code == status, key
        assert ("WWW-Authenticate" in answer.headers) == (status == 401)
        # nobody learns what is wrong with a body before they may send one
        assert (await platform.post(b"[", key=key)).status_code == status


async def test_a_key_also_comes_as_x_api_key(platform: MeteringPlatform):
    given = {"X-API-Key": KEYS["usage.write"]}
    assert (await platform.post(b"[]", key=None, **given)).status_code == 422


async def test_many_wrong_requests_at_once(platform: MeteringPlatform):
    answers = await asyncio.gather(*(platform.post([native(), native(tokens_in=-n)]) for n in range(1, 200)))
    assert {answer.status_code for answer in answers} == {422}
    assert "unexpected failure" not in platform.log()
