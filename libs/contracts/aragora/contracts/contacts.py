"""Who somebody is and how to reach them: auth alone knows, and on `rpc.auth.contacts` tells whoever sends letters.

So neither a name nor an address is ever in an event.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

READ_CONTACTS = "rpc.auth.contacts"
"""Who belongs to an organization, or who is this person? For whoever sends letters, and nobody else."""

MemberRole = Literal["owner", "admin", "member"]
_Id = Annotated[str, Meta(min_length=1, max_length=128)]


class ReadContacts(Struct, kw_only=True):
    """How are the members of an organization reached, or one person? One of the two is named."""

    org_id: _Id | None = None
    user_id: _Id | None = None
    after: _Id | None = None
    """Go on after this member, the last one that was told: large organizations are told in several answers."""


class Contact(Struct, kw_only=True, frozen=True):
    """A person. Without a name they never said one."""

    user_id: str
    email: str
    name: str | None = None
    verified: bool
    """Whether they have shown that the address is theirs."""
    role: MemberRole | None = None
    """In the organization that was asked about."""

    def __repr__(self) -> str:
        return f"Contact(user_id={self.user_id!r}, …)"


class Contacts(Struct, kw_only=True, frozen=True):
    """The answer. No contacts: the organization is closed or unknown, the person erased or unknown."""

    org_name: str | None = None
    contacts: tuple[Contact, ...] = ()
    more: bool = False
    """Whether there may be members after these."""
    refused: Literal["unknown"] | None = None
    """The question cannot be read."""
