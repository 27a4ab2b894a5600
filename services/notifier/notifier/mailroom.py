"""What it takes to send mail: who it goes to, handing it over, and what became of it."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.message import EmailMessage
from typing import Literal, Self
from uuid import UUID

import asyncpg
import structlog

from aragora.billing.models import normalize_email
from aragora.chassis.sealing import Sealer
from aragora.chassis.sql import Pool
from aragora.contracts.events import PLATFORM
from aragora.contracts.ids import new_id
from notifier import mail_schedule, metrics
from notifier.directory import AuthAway, Directory, People
from notifier.failover import Reason, queries
from notifier.handlers import Clock
from notifier.outcomes import Mails, Outcomes
from notifier.rendering import Addressee, Shown, Stationery
from notifier.settings import Settings
from notifier.smtp import Post

CLAIMED_FOR = timedelta(minutes=10)
MAX_SENDING = timedelta(minutes=3)
"""One message takes at most this long, with a server that answers each command in its last second."""

log = structlog.get_logger(__name__)


class Unsendable(Exception):
    """This mail is not to be sent. `quietly`: nobody misses it."""

    def __init__(self, reason: Reason, *, quietly: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.quietly = quietly


@dataclass(frozen=True, slots=True)
class Mailroom:
    """What it takes to send mail."""

    post: Post
    directory: Directory
    sealer: Sealer
    stationery: Stationery
    outcomes: Outcomes
    clock: Clock
    worker_id: UUID = field(default_factory=new_id)
    """By whom mail is claimed."""

    @classmethod
    def of(cls, pool: Pool, post: Post, directory: Directory, sealer: Sealer, settings: Settings, clock: Clock) -> Self:
        """With a database, and as the settings say."""
        return cls(post, directory, sealer, Stationery.of(settings), Outcomes(pool), clock)

    async def addressee(self, org_id: str, user_id: str, known: Mapping[str, People | None]) -> Addressee:
        """The person, and their organization.

        Raises:
            AuthAway: that cannot be known just now.
            Unsendable: they have left, or are no more.
        """
        if org_id == PLATFORM:
            contact, org_name = await self.directory.person(user_id), None
        else:
            if org_id not in known:
                raise AuthAway("who belongs to the organization is not known")
            people = known[org_id]
            contact, org_name = (people.member(user_id), people.org_name) if people else (None, None)
        if contact is None:
            raise Unsendable("unreachable")
        return Addressee(email=contact.email, name=contact.name, org_name=org_name)

    async def people(self, mails: Mails, now: datetime) -> dict[str, People | None]:
        """The members of the organizations that mail is of; one of which auth does not tell is missing."""
        found: dict[str, People | None] = {}

        async def ask(org_id: str) -> None:
            try:
                found[org_id] = await self.directory.people(org_id, now)
            except AuthAway:
                log.warning("mail_waits", org_id=org_id, detail="auth does not answer")

        async with asyncio.TaskGroup() as asking:
            for org_id in {mail["org_id"] for mail in mails if mail["message_id"] is None} - {PLATFORM}:
                asking.create_task(ask(org_id))
        return found

    async def deliver(self, mails: Mails, message: EmailMessage, email: str, *, is_digest: bool = False) -> None:
        """Hand one message over, and write down what became of it.

        What is not ours any more is not sent: somebody else has it, or whom it was for has left or was erased.

        Raises:
            MailServerAway: nothing became of it.
            Unsendable: the address gets none.
        """
        try:
            digests = digests_of(self.sealer, email)
        except ValueError as error:
            raise Unsendable("refused") from error
        first = mails[0]
        ((is_ours, is_suppressed),) = await self.outcomes.pool.fetch(
            queries.may_be_sent, first["org_id"], first["delivery_id"], first["claimed_until"], digests
        )
        if not is_ours:
            return
        if is_suppressed:
            raise Unsendable("bounced")
        with metrics.delivery_seconds.labels("email").time():
            handed = await self.post.hand_over(message)
        now, attempts = self.clock(), max(mail["attempts"] for mail in mails) + 1
        if handed.outcome == "sent":
            await self.outcomes.sent(mails, now)
            return
        # Never what the server wrote: it may repeat the address.
        log.info("mail_not_taken", delivery_id=str(mails[0]["delivery_id"]), outcome=handed.outcome, code=handed.code)
        again_at = mail_schedule.next_attempt(attempts, now)
        if handed.outcome == "temporary" and again_at is not None:
            await self.outcomes.put_back(mails, again_at, attempts=1)
            return
        await self.outcomes.failed(
            mails,
            "gave_up" if handed.outcome == "temporary" else handed.outcome,
            now,
            attempts=1,
            is_digest=is_digest,
            suppress=digests[0] if handed.outcome == "bounced" else None,
        )

    async def wait_on(self, mails: Mails, *, is_digest: bool = False) -> None:
        """Nothing can be attempted just now: later, unless that has gone on for too long."""
        now = self.clock()
        mode: Literal["mail", "digest"] = "digest" if is_digest else "mail"
        lasting = [mail for mail in mails if mail_schedule.is_worth_waiting(mode, mail["created_at"], now)]
        await self.outcomes.put_back(lasting, now + mail_schedule.AWAY_DELAY)
        metrics.deliveries.labels("email", "away").inc(len(lasting))
        for mail in mails:
            if mail not in lasting:
                await self.outcomes.failed([mail], "gave_up", now, is_digest=is_digest)


def digests_of(sealer: Sealer, email: str) -> list[bytes]:
    """Under what an address that gets no mail is kept: the first, or after a rotation of keys one of the others.

    Raises:
        ValueError: it is no address; the message is a sentence.
    """
    return sealer.digests("address", normalize_email(email))


def shown(mail: asyncpg.Record) -> Shown:
    """The alert of a row."""
    return Shown(
        kind=mail["kind"],
        severity=mail["severity"],
        title=mail["title"],
        message=mail["message"],
        facts=[(label, value) for label, value in json.loads(mail["facts"])],
        place=mail["place"],
        occurred_at=mail["occurred_at"],
    )
