"""Mail as it is sent: from a notice, a letter or a digest to a message in text and HTML.

What people and organizations are called is their own choice, and therefore never trusted: HTML escapes it, nothing of
it ends a header or turns the direction of what follows, and it makes no link.
"""

import email.policy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.errors import HeaderParseError
from email.headerregistry import Address, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from itertools import groupby
from typing import Any, NamedTuple, Self
from uuid import UUID

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from aragora.contracts.messages import Message, MessageKind
from notifier.cleaning import ENCODED_WORD, MAX_NAME, cut, in_header, plain, unlinked
from notifier.domain import Severity
from notifier.kinds import KINDS
from notifier.phrases import day_words
from notifier.settings import Settings

MAX_SUBJECT = 120
"""Characters; what is longer is cut, as mail programs would."""
MAX_SHOWN = 20
"""Notices in one digest; of the others it says how many there are."""
PREFERENCES = "/notifications"
"""Where in the product people choose what they are told of."""
DIGEST = "digest"
"""What unsubscribing from a digest names instead of a kind."""

_BUTTONS = {
    "/usage": "See the usage",
    "/billing": "Open billing",
    "/account": "Open your account",
    "/endpoints": "See the endpoints",
}


class Unaddressable(ValueError):
    """Mail cannot be written to this address. The person has to give another one."""


class _Letter(NamedTuple):
    title: str
    body: str
    button: str
    page: str


_LETTERS: Mapping[MessageKind, _Letter] = {
    "verify_email": _Letter(
        "Verify your e-mail address",
        "This address was given for an account at {product}. Confirm that it is yours, so that we can reach you there.",
        "Verify the address",
        "verify-email",
    ),
    "reset_password": _Letter(
        "Set a new password",
        "Somebody asked for a new password for your account at {product}. With the link you set one, and whoever is "
        "signed in to your account is signed out.",
        "Set a new password",
        "reset-password",
    ),
    "invitation": _Letter(
        "You are invited to {org}",
        "{org} would like you to join them at {product}. Accept with the account that has this address, or make one: "
        "it takes a minute.",
        "See the invitation",
        "invitation",
    ),
}
_ADDRESS = re.compile(r"[^\s@<>\"(),:;\\]+@[^\s@<>\"(),:;\\]+")

