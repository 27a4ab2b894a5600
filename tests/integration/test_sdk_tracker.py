"""The documented way of tracking usage, against a platform on a real socket."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from usage_platform import KEY, Failure, UsagePlatform, problem

from aragora.billing.client import PlatformClient
from aragora.billing.usage import (
    NotAuthorized,
    PlatformUnavailable,
    RequestRefused,
    UsageEvent,
    UsageEventType,
    UsageTracker,
)

README = Path(__file__).parents[2] / "libs/sdk/README.md"
DOCUMENTED = """
from aragora.billing.usage import (
    UsageTracker,
    UsageEvent,
    UsageEventType,
    calculate_token_cost,
)
# Initialize tracker (stored under ARAGORA_DATA_DIR)
tracker = UsageTracker("usage.db")
# Record a debate event
tracker.record_event(
    org_id="org_123",
    user_id="user_456",
    event_type=UsageEventType.DEBATE,
    provider="anthropic",
    model="claude-sonnet-4",
    tokens_in=1500,
    tokens_out=800,
)
# Calculate token cost
cost = calculate_token_cost(
    provider="anthropic",
    model="claude-sonnet-4",
    tokens_in=1500,
    tokens_out=800,
)
print(f"Cost: ${cost}") # Based on provider pricing
# Get usage summary
summary = tracker.get_usage_summary(
    org_id="org_123",
    start_date=datetime.now() - timedelta(days=30),
)
print(summary["total_debates"])
print(summary["total_tokens"])
print(summary["total_cost"])
"""


@pytest.fixture
def platform() -> Iterator[UsagePlatform]:
    with UsagePlatform() as platform:
        yield platform


@pytest.fixture
def tracker(tmp_path: Path, platform: UsagePlatform) -> Iterator[UsageTracker]:
    with UsageTracker(tmp_path / "usage.db", base_url=platform.url, api_key=KEY) as tracker:
        yield tracker


@pytest.fixture
def environment(tmp_path: Path, platform: UsagePlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARAGORA_DATA_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("ARAGORA_URL", platform.url)
    monkeypatch.setenv("ARAGORA_API_KEY", KEY)


@pytest.mark.usefixtures("environment")
def test_the_documented_example_runs_as_written(
    tmp_path: Path, platform: UsagePlatform, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {"datetime": datetime, "timedelta": timedelta}
    exec(DOCUMENTED, names)  # noqa: S102 - the documentation's own words
    names["tracker"].close()
    assert capsys.readouterr().out.splitlines() == ["Cost: $0.0165", "1", "2300", "0.0165"]
    assert (tmp_path / "state" / "usage.db").exists()
    (event,) = platform.events.values()
    assert event["org_id"] == "org_123"
    assert event["event_type"] == "debate"


@pytest.mark.usefixtures("environment")
def test_the_example_of_the_readme_runs(platform: UsagePlatform, capsys: pytest.CaptureFixture[str]) -> None:
    example = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[0]
    exec(example, {})  # noqa: S102 - the documentation's own words
    (event_id,) = platform.events
    assert capsys.readouterr().out.splitlines() == [event_id, "0.0165", "1 2300 0.0165"]


def test_every_field_arrives_as_recorded(tracker: UsageTracker, platform: UsagePlatform) -> None:
    occurred_at = datetime(2025, 1, 31, 23, 59, 59, 123456, tzinfo=UTC)
    event = tracker.record_event(
        org_id="org_1",
        event_type="page_scan",
        user_id="ünï",
        provider="gemini",
        model="gemini-2.5-pro",
        tokens_in=2**53,
        tokens_cached=3,
        tokens_reasoning=4,
        pages=5,
        seconds=Decimal("2.50"),
        cost_usd=Decimal("0.00125"),
        reservation_id="r1",
        endpoint="/api/generate",
        method="POST",
        status=200,
        response_time_ms=2500,
        metadata={"trace": ["a", 1, None]},
        occurred_at=occurred_at,
        event_id="mine-1",
    )
    assert isinstance(event, UsageEvent)
    assert tracker.flush(10)
    assert platform.events == {
        "mine-1": {
            "id": "mine-1",
            "org_id": "org_1",
            "event_type": "page_scan",
            "user_id": "ünï",
            "provider": "gemini",
            "model": "gemini-2.5-pro",
            "tokens_in": 2**53,
            "tokens_cached": 3,
            "tokens_reasoning": 4,
            "pages": 5,
            "seconds": "2.50",
            "cost_usd": "0.00125",
            "reservation_id": "r1",
            "endpoint": "/api/generate",
            "method": "POST",
            "status": 200,
            "response_time_ms": 2500,
            "metadata": {"trace": ["a", 1, None]},
            "occurred_at": "2025-01-31T23:59:59.123456Z",
        }
    }


def test_a_summary_includes_what_was_just_recorded_and_its_costs_are_decimals(
    tracker: UsageTracker, platform: UsagePlatform
) -> None:
    for _ in range(3):
        tracker.record_event(org_id="org_1", event_type=UsageEventType.API_CALL, tokens_in=10)
    start = datetime(2025, 3, 1, 2, tzinfo=UTC)
    summary = tracker.get_usage_summary("org_1", start, datetime(2025, 4, 1, tzinfo=UTC))
    assert summary["total_events"] == 3
    assert summary["total_tokens"] == 30
    assert summary["total_debates"] == 0
    assert summary["total_cost"] == Decimal("0.0165")
    assert isinstance(summary["total_cost"], Decimal)
    assert summary["by_provider"]["anthropic"] == {"events": 1, "cost_usd": Decimal("0.0165")}
    (asked,) = platform.summaries
    assert asked == {
        "path": "/api/usage/organizations/org_1/summary",
        "start": "2025-03-01T02:00:00Z",
        "end": "2025-04-01T00:00:00Z",
    }


def test_a_date_without_an_offset_is_local_time(tracker: UsageTracker, platform: UsagePlatform) -> None:
    local = datetime(2025, 7, 1, 12)  # noqa: DTZ001 - what the documentation's example gives
    tracker.get_usage_summary("org_1", local)
    (asked,) = platform.summaries
    assert datetime.fromisoformat(asked["start"]) == local.astimezone(UTC)


def test_an_organization_id_cannot_leave_its_place_in_the_url(platform: UsagePlatform) -> None:
    client = PlatformClient(platform.url, KEY)
    moment = datetime(2025, 1, 1, tzinfo=UTC)
    client.usage_summary("../../x?y", moment, moment)
    client.close()
    assert platform.summaries[0]["path"] == "/api/usage/organizations/..%2F..%2Fx%3Fy/summary"


@pytest.mark.parametrize(
    ("failure", "expected", "says"),
    [
        (problem(401), NotAuthorized, "ARAGORA_API_KEY"),
        (problem(403, detail="not yours"), NotAuthorized, "not yours"),
        (problem(422, detail="start is after end"), RequestRefused, "start is after end"),
        (problem(404, detail="no such organization"), RequestRefused, "no such organization"),
        (problem(503, detail="the database is away"), PlatformUnavailable, "the database is away"),
        (Failure(502, b"<html>"), PlatformUnavailable, "502"),
        (Failure(404, b"<html>"), PlatformUnavailable, "ARAGORA_URL"),
        (Failure(200, b"<html>"), PlatformUnavailable, "ARAGORA_URL"),
        (Failure(200, {"data": [1]}), PlatformUnavailable, "ARAGORA_URL"),
        (Failure(302, b"", {"Location": "http://127.0.0.1:1/"}), PlatformUnavailable, "ARAGORA_URL"),
    ],
)
def test_a_summary_that_fails_says_what_to_do(
    tracker: UsageTracker, platform: UsagePlatform, failure: Failure, expected: type[Exception], says: str
) -> None:
    platform.failures.append(failure)
    with pytest.raises(expected, match=says):
        tracker.get_usage_summary("org_1", datetime(2025, 1, 1, tzinfo=UTC))


def test_a_summary_from_a_platform_that_is_down_fails_soon(tmp_path: Path, platform: UsagePlatform) -> None:
    platform.stop()
    with UsageTracker(tmp_path / "usage.db", base_url=platform.url, api_key=KEY) as tracker:
        tracker.record_event(org_id="org_1", event_type="debate")
        with pytest.raises(PlatformUnavailable, match=platform.url):
            tracker.get_usage_summary("org_1", datetime(2025, 1, 1, tzinfo=UTC))
        assert tracker.pending() == 1
    platform.start()


@pytest.mark.parametrize(("header", "least", "most"), [("7", 7, 7), ("Wed, 21 Oct 2099 07:28:00 GMT", 1e9, 1e10)])
def test_the_pause_that_the_platform_asks_for_is_told(
    platform: UsagePlatform, header: str, least: float, most: float
) -> None:
    client = PlatformClient(platform.url, KEY)
    for status in (429, 503):
        platform.failures.append(Failure(status, None, {"Retry-After": header}))
        with pytest.raises(PlatformUnavailable) as refused:
            client.post_events([b'{"id":"1"}'])
        assert refused.value.retry_after_seconds is not None
        assert least <= refused.value.retry_after_seconds <= most
    client.close()


@pytest.mark.parametrize("header", ["soon", "", "-1", "²", "Wed, 21 Oct 2099 07:28:00"])
def test_an_unreadable_pause_is_none(platform: UsagePlatform, header: str) -> None:
    client = PlatformClient(platform.url, KEY)
    platform.failures.append(Failure(429, None, {"Retry-After": header}))
    with pytest.raises(PlatformUnavailable) as refused:
        client.post_events([b'{"id":"1"}'])
    assert refused.value.retry_after_seconds is None
    client.close()
