"""What docs/webhooks.md tells receivers to do works."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from notifier import payloads, schedule, sending, signatures
from notifier.domain import Notice

PAGE = (Path(__file__).parents[2] / "docs/webhooks.md").read_text()
SECRET = signatures.secret_text(b"s" * 32)


def fenced(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def receiver() -> dict[str, Any]:
    """The example, with a memory and a queue."""
    queue: list[tuple[str, Any]] = []
    seen: set[str] = set()

    def seen_before(message_id: str) -> bool:
        before = message_id in seen
        seen.add(message_id)
        return before

    names: dict[str, Any] = {"seen_before": seen_before, "enqueue": lambda *told: queue.append(told), "queue": queue}
    exec(compile(fenced("python"), "docs/webhooks.md", "exec"), names)  # noqa: S102 - our own page
    return names


def test_the_example_takes_what_is_signed_once_and_refuses_the_rest(receiver: dict[str, Any]):
    notice = Notice(kind="payment.failed", severity="critical", title="A payment failed", message="…")
    body = payloads.standard("org_123", UUID(int=1), datetime(2026, 5, 1, 12, 30, tzinfo=UTC), notice)
    now = datetime.now(UTC)
    good = signatures.headers("msg_1", now, body, [SECRET])
    stale = signatures.headers("msg_2", now - timedelta(minutes=6), body, [SECRET])
    receive = receiver["receive"]
    assert [receive(SECRET, good, body.encode()) for _ in range(2)] == [204, 204]
    assert [receive(SECRET, stale, body.encode()), receive(SECRET, good, b"{}")] == [401, 401]
    ((kind, told),) = receiver["queue"]
    assert kind == "payment.failed"
    shown = json.loads(fenced("json"))
    assert told.keys() == shown["data"].keys()
    assert json.loads(body).keys() == shown.keys()


def test_the_figures_are_those_of_the_code():
    assert "5 seconds, 5 minutes, 30 minutes, 2, 5, 10, 14, 20 and\n24 hours" in PAGE
    assert [round(wait.total_seconds()) for wait in schedule.WAITS] == [
        5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400,
    ]  # fmt: skip
    assert f"within {sending.ATTEMPT_SECONDS:g} seconds" in PAGE
    assert f"after {_word(schedule.DISABLED_AFTER)} the endpoint is disabled" in PAGE


def _word(days: timedelta) -> str:
    return {5: "five days"}[days.days]
