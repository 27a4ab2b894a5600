"""What is recorded arrives exactly once, whatever the platform does meanwhile."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from usage_platform import KEY, LOST_ANSWER, Event, Failure, UsagePlatform, not_at_all, problem

from aragora.billing.usage import UsageTracker


@pytest.fixture
def platform() -> Iterator[UsagePlatform]:
    with UsagePlatform() as platform:
        yield platform


@pytest.fixture
def tracker(tmp_path: Path, platform: UsagePlatform) -> Iterator[UsageTracker]:
    with UsageTracker(tmp_path / "usage.db", base_url=platform.url, api_key=KEY) as tracker:
        yield tracker


def record(tracker: UsageTracker, count: int, model: str = "gpt-4o") -> list[str]:
    return [
        tracker.record_event(org_id="org_1", event_type="debate", provider="openai", model=model, tokens_in=n).id
        for n in range(count)
    ]


def record_while_down(tracker: UsageTracker, platform: UsagePlatform, count: int, model: str = "gpt-4o") -> list[str]:
    """Events that wait for a platform which comes back, and are sent together."""
    platform.stop()
    ids = record(tracker, count, model)
    come_back(tracker, platform)
    return ids


def come_back(tracker: UsageTracker, platform: UsagePlatform) -> None:
    """The platform is up again, and no batch on its way to it that was made before all events were there."""
    delivery = tracker._delivery
    before = delivery._failed_attempts
    while delivery._failed_attempts < before + 2:  # of these the second was begun later
        assert not tracker.flush(0.02)
    platform.start()


def sent(platform: UsagePlatform) -> list[str]:
    return [each for batch in platform.batches for each in batch]


def assert_sent_again(platform: UsagePlatform, ids: list[str], *, times: int) -> None:
    """So many times the beginning was sent in vain; then all of it came, in order, and nothing twice."""
    in_vain, arrived = platform.batches[:times], platform.batches[times:]
    assert [batch for batch in in_vain if not batch or ids[: len(batch)] != batch] == []
    assert [each for batch in arrived for each in batch] == ids


def test_events_wait_while_the_platform_is_down_and_then_arrive_in_order(
    tracker: UsageTracker, platform: UsagePlatform
) -> None:
    platform.stop()
    ids = record(tracker, 1200)
    assert tracker.pending() == 1200
    assert not tracker.flush(0.3)
    platform.start()
    assert tracker.flush(10)
    assert sent(platform) == ids
    assert [len(batch) for batch in platform.batches] == [500, 500, 200]
    assert tracker.pending() == 0


def test_a_batch_is_bounded_in_bytes_too(tracker: UsageTracker, platform: UsagePlatform) -> None:
    platform.stop()
    for _ in range(200):
        tracker.record_event(org_id="org_1", event_type="debate", metadata={"text": "x" * 8000})
    come_back(tracker, platform)
    assert tracker.flush(10)
    assert [len(batch) for batch in platform.batches] == [128, 72]  # 1 MiB / 8.2 kB


def test_without_flush_events_arrive_by_themselves(tracker: UsageTracker, platform: UsagePlatform) -> None:
    ids = record(tracker, 30)
    platform.await_events(30)
    assert set(platform.events) == set(ids)


def test_a_lost_answer_repeats_the_same_ids_and_counts_once(tracker: UsageTracker, platform: UsagePlatform) -> None:
    ids = record_while_down(tracker, platform, 10)
    platform.failures.append(LOST_ANSWER)
    assert tracker.flush(10)
    assert_sent_again(platform, ids, times=1)
    assert list(platform.events) == ids


@pytest.mark.parametrize(
    "failure",
    [
        problem(503, detail="no bus"),
        Failure(500, b"oops"),
        Failure(200, {"accepted": 10}),
        Failure(404, b"<html>"),
        Failure(400, b"<html>from a proxy"),
        problem(401),
        problem(403),
        problem(404),
        problem(415),
    ],
)
def test_trouble_with_the_platform_only_delays(
    tracker: UsageTracker, platform: UsagePlatform, failure: Failure
) -> None:
    ids = record_while_down(tracker, platform, 10)
    platform.failures.extend([failure, failure])
    assert tracker.flush(10)
    assert_sent_again(platform, ids, times=2)
    assert tracker.refused() == []


def test_a_wrong_key_keeps_the_events_and_is_logged_once(
    tracker: UsageTracker, platform: UsagePlatform, caplog: pytest.LogCaptureFixture
) -> None:
    platform.key = "svc_another"
    record(tracker, 3)
    assert not tracker.flush(1)
    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "ARAGORA_API_KEY" in warnings[0]
    assert KEY not in caplog.text
    assert tracker.pending() == 3
    platform.key = KEY
    assert tracker.flush(10)
    assert len(platform.events) == 3


def test_a_pause_that_the_platform_asks_for_is_kept(tracker: UsageTracker, platform: UsagePlatform) -> None:
    platform.failures.append(Failure(429, None, {"Retry-After": "1"}))
    record(tracker, 1)
    platform.await_batches(1)
    assert tracker.flush(10)  # which hurries only where nobody asked
    first, second = platform.arrivals
    assert second - first >= 1


def test_a_flush_tries_at_once_and_often_however_long_the_platform_was_down(
    tracker: UsageTracker, platform: UsagePlatform
) -> None:
    delivery = tracker._delivery
    delivery._failures_in_a_row = 20  # as after an outage: the next pause is at least 30 seconds
    platform.stop()
    record(tracker, 1)
    with delivery._changed:
        assert delivery._changed.wait_for(lambda: delivery._failed_attempts == 1, 10)
    platform.start()
    platform.failures.extend([problem(503), problem(503)])
    assert tracker.flush(10)


def test_a_bad_event_is_set_aside_and_the_others_pass(
    tracker: UsageTracker, platform: UsagePlatform, caplog: pytest.LogCaptureFixture
) -> None:
    platform.refuses = lambda event: event["model"] == "bad"
    platform.stop()
    good = record(tracker, 4)
    bad = record(tracker, 2, "bad")
    good += record(tracker, 4)
    come_back(tracker, platform)
    assert tracker.flush(10)
    assert list(platform.events) == good
    refused = tracker.refused()
    assert [each.event["id"] for each in refused] == bad
    assert {(each.field, each.reason) for each in refused} == {("model", "is out of fashion")}
    assert "2 usage events were refused" in caplog.text


def test_refused_events_can_be_sent_again_under_their_ids(tracker: UsageTracker, platform: UsagePlatform) -> None:
    platform.refuses = bool
    ids = record_while_down(tracker, platform, 3)
    assert tracker.flush(10)
    assert len(tracker.refused()) == 3
    platform.refuses = not_at_all
    assert tracker.retry_refused() == 3
    assert tracker.refused() == []
    assert tracker.flush(10)
    assert list(platform.events) == ids


def test_a_403_that_names_the_event_sets_it_aside(tracker: UsageTracker, platform: UsagePlatform) -> None:
    batch: list[str] = []
    while len(batch) < 3:  # seldom, the first is on its way before the others are there: nothing is named then
        platform.stop()
        platform.batches.clear()
        ids = record(tracker, 3)
        platform.failures.append(problem(403, (1, "org_id", "is not yours")))
        platform.start()
        assert tracker.flush(10)
        batch = platform.batches[0]
    assert [each for each in ids if each in platform.events] == [ids[0], ids[2]]
    assert [each.reason for each in tracker.refused()] == ["is not yours"]


@pytest.mark.parametrize("names_an_index", [False, True])
def test_a_refusal_that_names_no_event_of_the_batch_still_finds_the_bad_one(
    tracker: UsageTracker, platform: UsagePlatform, *, names_an_index: bool
) -> None:
    def refuses(event: Event) -> bool:
        return bool(event["model"] == "bad")

    platform.refuses = refuses
    platform.names_refused = False
    platform.stop()
    good = record(tracker, 20)
    (bad,) = record(tracker, 1, "bad")
    good += record(tracker, 20)
    if names_an_index:
        platform.failures.append(problem(422, (4000, "model", "is not in this batch"), (-1, "model", "neither")))
    come_back(tracker, platform)
    assert tracker.flush(20)
    assert sorted(platform.events) == sorted(good)
    assert [each.event["id"] for each in tracker.refused()] == [bad]


def test_a_batch_that_is_too_large_is_halved_until_it_fits(tracker: UsageTracker, platform: UsagePlatform) -> None:
    platform.max_batch = 100
    ids = record_while_down(tracker, platform, 500)
    assert tracker.flush(20)
    assert list(platform.events) == ids
    assert [len(batch) for batch in platform.batches[:3]] == [500, 250, 125]
    assert tracker.refused() == []


def test_an_event_too_large_for_any_batch_is_set_aside(tracker: UsageTracker, platform: UsagePlatform) -> None:
    platform.max_batch = 0
    record_while_down(tracker, platform, 2)
    assert tracker.flush(10)
    assert len(tracker.refused()) == 2


def test_close_leaves_what_it_cannot_deliver_for_the_next_start(tmp_path: Path, platform: UsagePlatform) -> None:
    path = tmp_path / "usage.db"
    platform.stop()
    with UsageTracker(path, base_url=platform.url, api_key=KEY) as tracker:
        ids = record(tracker, 5)
    platform.start()
    with UsageTracker(path, base_url=platform.url, api_key=KEY) as tracker:
        platform.await_events(5)
        assert tracker.flush(10)
    assert list(platform.events) == ids


def test_close_delivers_what_it_can(tmp_path: Path, platform: UsagePlatform) -> None:
    with UsageTracker(tmp_path / "usage.db", base_url=platform.url, api_key=KEY) as tracker:
        ids = record(tracker, 700)
    assert set(platform.events) == set(ids)


def test_close_does_not_wait_out_a_pause_that_the_platform_asked_for(tmp_path: Path, platform: UsagePlatform) -> None:
    platform.failures.append(Failure(429, None, {"Retry-After": "600"}))
    with UsageTracker(tmp_path / "usage.db", base_url=platform.url, api_key=KEY) as tracker:
        record(tracker, 1)
        platform.await_batches(1)
    assert len(platform.batches) == 1
