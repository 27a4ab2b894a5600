"""Links that unsubscribe: whoever has one speaks for one person, about one kind of mail of one organization."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from aragora.chassis import sql
from aragora.chassis.sealing import Sealer
from aragora.chassis.sql import Connection
from notifier.domain import Choice, chosen
from notifier.kinds import CHOOSABLE, KINDS
from notifier.rendering import DIGEST

MAX_TOKEN = 600
_PURPOSE = "unsubscribe"

queries = sql.load("notifier", "sql/mail.sql")


class InvalidLink(ValueError):
    """The link is not one of ours, or was cut on the way. Open it from the e-mail again, or copy all of it."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """What somebody gets by e-mail: a kind, or `digest`."""

    org_id: str
    user_id: str
    kind: str

    def token(self, sealer: Sealer) -> str:
        """The secret of the link. It says nothing personal, and is good for ever."""
        text = f"{self.org_id}\n{self.user_id}\n{self.kind}"
        return f"{urlsafe_b64encode(text.encode()).rstrip(b'=').decode()}.{sealer.sign(_PURPOSE, text)}"


def can_be_ended(kind: str) -> bool:
    """Whether one can do without the e-mail of a kind."""
    return kind == DIGEST or (kind in CHOOSABLE and not KINDS[kind].essential)


def read_token(sealer: Sealer, token: str) -> Subscription:
    """What a link is about.

    Raises:
        InvalidLink: it was not made here.
    """
    written, _, signature = token[:MAX_TOKEN].partition(".")
    try:
        text = urlsafe_b64decode(written + "=" * (-len(written) % 4)).decode()
    except ValueError as error:
        raise InvalidLink("This link is not complete.") from error
    if not sealer.signed(_PURPOSE, text, signature):
        raise InvalidLink("This link is not complete.")
    return Subscription(*text.split("\n"))


async def end(connection: Connection, subscription: Subscription, now: datetime) -> list[str]:
    """No more of it by e-mail, what waits already neither: returns which kinds that are. In the caller's transaction.

    A digest ends by ending all kinds that come with it.
    """
    org_id, user_id = subscription.org_id, subscription.user_id
    kinds = [subscription.kind]
    if subscription.kind == DIGEST:
        choices = [Choice(**row) for row in await connection.fetch(queries.choices, org_id, ["", user_id])]
        kinds = [kind for kind in CHOOSABLE if chosen(KINDS[kind], user_id, choices)[0] == "digest"]
    await connection.execute(queries.choose, org_id, user_id, kinds, "off", now)
    await connection.execute(queries.drop_unwanted, org_id, user_id, kinds, now)
    return kinds


async def resume(connection: Connection, subscription: Subscription, kinds: Iterable[str], now: datetime) -> None:
    """Again what was ended, of these kinds: by a digest with the digest, by a single mail at once."""
    is_digest = subscription.kind == DIGEST
    meant = [kind for kind in kinds if kind in (CHOOSABLE if is_digest else (subscription.kind,))]
    mode = "digest" if is_digest else "at_once"
    await connection.execute(queries.choose_again, subscription.org_id, subscription.user_id, meant, mode, now)
