"""The local mailbox: what it keeps, and what it shows to whom."""

import stat
from collections.abc import AsyncIterator, Iterator
from email.message import EmailMessage
from pathlib import Path

import httpx
import pytest

from standalone.mailbox import letters as kept
from standalone.mailbox.letters import FILE_NAME, Letters
from standalone.mailbox.pages import create_app
from standalone.problems import DataDirUnusable

KEY = "the-key-of-the-mailbox"
PAGE = "<!doctype html><html><HEAD lang='en'><title>x</title></HEAD><body><script>steal()</script>Hello</body></html>"


def letter(subject: str = "80 % of your debates are used, déjà", html: str = PAGE) -> bytes:
    message = EmailMessage()
    message["From"], message["To"] = "Aragora <billing@example.com>", "fern@example.com"
    message["Subject"] = subject
    message["List-Unsubscribe"] = "<https://example.com/unsubscribe>"
    message.set_content("Hello Fern\nhttps://example.com/verify?token=abc")
    if html:
        message.add_alternative(html, subtype="html")
    return message.as_bytes().replace(b"\n", b"\r\n")


@pytest.fixture
def letters(tmp_path: Path) -> Iterator[Letters]:
    opened = Letters(tmp_path / FILE_NAME)
    yield opened
    opened.close()


@pytest.fixture
async def browser(letters: Letters) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(letters, KEY))
    async with httpx.AsyncClient(transport=transport, base_url=f"http://mailbox/{KEY}/") as client:
        yield client


def test_letters_are_kept_for_their_owner_until_there_are_too_many(
    tmp_path: Path, letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    monkeypatch.setattr(kept, "KEPT", 3)
    for number in range(5):
        letters.add([f"Person{number}@example.com"], letter(f"number {number}"))
    again = Letters(tmp_path / FILE_NAME)
    assert [one.subject for one in again.newest()] == ["number 4", "number 3", "number 2"]
    assert [one.recipients for one in again.newest(to="person3@")] == ["Person3@example.com"]
    (newest,) = again.newest(count=1)
    assert newest.part("plain") == "Hello Fern\nhttps://example.com/verify?token=abc\n"
    again.close()


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"something else, and long enough to be no SQLite file at all")
    with pytest.raises(DataDirUnusable, match=r"mailbox\.sqlite cannot be used .* Move it away"):
        Letters(tmp_path / FILE_NAME)


async def test_the_pages_show_letters_to_who_has_the_key(letters: Letters, browser: httpx.AsyncClient) -> None:
    assert "No letter has come yet" in (await browser.get("")).text
    letters.add(["fern@example.com"], letter("<b>Limits</b>"))
    listed = (await browser.get("")).text
    assert "&lt;b&gt;Limits&lt;/b&gt;" in listed
    assert 'href="letters/1"' in listed
    shown = await browser.get("letters/1")
    assert '<iframe src="1/html" sandbox="allow-popups allow-popups-to-escape-sandbox"' in shown.text
    assert "https://example.com/unsubscribe" in shown.text
    assert 'src="1/source"' in (await browser.get("letters/1?as=source")).text
    for path in ("", "letters.json", "letters/1", "letters/1/html", "letters/1/source"):
        elsewhere = await browser.get(f"http://mailbox/another-key/{path}")
        assert (elsewhere.status_code, "example" in elsewhere.text) == (404, False)
        here = await browser.get(path)
        assert (here.headers["Referrer-Policy"], here.headers["Cache-Control"]) == ("no-referrer", "no-store")
    for path in ("letters/2", "letters/1/else", "letters/1?as=../../else", "letters/1/html/more"):
        assert (await browser.get(path)).status_code == 404


async def test_a_letter_runs_and_loads_nothing(letters: Letters, browser: httpx.AsyncClient) -> None:
    letters.add(["fern@example.com"], letter())
    page = await browser.get("letters/1/html")
    policy = dict(part.strip().partition(" ")[::2] for part in page.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert "allow-scripts" not in policy["sandbox"]
    assert "allow-same-origin" not in policy["sandbox"]
    assert "script-src" not in policy
    assert """<HEAD lang='en'><base target="_blank"><title>""" in page.text
    for form, kind in (("text", "Hello Fern"), ("source", "Content-Type: multipart/alternative")):
        told = await browser.get(f"letters/1/{form}")
        assert told.headers["Content-Type"].startswith("text/plain")
        assert kind in told.text
    letters.add(["fern@example.com"], letter("text alone", html=""))
    assert 'src="2/text"' in (await browser.get("letters/2")).text
    (newest, _) = (await browser.get("letters.json", params={"to": "fern@"})).json()
    assert (newest["subject"], newest["html"], newest["to"]) == ("text alone", "", "fern@example.com")
    assert newest["text"].endswith("token=abc\n")
