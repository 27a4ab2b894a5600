"""The local mailbox over the wire: the notifier's own way to a mail server leads there."""

import ssl
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

import aiosmtplib
import httpx
import pytest

from standalone import credentials, datadir, machine
from standalone.datadir import Running
from standalone.platform import answers
from standalone.service import PythonService
from standalone.service_settings import SMTP_USER, mailbox_url


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """A mailbox in a process of its own, on a new data directory."""
    secrets = credentials.read_or_make(tmp_path)
    known = Running(
        7, "127.0.0.1", port=8000, postgres_port=1, nats_port=2, monitoring_port=3, smtp_port=machine.free_port(),
        mailbox_port=machine.free_port(), smtp_ca_file=str(tmp_path / "mailbox.crt"),
    )  # fmt: skip
    datadir.remember(tmp_path, known)
    here = {"ARAGORA_DATA_DIR": str(tmp_path)}
    process = PythonService(
        "mailbox", tmp_path, ["standalone.mailbox"], here, lambda: answers(mailbox_url(secrets, known))
    )
    await process.start()
    yield known
    await process.stop()


def letter(content: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@example.com", "fern@example.com", "Ünread"
    message.set_content(content)
    return message


async def hand_over(running: Running, content: str, user: str | None, password: str | None) -> str:
    """What the server answers, over TLS that only its own certificate is trusted for."""
    tls = ssl.create_default_context(cafile=running.smtp_ca_file)
    try:
        _, answer = await aiosmtplib.send(
            letter(content), hostname="127.0.0.1", port=running.smtp_port, use_tls=True, tls_context=tls,
            username=user, password=password,
        )  # fmt: skip
    except aiosmtplib.SMTPException as error:
        return str(error)
    return answer


async def test_who_has_the_key_leaves_letters_and_nobody_else_does(tmp_path: Path, running: Running) -> None:
    key = credentials.read(tmp_path).mailbox_key
    assert "kept as 1; it is delivered to nobody" in await hand_over(running, "hello", SMTP_USER, key)
    assert "530" in await hand_over(running, "nobody", None, None)
    for user, password in ((SMTP_USER, f"{key}x"), ("somebody", key)):
        assert "535" in await hand_over(running, "a stranger", user, password)
    assert "552" in await hand_over(running, "x" * 70 + "\n" * 2_000_000, SMTP_USER, key)
    assert "kept as 2" in await hand_over(running, "hello again", SMTP_USER, key)
    async with httpx.AsyncClient() as browser:
        found = (await browser.get(f"{mailbox_url(credentials.read(tmp_path), running)}letters.json")).json()
    assert [one["text"] for one in found] == ["hello again\n", "hello\n"]
    assert (tmp_path / "mailbox.key").stat().st_mode & 0o777 == 0o600
    assert "fern@example.com" not in (tmp_path / "logs" / "mailbox.log").read_text()
