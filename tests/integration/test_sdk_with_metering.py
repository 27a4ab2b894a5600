"""The SDK against metering itself: what is recorded comes back in the summary, counted once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from metering_platform import MeteringPlatform, metering_platform
from one_service import ALL_SCOPES, KEYS
from servers import PostgresServer

from aragora.billing.usage import NotAuthorized, RequestRefused, UsageEventType, UsageTracker, calculate_token_cost


@pytest.fixture(scope="module")
async def platform(
    postgres_server: PostgresServer, metering_template: str, nats_server: str
) -> AsyncIterator[MeteringPlatform]:
    async with metering_platform(postgres_server, metering_template, nats_server) as platform:
        yield platform


async def summary_of(tracker: UsageTracker, platform: MeteringPlatform, org_id: str) -> dict[str, Any]:
    assert await asyncio.to_thread(tracker.flush, 20)
    await platform.settled()
    return await asyncio.to_thread(tracker.get_usage_summary, org_id, datetime.now(UTC) - timedelta(days=30))


async def test_recorded_usage_is_priced_and_summed_up(platform: MeteringPlatform, tmp_path: Path) -> None:
    with UsageTracker(tmp_path / "usage.db", base_url=platform.url, api_key=ALL_SCOPES) as tracker:
        for _ in range(300):
            tracker.record_event(
                org_id="org_sdk",
                user_id="user_456",
                event_type=UsageEventType.DEBATE,
                provider="anthropic",
                model="claude-sonnet-4",
                tokens_in=1500,
                tokens_out=800,
                metadata={"topic": "ünï"},
            )
        summary = await summary_of(tracker, platform, "org_sdk")
    cost = calculate_token_cost(provider="anthropic", model="claude-sonnet-4", tokens_in=1500, tokens_out=800)
    assert summary["total_debates"] == 300
    assert summary["total_tokens"] == 300 * 2300
    assert summary["total_cost"] == 300 * cost
    assert isinstance(summary["total_cost"], Decimal)
    assert summary["by_provider"]["anthropic"]["cost_usd"] == 300 * cost


async def test_an_id_of_ones_own_counts_once_though_recorded_twice(platform: MeteringPlatform, tmp_path: Path) -> None:
    with UsageTracker(tmp_path / "usage.db", base_url=platform.url, api_key=ALL_SCOPES) as tracker:
        for _ in range(2):
            tracker.record_event(org_id="org_own", event_type="api_call", event_id="job-1")
            assert await asyncio.to_thread(tracker.flush, 20)
        summary = await summary_of(tracker, platform, "org_own")
        assert tracker.refused() == []
    assert summary["total_events"] == 1


async def test_what_metering_refuses_is_set_aside_and_the_rest_counts(
    platform: MeteringPlatform, tmp_path: Path
) -> None:
    with UsageTracker(tmp_path / "usage.db", base_url=platform.url, api_key=ALL_SCOPES) as tracker:
        tracker.record_event(org_id="org_bad", event_type="api_call")
        # As another version of the SDK, with other rules, may have left it in the file.
        tracker._spool.append(
            b'{"id":"1","org_id":"org_bad","event_type":"x","occurred_at":"2026-01-01T00:00:00Z","n":1}'
        )
        tracker.record_event(org_id="org_bad", event_type="api_call")
        summary = await summary_of(tracker, platform, "org_bad")
        (refused,) = tracker.refused()
    assert summary["total_events"] == 2
    assert refused.event["id"] == "1"
    assert refused.field == "n"


async def test_a_key_without_the_right_scope_delivers_nothing_and_loses_nothing(
    platform: MeteringPlatform, tmp_path: Path
) -> None:
    with UsageTracker(tmp_path / "usage.db", base_url=platform.url, api_key=KEYS["usage.read"]) as tracker:
        tracker.record_event(org_id="org_sdk", event_type="api_call")
        assert not await asyncio.to_thread(tracker.flush, 0.5)
        assert tracker.pending() == 1
    with UsageTracker(tmp_path / "usage.db", base_url=platform.url, api_key=KEYS["usage.write"]) as tracker:
        assert await asyncio.to_thread(tracker.flush, 20)
        with pytest.raises(NotAuthorized):
            await asyncio.to_thread(tracker.get_usage_summary, "org_sdk", datetime.now(UTC))


async def test_a_summary_that_makes_no_sense_is_refused(platform: MeteringPlatform, tmp_path: Path) -> None:
    with UsageTracker(tmp_path / "usage.db", base_url=platform.url, api_key=ALL_SCOPES) as tracker:
        with pytest.raises(RequestRefused) as backwards:
            tracker.get_usage_summary("org_sdk", datetime(2025, 2, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC))
        with pytest.raises(RequestRefused):
            tracker.get_usage_summary("org.sdk", datetime(2025, 2, 1, tzinfo=UTC))
    assert backwards.value.status == 422
