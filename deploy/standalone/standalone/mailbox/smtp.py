"""SMTP: letters come in, from whoever has the key, and stay."""

import asyncio
import secrets
import ssl
from functools import partial
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from standalone.mailbox.letters import Letters
from standalone.service_settings import SMTP_USER

MAX_LETTER_BYTES = 1024 * 1024


class Postman:
    """What happens with a letter: it is kept."""

    def __init__(self, letters: Letters) -> None:
        self._letters = letters

    async def handle_MAIL(  # noqa: N802  aiosmtpd's name for it
        self, _server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """A letter begins. The server's own `auth_required` knows of STARTTLS only, and would warn of a plain way."""
        if not session.authenticated:
            return "530 5.7.0 Authentication required"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """A letter is complete."""
        source = envelope.content or b""
        number = self._letters.add(envelope.rcpt_tos, source if isinstance(source, bytes) else source.encode())
        return f"250 OK kept as {number}; it is delivered to nobody"


async def listen(letters: Letters, key: str, port: int, tls: ssl.SSLContext) -> asyncio.Server:
    """Take letters on a port of 127.0.0.1, over TLS from the first byte on."""

    def is_known(_server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, given: Any) -> AuthResult:
        known = LoginPassword(SMTP_USER.encode(), key.encode())
        is_right = isinstance(given, LoginPassword) and all(map(secrets.compare_digest, given, known))
        return AuthResult(success=is_right, handled=False)

    loop = asyncio.get_running_loop()
    protocol = partial(
        SMTP, Postman(letters), data_size_limit=MAX_LETTER_BYTES, enable_SMTPUTF8=True, hostname="mailbox",
        ident="Aragora's mailbox", authenticator=is_known, auth_require_tls=False, loop=loop,
    )  # fmt: skip
    return await loop.create_server(protocol, "127.0.0.1", port, ssl=tls)
