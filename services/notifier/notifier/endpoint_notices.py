"""What an organization's admins, or the operators, are told of an endpoint that fails, in words. Pure."""

from datetime import datetime

from notifier.domain import Notice
from notifier.phrases import day_words
from notifier.schedule import DISABLED_AFTER, Disabled

PLACE = "/endpoints"


def endpoint_failing(endpoint_id: str, description: str, failing_since: datetime) -> Notice:
    """An endpoint has not taken anything for a while."""
    return Notice(
        kind="endpoint.failing",
        severity="warning",
        title=f"A webhook endpoint fails: {_name(endpoint_id, description)}",
        message=(
            f"It has not taken a message since {_moment(failing_since)}. Messages wait and are tried again, in their "
            f"order. After {DISABLED_AFTER.days} days without success the endpoint is disabled."
        ),
        facts=(("Endpoint", endpoint_id), ("Failing since", _moment(failing_since))),
        place=PLACE,
        topic=f"endpoint:{endpoint_id}",
        raw={"endpoint_id": endpoint_id, "failing_since": failing_since.isoformat()},
    )


def endpoint_disabled(endpoint_id: str, description: str, because: Disabled) -> Notice:
    """An endpoint was disabled, because it failed for days or said that it is no more."""
    reasons = {
        "failing": f"It has not taken a message for {DISABLED_AFTER.days} days.",
        "gone": "It answered 410 Gone: nothing is to be sent there any more.",
    }
    return Notice(
        kind="endpoint.disabled",
        severity="critical",
        title=f"A webhook endpoint was disabled: {_name(endpoint_id, description)}",
        message=(
            f"{reasons[because]} Messages are kept for 30 days. Once the endpoint works again, enable it: what waited "
            "is sent, and what came since can be redelivered."
        ),
        facts=(("Endpoint", endpoint_id),),
        place=PLACE,
        topic=f"endpoint:{endpoint_id}",
        topic_rank=1,
        raw={"endpoint_id": endpoint_id, "because": because},
    )


def operator_endpoint_failing(failing_since: datetime) -> Notice:
    """The operator's own endpoint has not taken anything for a while. It is tried for ever."""
    return Notice(
        kind="attention.needed",
        severity="critical",
        title="The notification webhook fails",
        message=(
            f"ARAGORA_NOTIFICATION_WEBHOOK has not taken a message since {_moment(failing_since)}. Correct it and "
            "restart the notifier's workers: they try at once."
        ),
        facts=(("Failing since", _moment(failing_since)),),
        raw={"failing_since": failing_since.isoformat()},
    )


def _name(endpoint_id: str, description: str) -> str:
    return " ".join(description.split())[:80] or endpoint_id


def _moment(moment: datetime) -> str:
    return f"{day_words(moment)}, {moment:%H:%M} UTC"
