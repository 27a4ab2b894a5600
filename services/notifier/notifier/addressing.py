"""From an alert to mail: who must know of it, by what they chose, and whether at once or with the next digest.

Auth is asked outside of transactions. What a worker that died had begun, another addresses again; mail that is queued
already falls away.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import structlog

from aragora.chassis import sql
from aragora.chassis.sql import Pool
from aragora.contracts.events import PLATFORM
from aragora.contracts.ids import new_id
from notifier import queueing
from notifier.directory import AuthAway, Directory
from notifier.domain import MAX_MAILS_WITHIN, Choice, Mail, Member, digest_at, mails
from notifier.handlers import Clock
from notifier.kinds import KINDS
from notifier.waking import keep_at

BATCH = 200

queries = sql.load("notifier", "sql/addressing.sql")
log = structlog.get_logger(__name__)


async def address_alerts(pool: Pool, directory: Directory, clock: Clock, digest_hour: int, stop: asyncio.Event) -> None:
    """Again and again until `stop`: as soon as something is queued, and once a second."""
    worker_id = new_id()

    async def work() -> bool:
        return await address(pool, directory, clock(), digest_hour, worker_id) == BATCH

    release = queries.release_alerts_of_the_dead
    await keep_at(work, pool, "mail", stop, worker_id=worker_id, release_of_the_dead=release)


async def address(
    pool: Pool, directory: Directory, now: datetime, digest_hour: int, worker_id: UUID | None = None
) -> int:
    """Queue the mail for alerts that have none yet. Returns how many alerts were looked at.

    Where auth does not answer, an alert waits for a minute.
    """
    claimed = await pool.fetch(queries.claim_unaddressed, now, BATCH, worker_id)
    members = await _members(directory, claimed, now)
    known = [row for row in claimed if row["org_id"] == PLATFORM or row["org_id"] in members]
    if known:
        await _queue(pool, known, members, now, digest_hour)
    return len(claimed)


async def _members(
    directory: Directory, claimed: Sequence[asyncpg.Record], now: datetime
) -> Mapping[str, Sequence[Member]]:
    """The members of each organization; an organization of which auth does not tell is missing."""
    found: dict[str, Sequence[Member]] = {}

    async def ask(org_id: str) -> None:
        try:
            people = await directory.people(org_id, now)
        except AuthAway:
            log.warning("alerts_not_addressed", org_id=org_id, detail="auth does not answer; trying again in a minute")
            return
        contacts = people.members if people else ()
        found[org_id] = [Member(one.user_id, one.role or "member", one.verified) for one in contacts]

    async with asyncio.TaskGroup() as asking:
        for org_id in {row["org_id"] for row in claimed} - {PLATFORM}:
            asking.create_task(ask(org_id))
    return found


async def _queue(
    pool: Pool,
    alerts: Sequence[asyncpg.Record],
    members: Mapping[str, Sequence[Member]],
    now: datetime,
    digest_hour: int,
) -> None:
    async with pool.acquire() as connection, connection.transaction():
        choices = {
            org_id: [Choice(**row) for row in await connection.fetch(queries.choices_of, org_id)]
            for org_id in sorted({row["org_id"] for row in alerts})
        }
        people = sorted({member.user_id for each in members.values() for member in each})
        lately: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for row in await connection.fetch(queries.sent_lately, list(members), people, now - MAX_MAILS_WITHIN):
            lately[row["org_id"]][row["user_id"]] = row["sent"]
        queued = []
        for alert in alerts:
            for mail in _mails(alert, members, choices[alert["org_id"]], lately[alert["org_id"]], now):
                lately[alert["org_id"]][mail.user_id] += mail.mode == "mail"
                send_at = now if mail.mode == "mail" else digest_at(now, digest_hour)
                # What waits for a digest is worth telling with it, however long that takes.
                expires_at = alert["expires_at"] if mail.mode == "mail" else None
                queued.append(
                    (
                        alert["org_id"], alert["alert_id"], alert["kind"], mail.user_id, mail.mode, alert["topic"],
                        alert["topic_rank"], send_at, expires_at,
                    )
                )  # fmt: skip
        # One after the other with who forgets people: so none is queued for who has just been erased.
        await queueing.wait_for_turn(connection)
        if queued:
            await connection.execute(queries.add_mail, *map(list, zip(*queued, strict=True)), now)
        await connection.execute(
            queries.drop_addressed, [row["org_id"] for row in alerts], [row["alert_id"] for row in alerts]
        )
        if queued:
            await connection.execute(queries.wake_mail)


def _mails(
    alert: asyncpg.Record,
    members: Mapping[str, Sequence[Member]],
    choices: Sequence[Choice],
    lately: Mapping[str, int],
    now: datetime,
) -> list[Mail]:
    kind, concerned = KINDS.get(alert["kind"]), alert["user_id"]
    if kind is None or alert["expires_at"] <= now:
        if alert["queued_at"] < alert["expires_at"]:
            log.warning(
                "alert_not_mailed", kind=alert["kind"], alert_id=str(alert["alert_id"]), detail="it is too late"
            )
        return []
    if kind.audience == "person":
        return [Mail(concerned, "mail")]
    return mails(kind, concerned, members.get(alert["org_id"], ()), choices, lately)
