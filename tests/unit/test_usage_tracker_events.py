"""What may be recorded, what is refused at once, and how long delivery pauses. Nothing here reaches the network."""

import inspect
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aragora.billing.delivery import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Delivery, pause_seconds
from aragora.billing.spool import Spool
from aragora.billing.usage import InvalidUsage, MoreUsage, UsageEvent, UsageEventType, UsageTracker, _checked, _metadata


def stay(delivery: Delivery) -> None:
    """Instead of starting the thread that delivers."""


@pytest.fixture
def tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UsageTracker]:
    """A tracker whose events stay in the file."""
    monkeypatch.setattr(Delivery, "_start", stay)
    tracker = UsageTracker(tmp_path / "usage.db")
    yield tracker
    tracker.close(0)


def spooled(tracker: UsageTracker) -> list[dict[str, Any]]:
    return [msgspec.json.decode(pending.event) for pending in tracker._spool.head(1000, 10**9)]


def test_an_event_is_in_the_file_when_record_event_returns(tracker: UsageTracker) -> None:
    before = datetime.now(UTC)
    event = tracker.record_event(org_id="org_1", event_type=UsageEventType.DEBATE, tokens_in=7)
    assert UUID(event.id).version == 7
    assert before <= event.occurred_at <= datetime.now(UTC)
    assert tracker.pending() == 1
    (stored,) = spooled(tracker)
    assert stored == {
        "id": event.id,
        "org_id": "org_1",
        "event_type": "debate",
        "tokens_in": 7,
        "occurred_at": event.occurred_at.isoformat().replace("+00:00", "Z"),
    }


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"org_id": ""}, "org_id"),
        ({"org_id": "a.b"}, "org_id"),
        ({"org_id": None}, "org_id"),
        ({"org_id": "x" * 65}, "org_id"),
        ({"event_type": ""}, "event_type"),
        ({"event_type": None}, "event_type"),
        ({"event_type": "a\x00b"}, "event_type"),
        ({"user_id": "x" * 129}, "user_id"),
        ({"user_id": 7}, "user_id"),
        ({"model": "\ud800"}, ""),
        ({"tokens_in": -1}, "tokens_in"),
        ({"tokens_in": 2**53 + 1}, "tokens_in"),
        ({"tokens_in": 10**30}, "tokens_in"),
        ({"tokens_in": True}, "tokens_in"),
        ({"tokens_in": 1.0}, "tokens_in"),
        ({"tokens_in": float("nan")}, "tokens_in"),
        ({"tokens_out": float("inf")}, "tokens_out"),
        ({"tokens_out": "5"}, "tokens_out"),
        ({"images": -1}, "images"),
        ({"cost_usd": 0.1}, "cost_usd"),
        ({"cost_usd": -1}, "cost_usd"),
        ({"cost_usd": Decimal("-0.1")}, "cost_usd"),
        ({"cost_usd": Decimal("NaN")}, "cost_usd"),
        ({"cost_usd": Decimal("Infinity")}, "cost_usd"),
        ({"cost_usd": Decimal("1E-19")}, "cost_usd"),
        ({"cost_usd": True}, "cost_usd"),
        ({"cost_usd": "1e5"}, "cost_usd"),
        ({"seconds": 2.5}, "seconds"),
        ({"occurred_at": datetime(2025, 1, 1)}, "occurred_at"),  # noqa: DTZ001 - naive on purpose
        ({"occurred_at": datetime.now(UTC) + timedelta(hours=2)}, "occurred_at"),
        ({"occurred_at": datetime(1999, 1, 1, tzinfo=UTC)}, "occurred_at"),
        ({"occurred_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))}, "occurred_at"),
        ({"occurred_at": datetime.max.replace(tzinfo=timezone(-timedelta(hours=12)))}, "occurred_at"),
        ({"occurred_at": "yesterday"}, "occurred_at"),
        ({"event_id": ""}, "id"),
        ({"event_id": "x" * 129}, "id"),
        ({"tokens": 5}, "tokens"),
        ({"metadata": {"x": float("nan")}}, "metadata"),
        ({"metadata": {"x": object()}}, "metadata"),
        ({"metadata": {"x": "\ud800"}}, "metadata"),
        ({"metadata": {"x": "y" * 9000}}, "metadata"),
        ({"metadata": [1]}, "metadata"),
        ({"metadata": "{}"}, "metadata"),
    ],
)
def test_what_the_platform_would_refuse_is_refused_at_once(
    tracker: UsageTracker, wrong: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidUsage) as refused:
        tracker.record_event(**{"org_id": "org_1", "event_type": "debate", **wrong})
    (error,) = refused.value.errors
    assert error.field == field
    assert error.message
    assert tracker.pending() == 0


