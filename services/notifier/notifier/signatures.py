"""Signatures of what is sent to endpoints: Standard Webhooks 1.0 (https://www.standardwebhooks.com). Pure."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

PREFIX = "whsec_"
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64
"""The specification's bounds of a secret."""


class UnusableSecret(ValueError):
    """No signing secret: write `whsec_` and the base64 of 24 to 64 random bytes."""


def secret_text(random_bytes: bytes) -> str:
    """A signing secret as people copy it, from 24 to 64 random bytes."""
    return PREFIX + base64.b64encode(random_bytes).decode()


def key_of(secret: str) -> bytes:
    """The key that a secret stands for.

    Raises:
        UnusableSecret: it stands for none.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise UnusableSecret(
            f"the signing secret is {PREFIX} and the base64 of {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} random bytes, "
            f'such as: echo "{PREFIX}$(openssl rand -base64 32)"'
        )
    return key


def message_id_of(event_id: UUID) -> str:
    """The id under which an event is sent, at each try and again when somebody asks for it anew."""
    return f"msg_{event_id.hex}"


def headers(message_id: str, timestamp: datetime, body: str, secrets: Sequence[str]) -> dict[str, str]:
    """The headers that let the receiver verify a body, with one signature for each of the secrets.

    Raises:
        UnusableSecret: one of the secrets is none.
    """
    seconds = int(timestamp.timestamp())
    signed = f"{message_id}.{seconds}.{body}".encode()
    found = [base64.b64encode(hmac.digest(key_of(secret), signed, hashlib.sha256)).decode() for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in found),
    }
