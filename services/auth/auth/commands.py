"""What may be asked of an organization, and what is refused. Pure."""

from dataclasses import dataclass
from datetime import datetime

from aragora.contracts.events import Role


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks. An operator of the platform may do what an owner may, member or not."""

    user_id: str
    is_operator: bool = False


@dataclass(frozen=True, slots=True)
class Seats:
    """For how many members the plan has room; None: for any number. Of a command, None: billing has not said yet."""

    most: int | None


@dataclass(frozen=True, slots=True)
class Create:
    """Found an organization; whoever does is its first owner."""

    owner_id: str
    name: str
    slug: str


@dataclass(frozen=True, slots=True)
class Rename:
    """Another name, another slug, or both. What is None stays."""

    by: Actor
    name: str | None = None
    slug: str | None = None


@dataclass(frozen=True, slots=True)
class Invite:
    """Let somebody join until `expires_at`. Who it is, the invitation's letter knows."""

    by: Actor
    invitation_id: str
    role: Role
    expires_at: datetime
    seats: Seats | None


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Let an invitation count no more."""

    by: Actor
    invitation_id: str


@dataclass(frozen=True, slots=True)
class Accept:
    """Join, by way of an invitation."""

    user_id: str
    invitation_id: str
    seats: Seats | None


@dataclass(frozen=True, slots=True)
class ChangeRole:
    """Let a member do more, or less."""

    by: Actor
    user_id: str
    role: Role


@dataclass(frozen=True, slots=True)
class TransferOwnership:
    """Make another member an owner, and oneself an admin. An operator who is no owner makes an owner, and no more."""

    by: Actor
    to: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Make a member leave. Whoever removes themselves leaves."""

    by: Actor
    user_id: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Leave. With `closing_if_alone`, an organization without other members is deleted by that."""

    user_id: str
    closing_if_alone: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """Close the organization for ever. `slug`: as it was repeated, to show that this one is meant."""

    by: Actor
    slug: str


Command = Create | Rename | Invite | Withdraw | Accept | ChangeRole | TransferOwnership | Remove | Leave | Delete


class Refused(Exception):
    """The organization does not allow this now. The message says why, and what to do instead."""


class Stranger(Refused):
    """Whoever asks is no member, or there is no such organization. Ask a member to invite you."""


class NoSuchOrganization(Refused):
    """There is none, or it was deleted. Told to operators only: others are strangers to it."""


class AlreadyExists(Refused):
    """An organization with this id was founded before. Take another id."""


class NotAllowed(Refused):
    """The role of whoever asks does not allow it. Ask somebody who has the role that the message names."""


class NotAMember(Refused):
    """The person whom it concerns is no member. Look at the list of members."""


class AlreadyMember(Refused):
    """The person is a member. Nothing needs to be done."""


class AlreadyOwner(Refused):
    """The person is an owner already. To step down, change your own role."""


class AlreadyInvited(Refused):
    """The address has an open invitation. Withdraw it first to send another."""


class LastOwner(Refused):
    """Nobody would own the organization. Transfer it, or delete it, first. `slug` names it."""

    def __init__(self, message: str, slug: str) -> None:
        super().__init__(message)
        self.slug = slug


class NoSuchInvitation(Refused):
    """No invitation with this id is open. Look at the list of invitations."""


class InvitationOver(Refused):
    """The invitation was used, withdrawn, or has expired. Ask for a new one."""


class WrongAddress(Refused):
    """The invitation was sent to another address. Sign in with the account of that address."""


class NoSeatLeft(Refused):
    """The plan has no room for one more. Remove somebody, or choose a plan with more seats."""


class SeatsUnknown(Refused):
    """Billing has not said yet how many seats there are. Try again in a moment."""


class SlugTaken(Refused):
    """Another organization has, or had, this slug. Choose another."""


class WrongSlug(Refused):
    """The slug that was repeated is not the organization's. Send the one that it has."""


class AccountErased(Refused):
    """The person's account was erased. Register again."""
