"""Handing mail to a real mail server: how the connection is protected, and what each answer means."""

from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import servers
from mail_server import PASSWORD, MailServer, mail_server

from notifier.settings import Settings
from notifier.smtp import TIMEOUT_SECONDS, Handed, MailNotProtected, MailServerAway, Post

PATIENCE_SECONDS = 3.0
"""With a server of which we know that it will not answer."""


@pytest.fixture
async def folder() -> AsyncIterator[Path]:
    async with servers.scratch_dir() as found:
        yield found


@pytest.fixture
async def server(folder: Path) -> AsyncIterator[MailServer]:
    async with mail_server(folder) as found:
        yield found


def settings(server: MailServer, **more: Any) -> Settings:
    needed = {"DATABASE_URL": "postgresql://nowhere/", "ARAGORA_SEALING_KEYS": "k" * 32}
    return Settings.model_validate(needed | server.settings | more)


def post(server: MailServer, **more: Any) -> Post:
    return Post(settings(server, **more))


def mail(to: str = "ada@example.com") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "billing@product.example", to, "Größe & Maß"
    message.set_content("Grüße")
    return message


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_mail_goes_over_tls_as_who_may_send(folder, security):
    async with mail_server(folder, security) as server, post(server) as sending:
        assert await sending.hand_over(mail()) == Handed("sent", 250)
        (received,) = server.to("ada@example.com")
        assert received["Subject"] == "Größe & Maß"
        assert server.were_protected == [True]


async def test_one_connection_serves_a_burst(server):
    async with post(server) as sending:
        for number in range(5):
            assert (await sending.hand_over(mail(f"user{number}@example.com"))).outcome == "sent"
        connected = server.connections
        server.answers["nobody@example.com"] = ["550 5.1.1 No such user"]
        assert (await sending.hand_over(mail("nobody@example.com"))).outcome == "bounced"
        assert (await sending.hand_over(mail())).outcome == "sent"
        assert server.connections == connected
    assert len(server.received) == 6


async def test_a_server_without_starttls_gets_nothing(folder):
    async with mail_server(folder, offers_tls=False) as server, post(server) as sending:
        with pytest.raises(MailServerAway, match="ARAGORA_SMTP_SECURITY"):
            await sending.hand_over(mail())
        assert server.received == []


async def test_a_server_whose_certificate_is_not_trusted_gets_nothing(server):
    trusting_others = settings(server).model_copy(update={"smtp_ca_file": None})
    async with Post(trusting_others) as sending:
        with pytest.raises(MailServerAway, match="ARAGORA_SMTP_CA_FILE"):
            await sending.hand_over(mail())
    assert server.received == []


def test_a_password_is_never_sent_in_the_clear(server):
    with pytest.raises(MailNotProtected, match="ARAGORA_SMTP_SECURITY is none"):
        post(server, ARAGORA_SMTP_SECURITY="none")


async def test_a_wrong_password_is_no_messages_fault(server):
    server.password = "another"
    async with post(server) as sending:
        with pytest.raises(MailServerAway, match="ARAGORA_SMTP_USER") as raised:
            await sending.hand_over(mail())
        assert PASSWORD not in str(raised.value)
        server.password = PASSWORD
        assert (await sending.hand_over(mail())).outcome == "sent"


@pytest.mark.parametrize(
    ("answer", "handed"),
    [
        ("550 5.1.1 <ada@example.com>: no such user", Handed("bounced", 550)),
        ("550 no such user", Handed("bounced", 550)),
        ("554 your server is on a block list", Handed("refused", 554)),
        ("550 5.2.1 mailbox disabled", Handed("bounced", 550)),
        ("552 5.2.2 mailbox full", Handed("refused", 552)),
        ("550 5.7.1 blocked by policy", Handed("refused", 550)),
        ("553 5.1.8 bad sender", Handed("refused", 553)),
        ("450 4.2.0 greylisted", Handed("temporary", 450)),
        ("421 4.3.2 going down", Handed("temporary", 421)),
    ],
)
async def test_what_the_server_says_of_a_recipient(server, answer, handed):
    server.answers["ada@example.com"] = [answer]
    async with post(server) as sending:
        assert await sending.hand_over(mail()) == handed
        assert (await sending.hand_over(mail())).outcome == "sent"


@pytest.mark.parametrize(
    ("answer", "handed"),
    [
        ("554 5.6.0 we do not like it", Handed("refused", 554)),
        ("550 5.1.1 no such user after all", Handed("bounced", 550)),
        ("451 4.3.0 try later", Handed("temporary", 451)),
        ("drop", Handed("temporary")),
        ("hang", Handed("temporary")),
    ],
)
async def test_what_the_server_says_of_a_message(server, answer, handed):
    server.after_data = [answer]
    async with post(server) as sending:
        sending._timeout_seconds = PATIENCE_SECONDS if answer == "hang" else TIMEOUT_SECONDS
        assert await sending.hand_over(mail()) == handed
        sending._timeout_seconds = TIMEOUT_SECONDS
        assert (await sending.hand_over(mail())).outcome == "sent"


async def test_a_server_that_is_away(server):
    async with post(server, ARAGORA_SMTP_PORT="1") as sending:
        with pytest.raises(MailServerAway, match="cannot be reached"):
            await sending.hand_over(mail())
