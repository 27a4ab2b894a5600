"""Digests: what can wait comes once a day, as one mail. Where nothing waits, or all is read, nothing is sent."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping

import asyncpg

from notifier.directory import AuthAway, People
from notifier.failover import queries
from notifier.mailroom import CLAIMED_FOR, MAX_SENDING, Mailroom, Unsendable, shown
from notifier.outcomes import Mails
from notifier.rendering import DIGEST, Unaddressable
from notifier.smtp import MailServerAway
from notifier.unsubscribing import Subscription

BATCH = 100
"""Notices by which the people whose turn it is are found: each gets all that waits for them."""


async def send_digests(room: Mailroom, stop: asyncio.Event) -> bool:
    """Send the digests that are due, and nobody else is at. Returns whether there may be more.

    Raises:
        MailServerAway: what is left is put back.
    """
    now = room.clock()
    async with room.outcomes.pool.acquire() as connection, connection.transaction():
        await connection.execute(queries.one_claims_digests)
        claimed = await connection.fetch(queries.claim_digests, now, now + CLAIMED_FOR, BATCH, room.worker_id)
    people: dict[tuple[str, str], list[asyncpg.Record]] = defaultdict(list)
    for row in sorted(claimed, key=lambda row: row["delivery_id"]):
        people[row["org_id"], row["user_id"]].append(row)
    known = await room.people(claimed, now)
    waiting = list(people.values())
    for position, mails in enumerate(waiting):
        if stop.is_set() or room.clock() + MAX_SENDING > mails[0]["claimed_until"]:
            await room.outcomes.put_back([mail for each in waiting[position:] for mail in each], now)
            return True
        try:
            await _send(room, mails, known)
        except MailServerAway:
            for each in waiting[position:]:
                await room.wait_on(each, is_digest=True)
            raise
    return len(claimed) >= BATCH


async def _send(room: Mailroom, mails: Mails, known: Mapping[str, People | None]) -> None:
    for reason in ("read", "unsubscribed"):
        needless = [mail for mail in mails if mail["needless_because"] == reason]
        await room.outcomes.superseded(needless, reason, room.clock())
    needed = [mail for mail in mails if mail["needless_because"] is None]
    gone = [mail for mail in needed if mail["title"] is None]
    if gone:
        await room.outcomes.failed(gone, "withdrawn", room.clock(), quietly=True)
    left = [mail for mail in needed if mail["title"] is not None]
    if not left:
        return
    if not room.post.is_configured:
        await room.outcomes.failed(left, "not_configured", room.clock(), is_digest=True)
        return
    try:
        org_id, user_id = left[0]["org_id"], left[0]["user_id"]
        addressee = await room.addressee(org_id, user_id, known)
        token = Subscription(org_id, user_id, DIGEST).token(room.sealer)
        # The first that it holds names the message, so that it has the same id when it is sent again.
        message = room.stationery.digest(
            left[0]["delivery_id"], addressee, [shown(mail) for mail in left], token, room.clock()
        )
        await room.deliver(left, message, addressee.email, is_digest=True)
    except AuthAway:
        await room.wait_on(left, is_digest=True)
    except Unaddressable:
        await room.outcomes.failed(left, "refused", room.clock(), is_digest=True)
    except Unsendable as error:
        await room.outcomes.failed(left, error.reason, room.clock(), is_digest=True)
