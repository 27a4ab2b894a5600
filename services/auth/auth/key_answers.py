"""The shapes of what is told of API keys and of credentials."""

from datetime import datetime
from typing import Literal

import asyncpg
from msgspec import Struct


class ApiKey(Struct):
    """An API key as it is listed. `prefix`: its first characters, by which people know it."""

    key_id: str
    org_id: str
    user_id: str
    """Who made it, and in whose name it acts."""
    name: str
    prefix: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    """To the minute."""
    revoked_at: datetime | None


class NewApiKey(ApiKey, kw_only=True):
    """An API key that was made just now, with its text, which nobody is shown again."""

    key: str


class Credential(Struct):
    """Whose credential it is, and what it may do. A service key is nobody's and has no role."""

    token_type: Literal["access", "api_key", "service_key"]
    user_id: str | None
    org_id: str | None
    role: str | None
    scopes: list[str]
    expires_at: datetime | None


def api_key(row: asyncpg.Record) -> ApiKey:
    """A key as it is listed."""
    return ApiKey(**row)


def new_api_key(row: asyncpg.Record, text: str) -> NewApiKey:
    """A key as it is shown once."""
    return NewApiKey(**row, key=text)
