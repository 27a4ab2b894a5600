"""What mail looks like, and that nobody's name can make it say something else."""

import re
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from html.parser import HTMLParser
from uuid import UUID

import pytest
from typer.testing import CliRunner

from aragora.contracts.messages import Message
from notifier.cleaning import cut, plain, unlinked
from notifier.cli import app
from notifier.kinds import KINDS
from notifier.preview import part, previews
from notifier.rendering import MAX_SHOWN, MAX_SUBJECT, Addressee, Shown, Stationery, Unaddressable

NOW = datetime(2026, 7, 6, 8, 0, tzinfo=UTC)
DELIVERY = UUID("01980000-0000-7000-8000-000000000001")
STATIONERY = Stationery(
    product="Aragora", sender="billing@product.example", app="https://app.example", public_url="https://api.example"
)
PREVIEWS = previews(STATIONERY)
TRICKY = [
    "Bob\r\nBcc: everybody@example.com",
    'Bob" <evil@example.com>, "x',
    "\u202etxt.exe Bob\u2066\u2069",
    "=?utf-8?q?Bob=0d=0aBcc:_x?=",
    "Bob\x00\x1b[31m\u2028\u200b\ud800",
    "<script>alert(1)</script>",
    "a, b; c <d>",
    "ä" * 500,
    ".Bob (" + "ä, b; " * 20 + ")",
]


