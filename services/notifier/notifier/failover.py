"""Mail that cannot be delivered is told elsewhere: to the operator's webhook, else to the log. Which of them is said.

Neither gets an address or a secret: the id of the person, and of an alert its words.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import asyncpg
import structlog

from aragora.chassis import sql
from aragora.chassis.sql import Connection
from notifier import queueing
from notifier.domain import Notice
from notifier.kinds import KINDS
from notifier.queueing import Told
from notifier.rendering import DIGEST

Reason = Literal["not_configured", "bounced", "refused", "gave_up", "expired", "unreachable", "withdrawn"]
Instead = Literal["webhook", "log"]

_WHY: dict[Reason, str] = {
    "not_configured": "no mail server is configured",
    "bounced": "nobody has this address any more, or it is suppressed",
    "refused": "the mail server does not want it",
    "gave_up": "it was tried for two days",
    "expired": "it was not sent while it was good",
    "unreachable": "there is no address",
    "withdrawn": "it is not to be sent any more",
}

queries = sql.load("notifier", "sql/mail.sql")
log = structlog.get_logger(__name__)


async def tell_instead(
    connection: Connection, mails: Sequence[asyncpg.Record], reason: Reason, now: datetime, *, is_digest: bool
) -> Instead:
    """Tell the operator's webhook of mail to one person (several in a digest) that was not delivered; or say `log`.

    The caller's transaction has begun with `queueing.wait_for_turn`. Where no mail server is configured, the operator
    has chosen webhooks: what their webhook is told of by itself is not told again.
    """
    if reason == "not_configured":
        events = [mail["event_id"] for mail in mails]
        if await connection.fetchval(queries.operator_knows, events) == len(events):
            return "webhook"
    if (is_digest and reason == "not_configured") or not await connection.fetchval(queries.operator_listens):
        return "log"
    first = mails[0]
    await queueing.add_webhooks(
        connection,
        [
            Told(
                org_id=first["org_id"],
                event_id=first["delivery_id"],
                occurred_at=now,
                notice=_notice(mails, reason, is_digest=is_digest),
            )
        ],
        now,
    )
    return "webhook"


def log_instead(mails: Sequence[asyncpg.Record], reason: Reason, *, is_digest: bool) -> None:
    """Say in the log what was not delivered; of digests, for which no mail server is configured, only to who debugs."""
    first, (kind, title, _) = mails[0], _said(mails, is_digest=is_digest)
    say = log.debug if is_digest and reason == "not_configured" else log.warning
    say(
        "notification_undelivered",
        org_id=first["org_id"],
        user_id=first["user_id"],
        delivery_id=str(first["delivery_id"]),
        event_id=str(first["event_id"]),
        kind=kind,
        title=title,
        reason=reason,
        told_instead="log",
    )


def _notice(mails: Sequence[asyncpg.Record], reason: Reason, *, is_digest: bool) -> Notice:
    kind, title, message = _said(mails, is_digest=is_digest)
    user_id, why = mails[0]["user_id"], _WHY[reason]
    return Notice(
        kind="notification.undelivered",
        severity="warning",
        title=f"An e-mail could not be delivered: {title}",
        message=f"It was {'for ' + user_id if user_id else 'an invitation'}; {why}. {message}".rstrip(),
        facts=(("Kind", kind), ("Why", why)),
        place="/operations",
        user_id=user_id,
        raw={
            "kind": kind,
            "user_id": user_id,
            "reason": reason,
            "title": title,
            "message": message,
            "event_ids": [str(mail["event_id"]) for mail in mails],
        },
    )


def _said(mails: Sequence[asyncpg.Record], *, is_digest: bool) -> tuple[str, str, str]:
    first = mails[0]
    if is_digest:
        titles = [mail["title"] for mail in mails if mail["title"]]
        return DIGEST, f"a digest of {len(mails)}", " ".join(f"{title}." for title in titles[:10])
    if first["title"] is None:
        return first["kind"], KINDS[first["kind"]].description, ""
    return first["kind"], first["title"], first["message"]
