"""Who must know, and how: from a kind, who belongs to the organization, and what they chose. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from aragora.contracts.contacts import MemberRole
from notifier.kinds import Email, Kind

Severity = Literal["info", "warning", "critical"]
ADMINISTRATORS: frozenset[MemberRole] = frozenset({"owner", "admin"})

MAX_MAILS = 10
"""E-mails at once to one person about one organization, within `MAX_MAILS_WITHIN`; what is more waits for a digest."""
MAX_MAILS_WITHIN = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What is to be known, in words for people. `facts` are labels and values; `place` is where one would go next."""

    kind: str
    severity: Severity
    title: str
    message: str
    facts: tuple[tuple[str, str], ...] = ()
    place: str = "/"
    user_id: str | None = None
    """Whom it concerns; for the audience `person`, who alone is told."""
    threshold_percentage: int | None = None
    provider: str | None = None
    meter: str | None = None
    billing_period: str | None = None
    topic: str | None = None
    """Of several notices of one topic whose e-mail still waits, the one with the highest rank is sent."""
    topic_rank: int = 0
    quiet: bool = False
    """Whether another notice tells of it by e-mail already: then this one does not."""
    stale_at: datetime | None = None
    """An e-mail that could not be sent until then is not worth sending."""
    raw: Mapping[str, object] = field(default_factory=dict)
    """The fields of the event, for programs."""


@dataclass(frozen=True, slots=True)
class Member:
    """A person of the organization, and whether the address is shown to be theirs."""

    user_id: str
    role: MemberRole
    verified: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen for a kind. None: nothing was. An empty `user_id`: by the organization, for everybody in it."""

    user_id: str
    kind: str
    email: Email | None = None
    in_app: bool | None = None


@dataclass(frozen=True, slots=True)
class Mail:
    """Somebody is to get an e-mail."""

    user_id: str
    mode: Literal["mail", "digest"]


def chosen(kind: Kind, user_id: str, choices: Iterable[Choice]) -> tuple[Email, bool]:
    """How a person is told of a kind: by e-mail, and whether in the product. Their choice goes before that of all."""
    email, in_app = kind.email, kind.in_app
    for owner in ("", user_id):
        for choice in choices:
            if (choice.user_id, choice.kind) == (owner, kind.name):
                email = choice.email or email
                in_app = in_app if choice.in_app is None else choice.in_app
    return ("at_once" if kind.essential else email), in_app or kind.essential


def sees(kind: Kind, role: MemberRole | None, user_id: str, concerned: str | None) -> bool:
    """Whether a member is among those whom a kind is for; `concerned` is the person it is about, if any."""
    if kind.audience == "person":
        return user_id == concerned
    if kind.audience == "operators":
        return False
    if role in ADMINISTRATORS:
        return True
    return kind.audience == "everybody" and concerned in (None, user_id)


def mails(
    kind: Kind, concerned: str | None, members: Sequence[Member], choices: Sequence[Choice], lately: Mapping[str, int]
) -> list[Mail]:
    """Who gets an e-mail of a kind. `lately`: how many each person got at once within `MAX_MAILS_WITHIN`.

    An address that nobody has shown to be theirs gets none, unless that would leave an essential kind untold: then the
    owners' do.
    """
    meant = [each for each in members if sees(kind, each.role, each.user_id, concerned)]
    reached = [each for each in meant if each.verified]
    if kind.essential and not reached:
        reached = [each for each in meant if each.role == "owner"]
    found = []
    for member in reached:
        email, _ = chosen(kind, member.user_id, choices)
        if email == "at_once" and not kind.essential and lately.get(member.user_id, 0) >= MAX_MAILS:
            email = "digest"
        if email != "off":
            found.append(Mail(member.user_id, "mail" if email == "at_once" else "digest"))
    return found


def digest_at(now: datetime, hour: int) -> datetime:
    """When the next digest leaves: at this hour (UTC), today or tomorrow."""
    today = now.replace(hour=hour, minute=0, second=0, microsecond=0)
    return today if today > now else today + timedelta(days=1)
