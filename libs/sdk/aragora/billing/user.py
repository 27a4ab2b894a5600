"""A person, as a product keeps one in its own memory."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from aragora.billing.api_keys import digest_of, has_key_form, new_api_key, prefix_of
from aragora.billing.email_address import normalize_email
from aragora.billing.passwords import hash_password, verify_password
from aragora.billing.records import read_field, read_moment, read_optional
from aragora.contracts.ids import new_id

ROLES = frozenset({"owner", "admin", "member"})


@dataclass(slots=True)
class User:
    """A person with an e-mail address, a password and perhaps an API key.

    Its representation, and so a log, shows the id and no personal data. The password is kept as a hash only, and the
    text of a key for as long as this object lives.

    Raises:
        ValueError: the e-mail address or the role is none.
    """

    email: str = field(repr=False)
    name: str = field(default="", repr=False)
    id: str = field(default_factory=lambda: str(new_id()))
    role: str = "member"
    org_id: str | None = None
    is_active: bool = True
    email_verified: bool = False
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    password_hash: str | None = field(default=None, repr=False)
    api_key_hash: str | None = field(default=None, repr=False)
    api_key_prefix: str | None = None
    _api_key: str | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.email = normalize_email(self.email)
        if self.role not in ROLES:
            raise ValueError("role must be owner, admin or member")

    @property
    def has_api_key(self) -> bool:
        return self.api_key_prefix is not None

    def set_password(self, password: str) -> None:
        """Keep the hash of a password. Whether it is a good one, `passwords.check_strength` says.

        Raises:
            ValueError: see `passwords.hash_password`.
        """
        self.password_hash = hash_password(password)

    def verify_password(self, password: str) -> bool:
        """Is this the password that was set?"""
        return self.password_hash is not None and verify_password(password, self.password_hash)

    def generate_api_key(self) -> str:
        """A new key, in the place of the one before. Show it now: only its hash and its beginning are kept."""
        key = new_api_key()
        self._keep(key)
        return key

    def verify_api_key(self, key: str) -> bool:
        """Is this the key that was generated?"""
        return self.api_key_hash is not None and hmac.compare_digest(digest_of(key), self.api_key_hash)

    def to_dict(self, *, include_sensitive: bool = False) -> dict[str, Any]:
        """What may be shown, as JSON has it: never the password's hash nor the key's.

        With `include_sensitive` there is `api_key` too: the text, if this very object made it, else None.
        """
        shown = {
            "id": self.id,
            "email": self.email,
            "name": self.name,
            "role": self.role,
            "org_id": self.org_id,
            "is_active": self.is_active,
            "email_verified": self.email_verified,
            "has_api_key": self.has_api_key,
            "api_key_prefix": self.api_key_prefix,
            "created_at": self.created_at.isoformat(),
        }
        return {**shown, "api_key": self._api_key} if include_sensitive else shown

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """The user that `to_dict` wrote, without its password. Fields that are not known are passed over.

        Raises:
            ValueError: a field is missing or wrong; the message names it.
        """
        user = cls(
            email=read_field(record, "email", str),
            name=read_field(record, "name", str, ""),
            id=read_optional(record, "id") or str(new_id()),
            role=read_field(record, "role", str, "member"),
            org_id=read_optional(record, "org_id"),
            is_active=read_field(record, "is_active", bool, default=True),
            email_verified=read_field(record, "email_verified", bool, default=False),
            created_at=read_moment(record, "created_at"),
            api_key_prefix=read_optional(record, "api_key_prefix"),
        )
        key = read_optional(record, "api_key")
        if key is not None:
            if not has_key_form(key):
                raise ValueError("api_key must be a key: ara_ and letters, digits, _ and -")
            user._keep(key)
        return user

    def _keep(self, key: str) -> None:
        self._api_key, self.api_key_hash, self.api_key_prefix = key, digest_of(key), prefix_of(key)
