"""The event log: paged without gaps or repeats, filtered, and there as soon as it is recorded."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from metering_platform import MeteringPlatform
from usage import native

EVENTS = "/api/usage/events"


async def pages(
    platform: MeteringPlatform, org: str, limit: int, **filters: Any
) -> AsyncIterator[list[dict[str, Any]]]:
    cursor = None
    while True:
        answer = await platform.get(EVENTS, org_id=org, limit=limit, cursor=cursor, **filters)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        yield page["events"]
        cursor = page["next_cursor"]
        if cursor is None:
            return


async def test_the_log_is_paged_without_gaps_or_repeats_while_more_comes_in(platform: MeteringPlatform, org: str):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rnd = random.Random(seed)
    # many events share a moment, so that only the id says which is next
    moments = [f"2026-06-{rnd.randrange(1, 8):02d}T12:00:00.{rnd.randrange(3)}Z" for _ in range(500)]
    before = [native(org_id=org, id=f"a {n}", occurred_at=moment) for n, moment in enumerate(moments)]
    await platform.record(*before)
    seen: list[tuple[datetime, str]] = []
    late = 0
    async for page in pages(platform, org, 17):
        seen += [(datetime.fromisoformat(each["occurred_at"]), each["id"]) for each in page]
        more = [native(org_id=org, id=f"b{late + n}", occurred_at=rnd.choice(moments)) for n in range(5)]
        late += 5
        await platform.post(more)
    assert len(seen) == len(set(seen))
    assert seen == sorted(seen, reverse=True)
    assert {each for _, each in seen} >= {each["id"] for each in before}
    await platform.settled()
    everything = [each async for page in pages(platform, org, 1000) for each in page]
    assert len(everything) == 500 + late


async def test_the_log_is_filtered(platform: MeteringPlatform, org: str):
    kinds = [
        {"user_id": user, "event_type": event_type, "provider": provider, "model": model}
        for user in ("ann", "bob")
        for event_type in ("debate", "api_call")
        for provider, model in (("openai", "gpt-4o"), ("openai", "gpt-4o-mini"), ("gemini", "gemini-2.5-pro"))
    ]
    events = [
        native(org_id=org, id=f"e{n}", occurred_at=f"2026-06-{1 + n:02d}T00:00:00Z", **kind)
        for n, kind in enumerate(kinds)
    ]
    await platform.record(*events)
    for filters in ({}, *({name: value} for kind in kinds for name, value in kind.items()), *kinds, {"id": "e3"}):
        wanted = [each["id"] for each in events if all(each[name] == value for name, value in filters.items())]
        found = [each["id"] async for page in pages(platform, org, 2, **filters) for each in page]
        assert found == wanted[::-1]
    for start, end, ids in (
        ("2026-06-03", "2026-06-04", ["e3", "e2"]), ("2026-06-03T00:00:00Z", "2026-06-04T00:00:00Z", ["e2"]),
        ("2026-06-12", None, ["e11"]), (None, "2026-06-01T02:00:00+02:00", []), (None, "2026-06-01", ["e0"]),
    ):  # fmt: skip
        found = [each["id"] async for page in pages(platform, org, 100, start=start, end=end) for each in page]
        assert found == ids


async def test_what_the_log_does_not_take(platform: MeteringPlatform, org: str):
    assert (await platform.get(EVENTS)).json()["errors"][0]["field"] == "org_id"
    wrong: dict[str, list[Any]] = {
        "limit": [0, 1001, "x"], "org_id": ["a.b", ""], "user_id": ["", "x" * 129, "\x00"],
        "cursor": [
            "nonsense", "====", "AAAA", "é", "x" * 401, "MDAwMS0wMS0wMVQwMDowMDowMCsxNDowMCB4",
            "OTk5OS0xMi0zMVQyMzo1OTo1OS0xNDowMCB4", "MjAyNi0wMS0wMVQwMDowMDowMCswMDowMCAA",
            "MjAyNi0wMS0wMVQwMDowMDowMCB4",
        ],
    }  # fmt: skip
    for name, values in wrong.items():
        for value in values:
            answer = await platform.get(EVENTS, **{"org_id": org, name: value})
            assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, name), value


async def test_what_is_recorded_can_be_read_at_once(platform: MeteringPlatform, org: str):
    async def one(number: int) -> None:
        await platform.record(native(org_id=org, id=f"e{number}"))
        found = [each["id"] async for page in pages(platform, org, 1000, id=f"e{number}") for each in page]
        assert found == [f"e{number}"]

    await asyncio.gather(*(one(number) for number in range(20)))
    summary = (await platform.get(f"/api/usage/organizations/{org}/summary")).json()
    assert summary["data"]["total_events"] == 20
