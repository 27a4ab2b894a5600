"""Every kind of mail with realistic contents, to be looked at: `python -m notifier preview`."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from html import escape
from importlib.resources import files
from pathlib import Path
from uuid import UUID

from aragora.contracts.envelope import UnknownEventType, decode
from aragora.contracts.messages import Message, MessageKind
from notifier import wording
from notifier.domain import Notice
from notifier.endpoint_notices import endpoint_disabled, endpoint_failing
from notifier.kinds import KINDS
from notifier.rendering import Addressee, Shown, Stationery

NOW = datetime(2026, 7, 6, 8, 0, tzinfo=UTC)
DELIVERY = UUID("01980000-0000-7000-8000-000000000001")
ADDRESSEE = Addressee(email="ada@example.com", name="Ada Lovelace", org_name="Analytical Engines")
ACCOUNT = Addressee(email="ada@example.com", name="Ada Lovelace")
_LETTERS: tuple[MessageKind, ...] = ("verify_email", "reset_password", "invitation")


def previews(stationery: Stationery) -> Mapping[str, EmailMessage]:
    """A mail of each kind, letter and digest, by its name: what the examples of all events are worded as."""
    notices = _notices()
    shown = {name: _shown(notice) for name, notice in notices.items()}
    found = {}
    for name, one in shown.items():
        kind = KINDS[one.kind]
        addressee = ACCOUNT if kind.audience == "person" else ADDRESSEE
        token = None if kind.essential else "token"
        found[name] = stationery.notice(DELIVERY, addressee, one, token, NOW)
    in_digests = [one for one in shown.values() if KINDS[one.kind].email == "digest"]
    found["digest"] = stationery.digest(DELIVERY, ADDRESSEE, in_digests, "token", NOW)
    for letter in _LETTERS:
        message = Message(
            kind=letter,
            email="ada@example.com",
            token="01980000-0000-7000-8000-000000000002.an-example-that-opens-nothing",  # noqa: S106  as it says
            org_name="Analytical Engines" if letter == "invitation" else None,
            expires_at=NOW + timedelta(days=2),
        )
        found[f"letter.{letter}"] = stationery.letter(DELIVERY, message, NOW)
    return dict(sorted(found.items()))


def write(stationery: Stationery, folder: Path, kind: str | None = None) -> list[Path]:
    """Write previews, of one kind or all, as .html, .txt and .eml, and a page that shows them; returns the files.

    Raises:
        KeyError: there is no such kind, or none that is mailed; the message names those that there are.
    """
    found = previews(stationery)
    chosen = {name: mail for name, mail in found.items() if kind is None or name == kind}
    if not chosen:
        raise KeyError(f"no e-mail is called {kind!r}; there are: {', '.join(found)}")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, mail in chosen.items():
        for ending, content in (("html", part(mail, "html")), ("txt", part(mail, "plain")), ("eml", bytes(mail))):
            path = folder / f"{name}.{ending}"
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            written.append(path)
    index = folder / "index.html"
    index.write_text(_index(chosen), encoding="utf-8")
    return [*written, index]


def part(mail: EmailMessage, form: str) -> str:
    """The text (`plain`) or the page (`html`) of a mail."""
    body = mail.get_body((form,))
    if body is None:
        raise ValueError(f"this mail has no {form} part")
    return str(body.get_content())


def _notices() -> dict[str, Notice]:
    worked_until = NOW - timedelta(days=1)
    of_endpoints = (
        endpoint_failing("ep_2f6b", "Our pager", worked_until),
        endpoint_disabled("ep_2f6b", "Our pager", "failing"),
    )
    found = {notice.kind: notice for notice in of_endpoints}
    for path in sorted(files("aragora.contracts").joinpath("examples").iterdir(), key=lambda one: one.name):
        try:
            _, event = decode(path.read_text(encoding="utf-8"))
        except (UnknownEventType, ValueError):
            continue  # on the bus, but no event of a service
        notice = wording.notice_of(event)
        if notice is not None and KINDS[notice.kind].email != "off":
            found[notice.kind] = notice
    return found


def _shown(notice: Notice) -> Shown:
    return Shown(
        kind=notice.kind,
        severity=notice.severity,
        title=notice.title,
        message=notice.message,
        facts=notice.facts,
        place=notice.place,
        occurred_at=NOW - timedelta(hours=1),
    )


def _index(mails: Mapping[str, EmailMessage]) -> str:
    frames = "".join(
        f'<section><h2>{escape(name)}</h2><p>{escape(mail["Subject"])} (<a href="{name}.txt">text</a>, '
        f'<a href="{name}.eml">message</a>)</p><iframe src="{name}.html" title="{escape(name)}"></iframe></section>\n'
        for name, mail in mails.items()
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>E-mail</title><style>'
        ":root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:760px}"
        "h2{margin:2.5rem 0 0}p{margin:0 0 .5rem}iframe{width:100%;height:620px;border:1px solid #8886}</style>\n"
        f"<h1>E-mail</h1>\n{frames}</html>\n"
    )
