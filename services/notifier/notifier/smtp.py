"""Handing mail to the mail server. What it answered is told as a word and a code: its text may hold an address.

One connection serves a burst, and is closed when there is nothing more to send. Nothing is ever sent over a connection
that is less protected than the settings say.
"""

import asyncio
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass
from email.message import EmailMessage
from types import TracebackType
from typing import Literal, Self

import aiosmtplib
import structlog

from notifier.settings import Settings

TIMEOUT_SECONDS = 30.0
IDLE_SECONDS = 5.0
MAX_MAILS_PER_CONNECTION = 50
"""Many servers hang up after 100; a new connection is cheap beside that."""
_BAD_CREDENTIALS = frozenset({530, 534, 535, 538})
"""Codes about who we are (RFC 4954, section 6): no message is to blame for that."""
_NO_SUCH_MAILBOX = frozenset({550, 551, 553})
"""With these nobody is known by the address (RFC 5321, section 4.2.3). Others are about the server, its policy or the
sender: a block list that has us must not cost everybody their mail.
"""
_ENHANCED = re.compile(r"\s*5\.(\d{1,3})\.(\d{1,3})\b")

log = structlog.get_logger(__name__)


class MailServerAway(OSError):
    """No message can be handed over just now: the server does not answer, or does not let us in. Try again later."""


class MailNotProtected(ValueError):
    """Credentials would go over the network in the clear. Set ARAGORA_SMTP_SECURITY to starttls or tls, or no user."""


@dataclass(frozen=True, slots=True)
class Handed:
    """What became of a message that was handed over. `code` is the server's; None: it gave none.

    `temporary` may succeed later; `bounced`: nobody has this address; `refused`: the server does not want the message.
    """

    outcome: Literal["sent", "temporary", "bounced", "refused"]
    code: int | None = None


class Post:
    """The way to the mail server that the settings name. For one sender at a time.

    Raises:
        MailNotProtected: there is a user, and the connection is to be plain.
    """

    def __init__(self, settings: Settings, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        if settings.smtp_user and settings.security == "none":
            raise MailNotProtected(
                "ARAGORA_SMTP_USER is set, but ARAGORA_SMTP_SECURITY is none, so the password would be sent in the "
                "clear; set it to starttls or tls"
            )
        self._settings = settings
        self._timeout_seconds = timeout_seconds
        ca_file = settings.smtp_ca_file
        self._tls = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        self._connection: aiosmtplib.SMTP | None = None
        self._handed_over = 0
        self._used_at = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def is_configured(self) -> bool:
        """Whether there is a mail server at all."""
        return bool(self._settings.smtp_host)

    async def hand_over(self, message: EmailMessage) -> Handed:
        """Hand a message over, to be sent to whom it is addressed: one person.

        Raises:
            MailServerAway: this message was not even begun with.
        """
        connection = await self._connected()
        self._handed_over += 1
        try:
            await connection.send_message(message)
        except aiosmtplib.SMTPRecipientsRefused as error:
            refusal = error.recipients[0]
            return self._refused(refusal.code, refusal.message, of_recipient=True)
        except aiosmtplib.SMTPResponseException as error:
            return self._refused(error.code, error.message, of_recipient=False)
        except (aiosmtplib.SMTPNotSupported, ValueError):
            return Handed("refused")  # an address that this server, or SMTP, cannot take
        except (aiosmtplib.SMTPException, OSError) as error:
            # It may have been this message's fault: so it alone waits, and the others get another connection.
            self._drop()
            log.warning("mail_interrupted", reason=type(error).__name__)
            return Handed("temporary")
        except asyncio.CancelledError:
            self._drop()
            raise
        self._used_at = asyncio.get_running_loop().time()
        return Handed("sent", 250)

    async def rest(self) -> None:
        """Nothing waits to be sent just now: a connection that was not used for a while is closed."""
        if self._connection is not None and asyncio.get_running_loop().time() - self._used_at > IDLE_SECONDS:
            await self.close()

    async def close(self) -> None:
        """Say goodbye to the server."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.is_connected:
            with suppress(aiosmtplib.SMTPException, OSError):
                await connection.quit()
            connection.close()

    async def _connected(self) -> aiosmtplib.SMTP:
        if self._handed_over >= MAX_MAILS_PER_CONNECTION:
            await self.close()
        if self._connection is not None and self._connection.is_connected:
            return self._connection
        settings, security = self._settings, self._settings.security
        connection = aiosmtplib.SMTP(
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            username=settings.smtp_user or None,
            password=settings.smtp_password or None,
            timeout=self._timeout_seconds,
            use_tls=security == "tls",
            start_tls=security == "starttls",
            tls_context=None if security == "none" else self._tls,
        )
        try:
            async with asyncio.timeout(2 * self._timeout_seconds):
                await connection.connect()
        except (aiosmtplib.SMTPException, OSError) as error:
            connection.close()
            raise _away(error) from None
        self._connection, self._handed_over = connection, 0
        self._used_at = asyncio.get_running_loop().time()
        return connection

    def _refused(self, code: int, text: str, *, of_recipient: bool) -> Handed:
        self._used_at = asyncio.get_running_loop().time()
        if code == 421:  # it is about to hang up
            self._drop()
        if code in _BAD_CREDENTIALS:
            self._drop()
            raise MailServerAway(f"the mail server wants other credentials (code {code})")
        if not 500 <= code < 600:
            return Handed("temporary", code)
        of_recipient = of_recipient and code in _NO_SUCH_MAILBOX
        return Handed("bounced" if _is_nobodys(text, of_recipient=of_recipient) else "refused", code)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _is_nobodys(text: str, *, of_recipient: bool) -> bool:
    # RFC 3463: X.1.Z is about the address (7 and 8 the sender's), X.2.1 a mailbox that is disabled. All else, such as a
    # full mailbox or a policy, is not the address's fault. Without such a code, refusing RCPT says it.
    found = _ENHANCED.match(text)
    if found is None:
        return of_recipient
    subject, detail = found.groups()
    return (subject == "1" and detail not in ("7", "8")) or (subject, detail) == ("2", "1")


def _away(error: Exception) -> MailServerAway:
    code = getattr(error, "code", None)
    if isinstance(error, aiosmtplib.SMTPAuthenticationError):
        return MailServerAway(f"the mail server refuses ARAGORA_SMTP_USER or its password (code {code})")
    if isinstance(error, ssl.SSLCertVerificationError) or isinstance(error.__cause__, ssl.SSLCertVerificationError):
        return MailServerAway("the mail server's certificate is not trusted; ARAGORA_SMTP_CA_FILE names who is")
    if type(error) is aiosmtplib.SMTPException:  # how the client says that the server offers no STARTTLS, or no AUTH
        return MailServerAway("the mail server does not offer what ARAGORA_SMTP_SECURITY and ARAGORA_SMTP_USER ask for")
    return MailServerAway(f"the mail server cannot be reached: {type(error).__name__}" + (f" {code}" if code else ""))
