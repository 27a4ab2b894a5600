"""What endpoints are sent: a notice in the shape that Standard Webhooks recommends, or a Slack message. Pure."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from notifier.domain import Notice

SLACK_MARKS = {"info": ":information_source:", "warning": ":warning:", "critical": ":rotating_light:"}
MAX_SLACK_TEXT = 3000
"""Characters that Slack takes in the text of one block (https://docs.slack.dev/reference/block-kit/blocks)."""


def standard(org_id: str, event_id: UUID, occurred_at: datetime, notice: Notice) -> str:
    """The body: `type`, `timestamp` and `data`, with the event's own fields in `data.fields`; amounts are strings."""
    content: dict[str, Any] = {
        "type": notice.kind,
        "timestamp": occurred_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "data": {
            "id": str(event_id),
            "org_id": org_id,
            "user_id": notice.user_id,
            "severity": notice.severity,
            "title": notice.title,
            "message": notice.message,
            "fields": notice.raw,
        },
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def slack(body: str) -> str:
    """The Slack message of a standard body. What people wrote cannot mention or link anybody in it."""
    told = json.loads(body)["data"]
    mark, title = SLACK_MARKS[told["severity"]], _escaped(told["title"])
    text = f"{mark} *{title}*\n{_escaped(told['message'])}"[:MAX_SLACK_TEXT]
    about = f"{_escaped(told['org_id'])} · {_escaped(told['id'])}"
    return json.dumps(
        {
            "text": f"{title}: {_escaped(told['message'])}"[:MAX_SLACK_TEXT],
            "unfurl_links": False,
            "unfurl_media": False,
            "blocks": [
                {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}},
                {"type": "context", "elements": [{"type": "mrkdwn", "text": about, "verbatim": True}]},
            ],
        },
        ensure_ascii=False,
    )


def _escaped(text: str) -> str:
    # Slack's three control characters (https://docs.slack.dev/messaging/formatting-message-text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