templates = Environment(
    loader=PackageLoader("notifier"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
templates.globals |= {
    "font": "-apple-system,BlinkMacSystemFont,'Segoe UI',Roboto,Helvetica,Arial,sans-serif",
    # Readable on white (WCAG 2.2, 1.4.3: 4.5 to 1); the layout has lighter ones for the dark.
    "colours": {"info": "#2f6bc9", "warning": "#a36200", "critical": "#c92f2f"},
    "words": {"info": "For your information", "warning": "Please note", "critical": "Please act"},
}


class _Verbatim(UnstructuredHeader):
    """A header whose value has no place to be folded, which the library would encode as if it were prose."""

    def fold(self, *, policy: email.policy.Policy) -> str:
        return f"{self.name}: {self}{policy.linesep}"  # type: ignore[attr-defined]


_registry = HeaderRegistry()
for _name in ("list-unsubscribe", "list-unsubscribe-post", "message-id"):
    _registry.map_to_type(_name, _Verbatim)  # type: ignore[arg-type]  # it is a mixin, as all of them are
_POLICY = email.policy.SMTP.clone(header_factory=_registry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """An alert, as mail shows it."""

    kind: str
    severity: Severity
    title: str
    message: str
    facts: Sequence[tuple[str, str]] = ()
    place: str = "/"
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Addressee:
    """To whom mail goes. `org_name`: for which of their organizations; None: for their account."""

    email: str
    name: str | None = None
    org_name: str | None = None

    def __repr__(self) -> str:
        return "Addressee(…)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stationery:
    """Who writes. `app` and `public_url` are URLs without a slash at the end."""

    product: str
    sender: str
    app: str
    public_url: str

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As the settings say.

        Raises:
            ValueError: ARAGORA_SMTP_FROM is no address.
        """
        sender = parseaddr(settings.smtp_from)[1]
        if not _ADDRESS.fullmatch(sender):
            raise ValueError("ARAGORA_SMTP_FROM is no address that mail can come from; write billing@example.com")
        return cls(
            product=plain(settings.product_name),
            sender=sender,
            app=settings.app,
            public_url=settings.public_url.rstrip("/"),
        )

    def notice(
        self, delivery_id: UUID, addressee: Addressee, shown: Shown, unsubscribe_token: str | None, now: datetime
    ) -> EmailMessage:
        """A notice for one person. Without an `unsubscribe_token` they cannot do without it."""
        content = {
            "title": plain(shown.title),
            "preheader": unlinked(plain(shown.message)),
            "why": self._why(KINDS[shown.kind].audience, addressee),
            "essential": KINDS[shown.kind].essential,
            "shown": _cleaned(shown),
            "button": _BUTTONS.get(shown.place, f"Open {self.product}"),
            "link": self.app + shown.place,
        }
        subject = shown.title if addressee.org_name is None else f"{shown.title} · {addressee.org_name}"
        return self._message(delivery_id, addressee, subject, "notice", content, unsubscribe_token, now)

    def digest(
        self, delivery_id: UUID, addressee: Addressee, alerts: Sequence[Shown], unsubscribe_token: str, now: datetime
    ) -> EmailMessage:
        """Several notices in one mail: the newest `MAX_SHOWN` of them, by kind."""
        newest = sorted(alerts, key=lambda one: one.occurred_at, reverse=True)[:MAX_SHOWN]
        order = list(dict.fromkeys(one.kind for one in newest))
        by_kind = groupby(sorted(newest, key=lambda one: order.index(one.kind)), key=lambda one: one.kind)
        count = f"{len(alerts)} notices" if len(alerts) > 1 else "1 notice"
        content = {
            "preheader": " · ".join(unlinked(plain(one.title)) for one in newest[:3]),
            "why": f"Your digest comes once a day, if there is anything. {self._why('everybody', addressee)}",
            "essential": False,
            "title": f"{count} for you",
            "groups": [(KINDS[kind].description, [_cleaned(one) for one in found]) for kind, found in by_kind],
            "more": len(alerts) - len(newest),
            "button": f"Open {self.product}",
            "link": f"{self.app}/alerts",
        }
        subject = f"{count} for you" + (f" · {addressee.org_name}" if addressee.org_name else "")
        return self._message(delivery_id, addressee, subject, "digest", content, unsubscribe_token, now)

    def letter(self, delivery_id: UUID, letter: Message, now: datetime) -> EmailMessage:
        """A letter of auth's. Its secret is in the fragment of the link, which browsers send to no server."""
        title, body, button, page = _LETTERS[letter.kind]
        org_name = plain(letter.org_name or "an organization")[:MAX_NAME]
        content = {
            "preheader": f"The link is good until {_moment(letter.expires_at)}.",
            "title": title.format(org=unlinked(org_name)),
            "body": body.format(org=unlinked(org_name), product=self.product),
            "button": button,
            "until": _moment(letter.expires_at),
            "link": f"{self.public_url}/letters/{page}#token={letter.token}",
        }
        subject = title.format(org=f"{org_name} on {self.product}")
        addressee = Addressee(email=letter.email)
        return self._message(delivery_id, addressee, subject, "letter", content, None, now)

    def unsubscribe_url(self, token: str) -> str:
        """The page that unsubscribes; posting to it does so at once (RFC 8058)."""
        return f"{self.public_url}/api/notifications/unsubscribe/{token}"

    def _why(self, audience: str, addressee: Addressee) -> str:
        if addressee.org_name is None or audience == "person":
            return f"You get this because it is about your account at {self.product}."
        org_name = unlinked(plain(addressee.org_name)[:MAX_NAME])
        does = "look after" if audience == "administrators" else "belong to"
        return f"You get this because you {does} {org_name} at {self.product}."

    def _message(
        self,
        delivery_id: UUID,
        addressee: Addressee,
        subject: str,
        template: str,
        content: dict[str, Any],
        unsubscribe_token: str | None,
        now: datetime,
    ) -> EmailMessage:
        unsubscribe = None if unsubscribe_token is None else self.unsubscribe_url(unsubscribe_token)
        message = EmailMessage(_POLICY)
        message["From"] = Address(self.product, addr_spec=self.sender)
        if not _ADDRESS.fullmatch(addressee.email) or ENCODED_WORD in addressee.email:
            raise Unaddressable("no header can hold the address; have the person give another one")
        try:
            message["To"] = Address(in_header(addressee.name or ""), addr_spec=addressee.email)
        except (HeaderParseError, ValueError) as error:
            raise Unaddressable("no header can hold the address; have the person give another one") from error
        message["Subject"] = cut(plain(subject), MAX_SUBJECT)
        message["Date"] = format_datetime(now)
        message["Message-ID"] = f"<{delivery_id}@{self.sender.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        if unsubscribe is not None:
            message["List-Unsubscribe"] = f"<{unsubscribe}>"
            message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        said = {
            "product": self.product,
            "preferences": self.app + PREFERENCES,
            "unsubscribe": unsubscribe,
            **content,
        }
        text = templates.get_template(f"mail/{template}.txt").render(said)
        html = templates.get_template(f"mail/{template}.html").render(said)
        message.set_content(text, cte="quoted-printable")
        message.add_alternative(html, subtype="html", cte="quoted-printable")
        return message


def _cleaned(shown: Shown) -> dict[str, Any]:
    return {
        "severity": shown.severity,
        "title": unlinked(plain(shown.title)),
        "message": unlinked(plain(shown.message)),
        "facts": [(plain(label), unlinked(plain(value))) for label, value in shown.facts],
        "when": _moment(shown.occurred_at),
    }


def _moment(at: datetime) -> str:
    return f"{day_words(at.astimezone(UTC))}, {at.astimezone(UTC):%H:%M} UTC"
