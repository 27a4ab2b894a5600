"""The exported JSON Schemas of usage accept and refuse what the code does, so that publishers may trust them."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from contracts.export import EXAMPLES, NATIVE, SCHEMAS
from jsonschema import Draft202012Validator

from aragora.contracts import usage
from aragora.contracts.usage import MAX_COUNT, USAGE_RECORDED, UsageRecorded, refusal
from metering.ingest import UnreadableBody, read_body

NOW = datetime(2026, 6, 16, tzinfo=UTC)
BUS = json.loads((EXAMPLES / f"{USAGE_RECORDED}.json").read_text())
FLAT = json.loads((EXAMPLES / f"{NATIVE}.json").read_text())
bus_schema = Draft202012Validator(json.loads((SCHEMAS / f"{USAGE_RECORDED}.json").read_text()))
native_schema = Draft202012Validator(json.loads((SCHEMAS / f"{NATIVE}.json").read_text()))

COUNTS = [name for name, value in FLAT.items() if isinstance(value, int) and name != "status"]
CHANGES: list[tuple[str, Any]] = [
    *((name, value) for name in COUNTS for value in (0, MAX_COUNT, MAX_COUNT + 1, -1, 1.5, "1", True)),
    *(("status", value) for value in (0, 200, 999, 1000, -1, "200")),
    *((name, value) for name in ("seconds", "cost_usd") for value in ("0", "1.5", "-1", "1e3", "", "NaN", "1.", 1)),
    *(("cost_usd", value) for value in ("0." + "1" * 18, "0." + "1" * 19, "9" * 12, "9" * 13)),
    *((name, value) for name in ("event_type", "user_id", "provider", "model") for value in ("x", "", "x" * 129, 7)),
    *(("endpoint", value) for value in ("", "x" * 512, "x" * 513)),
    *(("method", value) for value in ("GET", "x" * 17)),
    ("metadata", {}),
    ("metadata", {"a": [1, {"b": None}]}),
    ("metadata", []),
    ("metadata", "x"),
    ("metadata", 3),
    *((name, None) for name in FLAT),
    ("no_such_field", 1),
]
ENVELOPE_CHANGES: list[tuple[str, Any]] = [
    *(("subject", value) for value in ("org-1_A", "", "a.b", "a b", "*", "x" * 64, "x" * 65, 1)),
    *(("id", value) for value in ("x", "", "x" * 128, "x" * 129, 1)),
    ("type", "aragora.metering.UsageRecorded.v2"),
    ("specversion", "0.3"),
    ("source", "x" * 513),
    ("laterattribute", "ignored"),
]


def accepted_on_the_bus(event: dict[str, Any]) -> bool:
    try:
        return refusal(msgspec.json.decode(json.dumps(event), type=UsageRecorded), NOW) is None
    except msgspec.ValidationError:
        return False


def accepted_over_http(event: dict[str, Any]) -> bool:
    try:
        read_body(json.dumps(event).encode(), {"content-type": "application/json"}, source="/test", now=NOW)
    except (usage.InvalidUsage, UnreadableBody):
        return False
    return True


@pytest.mark.parametrize(("name", "value"), CHANGES)
def test_a_changed_field_is_judged_alike(name: str, value: Any):
    native = FLAT | {name: value}
    assert native_schema.is_valid(native) == accepted_over_http(native)
    if name not in ("id", "org_id", "occurred_at"):
        recorded = BUS | {"data": BUS["data"] | {name: value}}
        assert bus_schema.is_valid(recorded) == accepted_on_the_bus(recorded)


@pytest.mark.parametrize(("name", "value"), ENVELOPE_CHANGES)
def test_a_changed_attribute_is_judged_alike(name: str, value: Any):
    recorded = BUS | {name: value}
    assert bus_schema.is_valid(recorded) == accepted_on_the_bus(recorded)


@pytest.mark.parametrize("name", FLAT)
def test_an_absent_field_is_judged_alike(name: str):
    native = {other: value for other, value in FLAT.items() if other != name}
    assert native_schema.is_valid(native) == accepted_over_http(native)


@pytest.mark.parametrize("name", BUS)
def test_an_absent_attribute_is_judged_alike(name: str):
    recorded = {other: value for other, value in BUS.items() if other != name}
    assert bus_schema.is_valid(recorded) == accepted_on_the_bus(recorded)
