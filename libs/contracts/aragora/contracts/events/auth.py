"""What auth says: who you are.

People are known by id only: names, addresses and secrets are in auth's own tables, from where they can be erased. What
concerns a person rather than one organization is said of the `PLATFORM`.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field

from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events.values import Name

Role = Literal["owner", "admin", "member"]


class UserRegistered(DomainEvent):
    """A person has an account from now on."""

    type_name: ClassVar[str] = "aragora.auth.UserRegistered.v1"

    user_id: Name


class EmailVerified(DomainEvent):
    """The person has shown that the account's e-mail address is theirs."""

    type_name: ClassVar[str] = "aragora.auth.EmailVerified.v1"

    user_id: Name


class EmailVerificationRequested(DomainEvent):
    """A message with a link is to be sent. `rpc.auth.message` tells address and link, and nobody else."""

    type_name: ClassVar[str] = "aragora.auth.EmailVerificationRequested.v1"

    user_id: Name
    message_id: Name
    expires_at: AwareDatetime


class PasswordResetRequested(DomainEvent):
    """A message with a link is to be sent. `rpc.auth.message` tells address and link, and nobody else."""

    type_name: ClassVar[str] = "aragora.auth.PasswordResetRequested.v1"

    user_id: Name
    message_id: Name
    expires_at: AwareDatetime


class PasswordChanged(DomainEvent):
    """The account has another password; every session before that has ended."""

    type_name: ClassVar[str] = "aragora.auth.PasswordChanged.v1"

    user_id: Name
    how: Literal["changed", "reset"]


class SecondFactorChanged(DomainEvent):
    """Signing in needs a code beside the password from now on, or no longer."""

    type_name: ClassVar[str] = "aragora.auth.SecondFactorChanged.v1"

    user_id: Name
    enabled: bool


class AccountLocked(DomainEvent):
    """Too many wrong passwords or codes: nobody signs in before `until`."""

    type_name: ClassVar[str] = "aragora.auth.AccountLocked.v1"

    user_id: Name
    failures: Annotated[int, Field(ge=1)]
    until: AwareDatetime


class UserErased(DomainEvent):
    """The person's data are to be erased everywhere; totals stay. Every service honours it."""

    type_name: ClassVar[str] = "aragora.auth.UserErased.v1"

    user_id: Name
    org_ids: tuple[Name, ...]
    """Every organization that the person was ever a member of."""


class TokenRevoked(DomainEvent):
    """A token, or all tokens of a session, count for nothing from now on. One of the two is named."""

    type_name: ClassVar[str] = "aragora.auth.TokenRevoked.v1"

    user_id: Name
    token_jti: Name | None = None
    session_id: Name | None = None
    expires_at: AwareDatetime
    """When the last of them would have expired: nobody need remember the revocation any longer."""
    reason: str


class UserTokensRevoked(DomainEvent):
    """All of a person's tokens issued before a moment count for nothing; with `org_id`, those for that organization."""

    type_name: ClassVar[str] = "aragora.auth.UserTokensRevoked.v1"

    user_id: Name
    org_id: Name | None = None
    issued_before: AwareDatetime
    reason: str


class ApiKeyIssued(DomainEvent):
    """A program of the organization may call with a key."""

    type_name: ClassVar[str] = "aragora.auth.ApiKeyIssued.v1"

    key_id: Name
    user_id: Name
    """Who made it, and in whose name it acts."""
    scopes: tuple[str, ...]
    expires_at: AwareDatetime | None = None


class ApiKeyRevoked(DomainEvent):
    """The key counts for nothing from now on: forget that it was ever accepted."""

    type_name: ClassVar[str] = "aragora.auth.ApiKeyRevoked.v1"

    key_id: Name
    reason: str


class OrganizationCreated(DomainEvent):
    """An organization exists from now on. It gets the default plan."""

    type_name: ClassVar[str] = "aragora.auth.OrganizationCreated.v1"

    name: str
    slug: str
    owner_id: Name


class OrganizationRenamed(DomainEvent):
    """The organization has another name, and may have another slug."""

    type_name: ClassVar[str] = "aragora.auth.OrganizationRenamed.v1"

    name: str
    slug: str


class OrganizationDeleted(DomainEvent):
    """The organization is closed. Nobody acts for it any more; what it used and paid stays on record."""

    type_name: ClassVar[str] = "aragora.auth.OrganizationDeleted.v1"


class MemberInvited(DomainEvent):
    """Somebody is invited by e-mail. `rpc.auth.message` tells address and link, and nobody else."""

    type_name: ClassVar[str] = "aragora.auth.MemberInvited.v1"

    invitation_id: Name
    """Also the id of the message."""
    role: Role
    invited_by: Name
    expires_at: AwareDatetime


class InvitationWithdrawn(DomainEvent):
    """An invitation counts no more."""

    type_name: ClassVar[str] = "aragora.auth.InvitationWithdrawn.v1"

    invitation_id: Name


class MemberJoined(DomainEvent):
    """A person belongs to the organization from now on. The owner does from its creation, without this event."""

    type_name: ClassVar[str] = "aragora.auth.MemberJoined.v1"

    user_id: Name
    role: Role
    invitation_id: Name | None = None


class MemberRemoved(DomainEvent):
    """A person left the organization, or was made to."""

    type_name: ClassVar[str] = "aragora.auth.MemberRemoved.v1"

    user_id: Name


class RoleChanged(DomainEvent):
    """A member may do more, or less, in the organization from now on."""

    type_name: ClassVar[str] = "aragora.auth.RoleChanged.v1"

    user_id: Name
    role: Role
