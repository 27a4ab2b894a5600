"""The operator's own endpoint: where ARAGORA_NOTIFICATION_WEBHOOK says, of the organization `platform`."""

import secrets
from contextlib import suppress
from datetime import datetime

import httpx

from aragora.chassis import sql
from aragora.chassis.sealing import Sealer
from aragora.chassis.sql import Connection
from notifier import endpoints, queueing, signatures
from notifier.endpoints import UnknownEndpoint
from notifier.recording import OPERATOR
from notifier.settings import Settings
from notifier.signatures import UnusableSecret

queries = sql.load("notifier", "sql/operator_endpoint.sql")


class UnusableWebhook(ValueError):
    """ARAGORA_NOTIFICATION_WEBHOOK or its secret is none: correct it, and start again."""


async def operator_endpoint(connection: Connection, settings: Settings, sealer: Sealer, now: datetime) -> None:
    """Make the operator's endpoint what the settings say, and try it at once; without a URL it is disabled.

    A secret that is not given is made once and kept. It outlasts a start without the URL, which somebody may have
    forgotten, and so does what waits.

    Raises:
        UnusableWebhook: see there.
    """
    await queueing.wait_for_turn(connection)
    if not settings.webhook:
        with suppress(UnknownEndpoint):
            await endpoints.disable(connection, *OPERATOR, now)
        return
    _check(settings)
    secret = settings.webhook_secret or signatures.secret_text(secrets.token_bytes(32))
    await connection.execute(
        queries.keep_operator_endpoint,
        *OPERATOR,
        sealer.seal(settings.webhook),
        settings.webhook_format,
        sealer.seal(secret),
        bool(settings.webhook_secret),
        now,
    )
    await connection.execute(queries.try_operator_lane, *OPERATOR, now)


def _check(settings: Settings) -> None:
    try:
        url = httpx.URL(settings.webhook)
    except httpx.InvalidURL:
        url = httpx.URL()  # its message would repeat what may be secret
    if url.scheme not in ("http", "https") or not url.host:
        raise UnusableWebhook("ARAGORA_NOTIFICATION_WEBHOOK is no URL: write it like https://example.com/hook")
    try:
        if settings.webhook_secret:
            signatures.key_of(settings.webhook_secret)
    except UnusableSecret as error:
        raise UnusableWebhook(f"ARAGORA_NOTIFICATION_WEBHOOK_SECRET: {error}") from error
