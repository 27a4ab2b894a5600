"""The second factor: a code that changes every 30 seconds (TOTP, RFC 6238), or one of ten recovery codes."""

import hashlib
import hmac
import secrets
from base64 import b32encode
from datetime import datetime

import pyotp

from aragora.chassis.sealing import Sealer
from aragora.chassis.sql import Connection
from auth.acts import queries

ISSUER = "Aragora"
STEP_SECONDS = 30
RECOVERY_CODES = 10


def new_secret() -> str:
    """A secret for an authenticator: 160 bits in base 32, as RFC 4226 recommends."""
    return pyotp.random_base32(32)


def provisioning_url(secret: str, email: str) -> str:
    """What an authenticator reads from a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=email, issuer_name=ISSUER)


def new_recovery_codes() -> list[str]:
    """Ten codes of 80 random bits each, such as `k5ip-2gz4-w7aq-n3sd`."""
    codes = [b32encode(secrets.token_bytes(10)).decode().lower() for _ in range(RECOVERY_CODES)]
    return ["-".join(code[start : start + 4] for start in range(0, 16, 4)) for code in codes]


def digest_of(recovery_code: str) -> bytes:
    """What is kept of a recovery code."""
    return hashlib.sha256(recovery_code.lower().replace("-", "").replace(" ", "").encode()).digest()


def step_of(secret: str, code: str, now: datetime) -> int | None:
    """The time step that a code belongs to: the one of now, or one beside it, because clocks differ. None: to none."""
    current = int(now.timestamp()) // STEP_SECONDS
    known = pyotp.TOTP(secret)
    for step in (current, current - 1, current + 1):
        if hmac.compare_digest(known.generate_otp(step).encode(), code.encode()):
            return step
    return None


async def use_code(
    connection: Connection, sealer: Sealer, user_id: str, sealed: bytes, code: str, now: datetime
) -> bool:
    """Whether it is a good code. It is used up: nobody gets in with it again."""
    step = step_of(sealer.open(sealed), code.replace(" ", ""), now)
    if step is not None:
        return await connection.fetchval(queries.use_totp_step, user_id, step) is True
    return await connection.fetchval(queries.use_recovery_code, user_id, digest_of(code), now) is True
