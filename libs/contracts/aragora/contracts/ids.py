"""Identifiers."""

from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """A new UUIDv7 (RFC 9562): unique, and sortable by the millisecond in which it was made."""
    return uuid7()