def test_a_loop_in_metadata_is_refused(tracker: UsageTracker) -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    with pytest.raises(InvalidUsage, match="metadata"):
        tracker.record_event(org_id="org_1", event_type="debate", metadata=loop)


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        (Decimal("0.00125"), "0.00125"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1E-18"), "0.000000000000000001"),
        ("0.10", "0.10"),
        (3, "3"),
        (0, "0"),
    ],
)
def test_amounts_are_written_exactly(tracker: UsageTracker, amount: Decimal | str | int, written: str) -> None:
    tracker.record_event(org_id="org_1", event_type="debate", cost_usd=amount)
    assert spooled(tracker)[0]["cost_usd"] == written


def test_a_moment_is_recorded_in_utc(tracker: UsageTracker) -> None:
    moment = datetime(2025, 2, 1, 0, 30, tzinfo=timezone(timedelta(hours=1)))
    event = tracker.record_event(org_id="org_1", event_type="debate", occurred_at=moment)
    assert event.occurred_at == moment
    assert spooled(tracker)[0]["occurred_at"] == "2025-01-31T23:30:00Z"


@given(
    fields=st.fixed_dictionaries(
        {
            "org_id": st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
            "event_type": st.sampled_from(UsageEventType),
        },
        optional={
            "user_id": st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=128),
            "tokens_in": st.integers(0, 2**53),
            "images": st.integers(0, 2**53),
            "cost_usd": st.decimals(0, 10**11, places=18),
            "occurred_at": st.datetimes(datetime(2000, 1, 2), datetime(2026, 1, 1), timezones=st.timezones()),  # noqa: DTZ001
            "metadata": st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=9), st.integers(), max_size=9),
        },
    )
)
def test_what_is_recorded_is_what_is_stored(fields: dict[str, Any]) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    raw = dict(fields)
    if "metadata" in raw:
        raw["metadata"] = _metadata(raw["metadata"])
    event, encoded = _checked({"id": "1", "occurred_at": now, **raw}, now)
    read = msgspec.json.decode(encoded, type=UsageEvent)
    assert read.org_id == fields["org_id"]
    assert read.event_type == fields["event_type"]
    assert read.user_id == fields.get("user_id")
    assert read.tokens_in == fields.get("tokens_in", 0)
    assert read.images == fields.get("images")
    # In UTC: Python holds a wall time that a change of clocks repeats to be unequal to every time of another zone.
    assert read.occurred_at == event.occurred_at == fields.get("occurred_at", now).astimezone(UTC)
    assert (Decimal(read.cost_usd) if read.cost_usd else None) == fields.get("cost_usd")
    if "metadata" in fields:
        assert isinstance(read.metadata, msgspec.Raw)
        assert msgspec.json.decode(read.metadata) == fields["metadata"]


def test_every_field_of_a_usage_event_can_be_given() -> None:
    parameters = set(inspect.signature(UsageTracker.record_event).parameters) - {"self", "more", "event_id"}
    assert parameters | set(MoreUsage.__annotations__) | {"id"} == set(UsageEvent.__struct_fields__)


def test_the_address_must_be_http(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="http://"):
        UsageTracker(tmp_path / "usage.db", base_url="localhost:8000")


@given(failures=st.integers(1, 10_000), chance=st.floats(0, 1))
def test_pauses_grow_to_a_minute_and_are_spread(failures: int, chance: float) -> None:
    longest = pause_seconds(failures, 0)
    assert longest / 2 <= pause_seconds(failures, chance) <= longest <= LONGEST_PAUSE_SECONDS
    assert longest <= pause_seconds(failures + 1, 0)


def test_the_first_pause_is_short_and_a_minute_is_reached() -> None:
    assert pause_seconds(1, 0) == FIRST_PAUSE_SECONDS
    assert pause_seconds(10, 0) == LONGEST_PAUSE_SECONDS


def test_a_spool_is_not_opened_before_it_is_needed(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "deep" / "usage.db", in_forked_child=lambda: None)
    assert not spool.path.exists()
    spool.append(b"{}")
    assert spool.path.exists()
    spool.close()
