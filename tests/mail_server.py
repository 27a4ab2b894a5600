"""A real SMTP server in this process, with TLS and authentication, that misbehaves when it is told to."""

import asyncio
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any, Literal

import servers
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from notifier.preview import part
from standalone.mailbox.certificate import server_context

USER, PASSWORD = "notifier", "a password for the mail server"


@dataclass
class MailServer:
    """`received` is all that was taken or may have been, with the recipients; `settings` lead here.

    `answers` to RCPT are given to an address in turn, `after_data` to whole messages; without any it is 250.
    The words `drop` (the connection) and `hang` are answers too.
    """

    settings: dict[str, Any]
    received: list[tuple[list[str], EmailMessage]] = field(default_factory=list)
    answers: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    after_data: list[str] = field(default_factory=list)
    password: str = PASSWORD
    connections: int = 0
    were_protected: list[bool] = field(default_factory=list)

    def begin_anew(self) -> None:
        """Nothing came, and nothing misbehaves."""
        for kept in (self.received, self.answers, self.after_data, self.were_protected):
            kept.clear()
        self.password = PASSWORD

    def to(self, address: str) -> list[EmailMessage]:
        """What came for an address."""
        return [message for recipients, message in self.received if address in recipients]

    async def has(self, address: str, count: int = 1) -> list[EmailMessage]:
        """Wait until so much has come for an address."""
        await servers.eventually(lambda: len(self.to(address)) >= count, 20, what=f"{count} mails to {address}")
        assert len(self.to(address)) == count
        return self.to(address)

    async def handle_EHLO(  # noqa: N802
        self, server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self.connections += not session.authenticated
        return responses

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if not session.authenticated:
            return "530 5.7.0 Authentication required"
        self.were_protected.append(_transport(server).get_extra_info("sslcontext") is not None)
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        answer = self.answers[address].pop(0) if self.answers[address] else "250 OK"
        if answer == "250 OK":
            envelope.rcpt_tos.append(address)
        return await _misbehave(server, answer)

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.content
        assert isinstance(content, bytes)
        self.received.append((list(envelope.rcpt_tos), message_from_bytes(content, policy=policy.default)))
        return await _misbehave(server, self.after_data.pop(0) if self.after_data else "250 OK")

    def knows(self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, given: Any) -> AuthResult:
        is_right = isinstance(given, LoginPassword) and given == LoginPassword(USER.encode(), self.password.encode())
        return AuthResult(success=is_right, handled=False)


def _transport(server: SMTP) -> asyncio.Transport:
    assert isinstance(server.transport, asyncio.Transport)
    return server.transport


async def _misbehave(server: SMTP, answer: str) -> str:
    if answer == "drop":
        _transport(server).abort()
    if answer in ("drop", "hang"):
        await asyncio.Event().wait()
    return answer


def html_of(message: EmailMessage) -> str:
    """The page that a mail holds."""
    return part(message, "html")


def text_of(message: EmailMessage) -> str:
    """The text that a mail holds."""
    return part(message, "plain")


@asynccontextmanager
async def mail_server(
    folder: Path, security: Literal["starttls", "tls"] = "starttls", *, offers_tls: bool = True
) -> AsyncIterator[MailServer]:
    """A server on a free port. Without `offers_tls` it would take everything in the clear."""
    certificate = folder / "mail-server.pem"
    tls = server_context(certificate)
    found = MailServer({})
    loop = asyncio.get_running_loop()
    sessions: list[SMTP] = []

    def connected() -> SMTP:
        sessions.append(protocol())
        return sessions[-1]

    upgraded = tls if security == "starttls" and offers_tls else None
    protocol = partial(
        SMTP, found, hostname="mail.test", authenticator=found.knows, auth_require_tls=upgraded is not None,
        tls_context=upgraded, require_starttls=upgraded is not None, loop=loop,
    )  # fmt: skip
    implicit: ssl.SSLContext | None = tls if security == "tls" else None
    server = await loop.create_server(connected, "127.0.0.1", 0, ssl=implicit)
    found.settings |= {
        "ARAGORA_SMTP_HOST": "127.0.0.1",
        "ARAGORA_SMTP_PORT": str(server.sockets[0].getsockname()[1]),
        "ARAGORA_SMTP_USER": USER,
        "ARAGORA_SMTP_PASSWORD": PASSWORD,
        "ARAGORA_SMTP_FROM": "billing@product.example",
        "ARAGORA_SMTP_SECURITY": security,
        "ARAGORA_SMTP_CA_FILE": str(certificate),
    }
    try:
        yield found
    finally:
        server.close()
        handlers = [one._handler_coroutine for one in sessions if one._handler_coroutine is not None]
        for one in handlers:
            one.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        for session in sessions:
            if session.transport is not None:
                _transport(session).abort()
