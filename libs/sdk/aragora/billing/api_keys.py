"""API keys, `ara_…`: made and recognised. Only their SHA-256 is ever stored."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime

KEY_PREFIX = "ara_"
_FORM = re.compile(r"ara_[A-Za-z0-9_-]{11,196}")  # 15 characters at least, as documented, and 200 at most
_SHOWN_CHARACTERS = 12


@dataclass(frozen=True, slots=True)
class VerifiedKey:
    """A key that is good: in whose name it acts, for which organization, and what it may do."""

    user_id: str
    org_id: str | None
    role: str
    scopes: frozenset[str] = frozenset()
    expires_at: datetime | None = None


def new_api_key() -> str:
    """A new key: `ara_` and the 43 characters of 32 random bytes. Show it once and store its `digest_of`."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def digest_of(key: str) -> str:
    """The SHA-256 of a key, in hex. A key is random enough that a slow hash would add nothing."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def prefix_of(key: str) -> str:
    """The beginning of a key, 12 characters, by which its owner knows it in a list."""
    return key[:_SHOWN_CHARACTERS]


def has_key_form(text: str) -> bool:
    """Can this be a key? `ara_` and letters, digits, `_` and `-`, 15 to 200 characters in all."""
    return _FORM.fullmatch(text) is not None
