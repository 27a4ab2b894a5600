"""What endpoints are sent."""

import json
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest

from notifier import payloads
from notifier.domain import Notice

EVENT_ID = UUID("01980000-0000-7000-8000-000000000001")
AT = datetime(2026, 5, 1, 14, 30, tzinfo=timezone(timedelta(hours=2)))
NOTICE = Notice(
    kind="payment.failed",
    severity="critical",
    title="A payment failed: <!channel> & <https://evil.example|you>",
    message="Größe 🎉",
    user_id="user_1",
    raw={"amount_usd": "0.10", "nested": {"a": None}},
)


def test_the_standard_body():
    body = payloads.standard("org_1", EVENT_ID, AT, NOTICE)
    assert json.loads(body) == {
        "type": "payment.failed",
        "timestamp": "2026-05-01T12:30:00Z",
        "data": {
            "id": str(EVENT_ID),
            "org_id": "org_1",
            "user_id": "user_1",
            "severity": "critical",
            "title": NOTICE.title,
            "message": "Größe 🎉",
            "fields": {"amount_usd": "0.10", "nested": {"a": None}},
        },
    }
    assert payloads.standard("org_1", EVENT_ID, AT.astimezone(UTC), NOTICE) == body


def test_in_slack_nobody_is_mentioned_and_nothing_is_a_link():
    sent = json.loads(payloads.slack(payloads.standard("org_1", EVENT_ID, AT, NOTICE)))
    section, context = sent["blocks"]
    assert section["text"]["text"] == (
        ":rotating_light: *A payment failed: &lt;!channel&gt; &amp; &lt;https://evil.example|you&gt;*\nGröße 🎉"
    )
    assert section["text"]["verbatim"] is True
    assert context["elements"][0]["text"] == f"org_1 · {EVENT_ID}"
    assert sent["text"].startswith("A payment failed: &lt;!channel&gt;")
    assert "<" not in json.dumps(sent)


@pytest.mark.parametrize("severity", payloads.SLACK_MARKS)
def test_slack_takes_any_length(severity: str):
    notice = Notice(kind="usage.anomaly", severity=severity, title="t" * 200, message="&" * 9000)  # type: ignore[arg-type]
    sent = json.loads(payloads.slack(payloads.standard("org_1", EVENT_ID, AT, notice)))
    assert len(sent["blocks"][0]["text"]["text"]) <= 3000
