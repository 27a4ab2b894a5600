"""How long tokens live, as the environment says: `ARAGORA_JWT_EXPIRY_HOURS` and `ARAGORA_REFRESH_TOKEN_EXPIRY_DAYS`."""

import os
from datetime import timedelta

MAX_ACCESS_HOURS = 720
"""30 days: so long the bus remembers what was revoked, and so long a service that was away can still hear of it."""
MAX_REFRESH_DAYS = 365


class JWTConfigError(RuntimeError):
    """The environment does not allow tokens to be signed or verified. The message names the variable to set."""


def access_lifetime() -> timedelta:
    """How long an access token is valid: `ARAGORA_JWT_EXPIRY_HOURS`, else 24 hours.

    Raises:
        JWTConfigError: it is no whole number from 1 to 720.
    """
    return timedelta(hours=_whole_number("ARAGORA_JWT_EXPIRY_HOURS", 24, MAX_ACCESS_HOURS))


def refresh_lifetime() -> timedelta:
    """How long a refresh token is valid: `ARAGORA_REFRESH_TOKEN_EXPIRY_DAYS`, else 30 days.

    Raises:
        JWTConfigError: it is no whole number from 1 to 365.
    """
    return timedelta(days=_whole_number("ARAGORA_REFRESH_TOKEN_EXPIRY_DAYS", 30, MAX_REFRESH_DAYS))


def longest_lifetime() -> timedelta:
    """After this time every token of today has expired. Raises as the other two do."""
    return max(access_lifetime(), refresh_lifetime())


def _whole_number(variable: str, default: int, most: int) -> int:
    text = os.environ.get(variable, "") or str(default)
    # The length first: a number of thousands of digits is slow to read.
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= most:
        raise JWTConfigError(f"{variable} is {text[:40]!r}; set it to a whole number from 1 to {most}")
    return int(text)
