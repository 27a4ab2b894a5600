"""The edge and the worker have one opinion of every event, and a bad one costs the others nothing."""

import json
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from usage import NOON, cloudevent, message, native

from aragora.contracts.usage import InvalidUsage, Usage, UsageRecorded
from metering.ingest import UnreadableBody, read_body
from metering.intake import read_message, without_repeats

_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_COUNTS = st.integers(-1, 2**53 + 1) | st.just(2**53)
_NAMES = (
    st.text(max_size=130)
    | st.text(st.sampled_from("aé\x00\x1f\x7f\n\ud800\udc00"), max_size=9)
    | st.text("ab", min_size=1)
)
_AMOUNTS = st.from_regex(r"-?[0-9]{0,13}(\.[0-9]{0,19})?", fullmatch=True) | st.sampled_from(["NaN", "1e3", "0.1"])
_MOMENTS = st.datetimes().map(lambda moment: moment.isoformat()) | st.timedeltas(
    timedelta(hours=-3), timedelta(hours=3)
).map(lambda offset: (NOON + offset).isoformat())
_NAMED = ("id", "org_id", "event_type", "user_id", "provider", "model", "reservation_id", "endpoint", "method")
_COUNTED = [name for name in Usage.__struct_fields__ if name.startswith("tokens_")]
_COUNTED += ["requests", "searches", "images", "pages", "status", "response_time_ms"]
_CHANGES = st.one_of(
    st.tuples(st.sampled_from(_NAMED), _NAMES),
    st.tuples(st.sampled_from(_COUNTED), _COUNTS),
    st.tuples(st.sampled_from(("cost_usd", "seconds")), _AMOUNTS),
    st.tuples(st.just("occurred_at"), _MOMENTS),
    st.tuples(st.just("metadata"), st.dictionaries(_NAMES, _ANYTHING, max_size=4)),
    st.tuples(st.sampled_from((*Usage.__struct_fields__, "id", "org_id", "occurred_at")), _ANYTHING | st.just(...)),
)


def accepted(event: dict[str, Any]) -> UsageRecorded | None:
    """What the edge makes of an event."""
    try:
        (one,) = read_body(as_json(event), {"content-type": "application/json"}, source="/test", now=NOON)
    except (InvalidUsage, UnreadableBody):
        return None
    return one


def as_json(value: Any) -> bytes:
    """JSON as another program writes it: also NaN, Infinity and halves of surrogate pairs."""
    return json.dumps(value).encode()


@given(st.lists(_CHANGES, max_size=4), st.booleans())
def test_the_edge_accepts_exactly_what_the_worker_records(changes: list[tuple[str, Any]], alone: bool):  # noqa: FBT001
    event = native(**{"id": "e1"} | dict(changes))
    enveloped = cloudevent(**{"id": "e1"} | dict(changes))
    at_the_edge = accepted(event)
    for body in (as_json([enveloped]), as_json(enveloped)) if alone else (as_json([enveloped] * 2),):
        good, refused = read_message(body, NOON)
        assert bool(good) == (at_the_edge is not None)
        assert bool(refused) == (at_the_edge is None)
        for one in good:
            assert at_the_edge is not None
            assert (one.id, one.subject, one.time, one.data) == (
                at_the_edge.id, at_the_edge.subject, at_the_edge.time, at_the_edge.data
            )  # fmt: skip
            # what Postgres cannot keep in a text
            assert "\x00" not in f"{one.id}{one.subject}{one.data.model}{one.data.user_id}{one.data.endpoint}"
            msgspec.json.encode(one).decode()


@given(st.lists(_CHANGES, max_size=4))
def test_what_the_edge_publishes_arrives_as_it_was_sent(changes: list[tuple[str, Any]]):
    one = accepted(native(**{"id": "e1"} | dict(changes)))
    if one is not None:
        assert read_message(msgspec.json.encode([one]), NOON) == ([one], [])
        assert read_message(msgspec.json.encode(one), NOON) == ([one], [])


def test_a_bad_event_is_kept_as_it_came_and_costs_the_others_nothing():
    bad = cloudevent(id="bad", tokens_in=-1)
    good, refused = read_message(message(cloudevent(id="a"), bad, cloudevent(id="b")), NOON)
    assert [one.id for one in good] == ["a", "b"]
    (one,) = refused
    assert (json.loads(one.payload), one.field, one.org_id) == (bad, "tokens_in", "org_acme")
    assert "-1" not in one.reason
    assert "0" in one.reason


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"org_id": "a.b"}, "org_id"),
        ({"org_id": ...}, "org_id"),
        ({"occurred_at": "2026-06-15T13:00:01Z"}, "occurred_at"),
        ({"occurred_at": ...}, "occurred_at"),
        ({"cost_usd": "-1"}, "cost_usd"),
        ({"seconds": "1e3"}, "seconds"),
        ({"endpoint": "\x7f"}, "endpoint"),
        ({"id": "\x00"}, "id"),
        ({"id": "x" * 129}, "id"),
        ({"metadata": [1]}, "metadata"),
        ({"event_type": ...}, "event_type"),
    ],
)
def test_the_field_has_the_name_that_publishers_know(wrong: dict[str, Any], field: str):
    good, (refused,) = read_message(message(cloudevent(**wrong)), NOON)
    assert (good, refused.field) == ([], field)
    assert json.loads(refused.payload) == cloudevent(**{"id": json.loads(refused.payload)["id"]} | wrong)


@pytest.mark.parametrize("wrong", [{"tokens_in": -1}, {"cost_usd": "-1"}, {"occurred_at": "2099-01-01T00:00:00Z"}])
def test_a_letter_holds_the_very_bytes_that_came(wrong: dict[str, Any]):
    payload = b' {"of_the_next_version": [ 1 ], ' + json.dumps(cloudevent(**wrong)).encode()[1:]
    for body in (b" [" + payload + b"\n]", payload):
        _, (refused,) = read_message(body, NOON)
        assert refused.payload.strip() == payload.strip()


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"\xff", b"[", b"{", b"[" * 100_000, b"[[" * 500 + b"]]" * 500, b"nope", b"[{}", b'[{"a":' * 50_000],
)
def test_a_message_that_is_no_batch_is_one_letter(body: bytes):
    good, refused = read_message(body, NOON)
    assert good == []
    assert refused
    assert all(each.reason for each in refused)


def test_an_empty_batch_is_nothing():
    assert read_message(b"[]", NOON) == ([], [])


def test_unknown_fields_are_ignored_on_the_bus():
    later = cloudevent(id="e1", of_the_next_version={"a": [1]}) | {"traceparent": "00-1-2-03"}
    good, refused = read_message(message(later), NOON)
    assert ([one.id for one in good], refused) == (["e1"], [])


def test_of_a_repeat_the_first_wins_and_other_content_is_refused():
    sent = [
        cloudevent(id="x", tokens_in=1),
        cloudevent(id="x", tokens_in=1, occurred_at="2026-06-15T11:00:00Z"),
        cloudevent(id="x", tokens_in=2),
        cloudevent(id="x", tokens_in=2, org_id="org_other"),
    ]
    good, _ = read_message(message(*sent), NOON)
    kept, refused = without_repeats(good)
    assert [(one.subject, one.data.tokens_in, one.time) for one in kept] == [
        ("org_acme", 1, NOON), ("org_other", 2, NOON)
    ]  # fmt: skip
    assert [(json.loads(one.payload)["data"]["tokens_in"], one.field) for one in refused] == [(2, "id")]