class Tags(HTMLParser):
    """Which tags are open, which addresses are linked, and what a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action", "background")]

    def handle_data(self, text: str) -> None:
        self.text += text


def notice(name: str | None = "Ada", org_name: str | None = "Engines", title: str = "90 % are used") -> EmailMessage:
    shown = Shown(
        kind="limit.reached", severity="warning", title=title, message="Most of it.", facts=[("Used", "90")],
        place="/usage", occurred_at=NOW,
    )  # fmt: skip
    addressee = Addressee(email="ada@example.com", name=name, org_name=org_name)
    return STATIONERY.notice(DELIVERY, addressee, shown, "token", NOW)


def sent(message: EmailMessage) -> EmailMessage:
    """As whoever gets it reads it."""
    return message_from_bytes(bytes(message), policy=policy.default)


def test_every_kind_that_is_mailed_has_a_preview():
    mailed = {name for name, kind in KINDS.items() if kind.email != "off"}
    assert mailed - PREVIEWS.keys() <= {"budget.exceeded", "usage.anomaly"}
    assert "digest" in PREVIEWS


@pytest.mark.parametrize("name", PREVIEWS)
def test_mail_is_whole(name):
    mail = sent(PREVIEWS[name])
    html, text = Tags(part(mail, "html")), part(mail, "plain")
    assert set(html.tags).isdisjoint({"script", "form", "iframe", "img", "link", "object"}), "nothing is fetched"
    assert all(link.startswith(("https://app.example/", "https://api.example/")) for link in html.links)
    assert set(html.links) <= set(re.findall(r"https://\S+", text)), "the text leads where the page does"
    assert not re.search(r"\{[{%]|None", part(mail, "html") + text)
    assert len(mail["Subject"]) <= MAX_SUBJECT
    assert all(len(line) <= 998 for line in bytes(PREVIEWS[name]).split(b"\r\n"))
    assert mail["Auto-Submitted"] == "auto-generated"


@pytest.mark.parametrize("name", PREVIEWS)
def test_only_what_one_can_do_without_can_be_unsubscribed_from(name):
    mail = sent(PREVIEWS[name])
    is_essential = name != "digest" and KINDS[name].essential
    assert (mail["List-Unsubscribe"] is None) == is_essential
    assert (mail["List-Unsubscribe-Post"] is None) == is_essential
    assert ("unsubscribe" in part(mail, "html")) == (not is_essential)


def test_headers_are_as_programs_want_them():
    token = "a" * 400
    shown = Shown(kind="limit.reached", severity="info", title="T", message="M", occurred_at=NOW)
    mail = STATIONERY.notice(DELIVERY, Addressee(email="ada@example.com", org_name="Ö" * 70), shown, token, NOW)
    raw = bytes(mail).decode().replace("\r\n", "\n")
    assert f"\nList-Unsubscribe: <https://api.example/api/notifications/unsubscribe/{token}>\n" in raw
    assert "\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\n" in raw
    assert f"\nMessage-ID: <{DELIVERY}@product.example>\n" in raw
    assert "\nDate: Mon, 06 Jul 2026 08:00:00 +0000\n" in raw
    assert "\nTo: ada@example.com\n" in raw
    assert sent(mail)["Subject"] == "T · " + "Ö" * 70


@pytest.mark.parametrize("name", TRICKY, ids=range(len(TRICKY)))
def test_a_name_is_only_a_name(name):
    for mail in (notice(name=name), notice(org_name=name), notice(title=name)):
        received = sent(mail)
        assert received.keys() == notice().keys(), "no header more, and none less"
        (address,) = received["To"].addresses
        assert address.addr_spec == "ada@example.com"
        assert not re.search(r"[\x00-\x1f\u202a-\u202e\u2066-\u2069]", address.display_name + received["Subject"])
        page = Tags(part(received, "html"))
        assert page.tags == Tags(part(notice(), "html")).tags


def test_an_organization_called_like_a_web_site_makes_no_link():
    message = Message(
        kind="invitation", email="bob@example.com", token="t", org_name="Win at https://evil.example/now!",
        expires_at=NOW + timedelta(days=1),
    )  # fmt: skip
    mail = sent(STATIONERY.letter(DELIVERY, message, NOW))
    for form in ("html", "plain"):
        assert "evil.example" not in part(mail, form), "a mail program would make a link of it"
        assert "evil.\u200bexample" in part(mail, form)


def test_what_usage_says_it_called_makes_no_link_and_amounts_stay_readable():
    shown = Shown(
        kind="usage.unpriced", severity="info", title="T", message="Calls to https://evil.example/in cost $1.50.",
        facts=[("Model", "evil.example/2.0"), ("Left", "$299.00")], occurred_at=NOW,
    )  # fmt: skip
    mail = sent(STATIONERY.notice(DELIVERY, Addressee(email="ada@example.com"), shown, None, NOW))
    for form in ("html", "plain"):
        assert not re.search(r"evil\.example|://evil", part(mail, form))
        assert "$1.50." in part(mail, form)
        assert "$299.00" in part(mail, form)


def test_a_letters_secret_is_in_the_fragment_only():
    message = Message(kind="reset_password", email="a@example.com", token="m1.secret", expires_at=NOW)
    mail = STATIONERY.letter(DELIVERY, message, NOW)
    for form in ("html", "plain"):
        links = re.findall(r"https://[^\s<\"]*secret", part(mail, form))
        assert set(links) == {"https://api.example/letters/reset-password#token=m1.secret"}
    assert "secret" not in mail["Subject"] + mail["Message-ID"]


def test_an_address_that_no_header_can_hold_is_not_repeated():
    shown = Shown(kind="limit.reached", severity="info", title="T", message="M", occurred_at=NOW)
    for email in (
        "a b@example.com",
        "a@b@c\r\nBcc: x@example.com",
        "=?utf-8?q?a=0d=0ab?=@example.com",
        "",
        "a..b@example.com",
        "a@b..c",
    ):
        with pytest.raises(Unaddressable) as raised:
            STATIONERY.notice(DELIVERY, Addressee(email=email), shown, None, NOW)
        assert "example.com" not in str(raised.value)


def test_a_digest_shows_the_newest_by_kind_and_counts_the_rest():
    moments = [(hour, NOW + timedelta(hours=hour)) for hour in range(16)]
    alerts = [
        Shown(kind=kind, severity="info", title=f"{kind} no {hour}.", message="M", occurred_at=moment)
        for hour, moment in moments
        for kind in ("credit.granted", "usage.unpriced")
    ]
    mail = STATIONERY.digest(DELIVERY, Addressee(email="ada@example.com", org_name="Engines"), alerts, "token", NOW)
    text = part(mail, "plain").replace("\u200b", "")
    assert mail["Subject"] == "32 notices for you · Engines"
    assert f"and {len(alerts) - MAX_SHOWN} more" in text
    assert text.count(KINDS["credit.granted"].description) == text.count(KINDS["usage.unpriced"].description) == 1
    assert text.index("credit.granted no 15.") < text.index("credit.granted no 6.")
    assert "no 5." not in text


def test_texts_are_cleaned_and_nothing_readable_is_lost():
    assert plain("  a\tb\r\n\x07c  ") == "a b c"
    assert plain("👩\u200d💻 नमस्ते Ünïcode") == "👩\u200d💻 नमस्ते Ünïcode"
    assert unlinked("Ada's Engines") == "Ada's Engines"
    assert cut("a" * 10, 5) == "aaaa…"


def test_previews_are_written_by_a_command(tmp_path):
    result = CliRunner().invoke(app, ["preview", "--out", str(tmp_path), "--kind", "limit.reached"])
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {
        "limit.reached.html", "limit.reached.txt", "limit.reached.eml", "index.html",
    }  # fmt: skip
    unknown = CliRunner().invoke(app, ["preview", "--out", str(tmp_path), "--kind", "nothing"])
    assert unknown.exit_code == 1
    assert "limit.reached" in unknown.output
