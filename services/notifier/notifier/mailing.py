"""The queue of mail: what is due is sent, one after the other, by any number of workers.

Mail that the server has taken but that was not written down before a crash is sent again, under the same Message-ID.
What is not mail's own fault counts as no attempt: a server that is away, and auth that does not answer.
"""

import asyncio
from collections.abc import Mapping
from email.message import EmailMessage

import asyncpg
import structlog

from aragora.chassis.sealing import Sealer
from aragora.chassis.sql import Pool
from notifier.digests import send_digests
from notifier.directory import AuthAway, Directory, People
from notifier.failover import queries
from notifier.handlers import Clock
from notifier.mailroom import CLAIMED_FOR, MAX_SENDING, Mailroom, Unsendable, shown
from notifier.rendering import Unaddressable
from notifier.settings import Settings
from notifier.smtp import MailServerAway, Post
from notifier.unsubscribing import Subscription, can_be_ended
from notifier.waking import keep_at

BATCH = 20

log = structlog.get_logger(__name__)


class Superseded(Exception):
    """Later mail says all that this one does."""


async def send_mail(
    pool: Pool,
    post: Post,
    directory: Directory,
    sealer: Sealer,
    settings: Settings,
    clock: Clock,
    stop: asyncio.Event,
) -> None:
    """Send mail and digests that are due, until `stop`: as soon as something is queued, and once a second."""
    room = Mailroom.of(pool, post, directory, sealer, settings, clock)
    if not post.is_configured:
        log.warning("mail_not_configured", detail="ARAGORA_SMTP_HOST is not set: mail goes to the webhook or the log")

    async def work() -> bool:
        more = await send_due(room, stop)
        more = await send_digests(room, stop) or more
        if not more:
            await post.rest()
        return more

    release = queries.release_mail_of_the_dead
    await keep_at(work, pool, "mail", stop, worker_id=room.worker_id, release_of_the_dead=release)


async def send_due(room: Mailroom, stop: asyncio.Event) -> bool:
    """Send what is due, and nobody else is at. Returns whether there may be more.

    Raises:
        MailServerAway: what is left is put back.
    """
    now = room.clock()
    claimed = await room.outcomes.pool.fetch(queries.claim_mail, now, now + CLAIMED_FOR, BATCH, room.worker_id)
    mails = sorted(claimed, key=lambda mail: mail["message_id"] is None)
    known = await room.people(mails, now)
    for position, mail in enumerate(mails):
        if stop.is_set() or room.clock() + MAX_SENDING > mail["claimed_until"]:
            await room.outcomes.put_back(mails[position:], now)
            return True
        try:
            await _send(room, mail, known)
        except MailServerAway:
            # Letters that expire meanwhile are found out when they are due again.
            await room.wait_on(mails[position:])
            raise
    return len(mails) == BATCH


async def _send(room: Mailroom, mail: asyncpg.Record, known: Mapping[str, People | None]) -> None:
    try:
        message, email = await _written(room, mail, known)
        await room.deliver([mail], message, email)
    except AuthAway:
        await room.wait_on([mail])
    except Unaddressable:
        await room.outcomes.failed([mail], "refused", room.clock())
    except Unsendable as error:
        await room.outcomes.failed([mail], error.reason, room.clock(), quietly=error.quietly)
    except Superseded:
        await room.outcomes.superseded([mail], "superseded", room.clock())


async def _written(
    room: Mailroom, mail: asyncpg.Record, known: Mapping[str, People | None]
) -> tuple[EmailMessage, str]:
    now, is_letter = room.clock(), mail["message_id"] is not None
    if mail["expires_at"] is not None and mail["expires_at"] <= now:
        raise Unsendable("expired", quietly=not is_letter)
    if mail["is_superseded"]:
        raise Superseded
    if not room.post.is_configured:
        raise Unsendable("not_configured")
    if is_letter:
        letter = await room.directory.letter(mail["message_id"])
        if letter is None:
            raise Unsendable("withdrawn", quietly=True)
        return room.stationery.letter(mail["delivery_id"], letter, now), letter.email
    if mail["title"] is None:
        raise Unsendable("withdrawn", quietly=True)
    org_id, user_id, kind = mail["org_id"], mail["user_id"], mail["kind"]
    addressee = await room.addressee(org_id, user_id, known)
    token = Subscription(org_id, user_id, kind).token(room.sealer) if can_be_ended(kind) else None
    return room.stationery.notice(mail["delivery_id"], addressee, shown(mail), token, now), addressee.email
