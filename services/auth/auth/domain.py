"""An organization: who belongs to it, in which role, who may join. Pure.

From its creation until it is deleted it has an owner. Whoever joins finds a seat; a plan that shrinks leaves members
where they are. An invitation admits once, until it expires, and falls with the right of whoever made it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events import (
    InvitationWithdrawn,
    MemberInvited,
    MemberJoined,
    MemberRemoved,
    OrganizationCreated,
    OrganizationDeleted,
    OrganizationRenamed,
    Role,
    RoleChanged,
)
from auth.commands import (
    Accept,
    Actor,
    AlreadyExists,
    AlreadyMember,
    AlreadyOwner,
    ChangeRole,
    Command,
    Create,
    Delete,
    InvitationOver,
    Invite,
    LastOwner,
    Leave,
    NoSeatLeft,
    NoSuchInvitation,
    NoSuchOrganization,
    NotAllowed,
    NotAMember,
    Remove,
    Rename,
    Seats,
    SeatsUnknown,
    Stranger,
    TransferOwnership,
    Withdraw,
    WrongSlug,
)

STRANGER = "You are not a member of this organization."

_RANK: Mapping[Role, int] = {"member": 0, "admin": 1, "owner": 2}


@dataclass(frozen=True, slots=True)
class Invitation:
    """Until when somebody may join, as what, and who says so."""

    role: Role
    invited_by: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Organization:
    """An organization as it stands. Before its creation and after its deletion it has no members."""

    exists: bool = False
    name: str = ""
    slug: str = ""
    members: Mapping[str, Role] = field(default_factory=dict)
    """By user id."""
    invitations: Mapping[str, Invitation] = field(default_factory=dict)
    """Those neither accepted nor withdrawn, by id; they may have expired."""

    def is_last_owner(self, user_id: str) -> bool:
        """Whether nobody else owns it."""
        return [one for one, role in self.members.items() if role == "owner"] == [user_id]


def evolve(state: Organization, event: DomainEvent) -> Organization:
    """The organization after an event."""
    members, invitations = dict(state.members), dict(state.invitations)
    match event:
        case OrganizationCreated():
            return Organization(True, event.name, event.slug, {event.owner_id: "owner"})
        case OrganizationRenamed():
            return replace(state, name=event.name, slug=event.slug)
        case OrganizationDeleted():
            return replace(state, exists=False, members={}, invitations={})
        case MemberInvited():
            invitations[event.invitation_id] = Invitation(event.role, event.invited_by, event.expires_at)
        case InvitationWithdrawn():
            invitations.pop(event.invitation_id, None)
        case MemberJoined():
            members[event.user_id] = event.role
            invitations.pop(event.invitation_id or "", None)
        case MemberRemoved():
            members.pop(event.user_id, None)
        case RoleChanged():
            members[event.user_id] = event.role
    return replace(state, members=members, invitations=invitations)


def decide(state: Organization, command: Command, now: datetime) -> Sequence[DomainEvent]:
    """What a command brings about; nothing, if all is so already.

    Raises:
        Refused: it may not be. The kinds are in `commands`.
    """
    match command:
        case Create():
            if state != Organization():
                raise AlreadyExists("An organization with this id was founded before; take another id.")
            return [OrganizationCreated(name=command.name, slug=command.slug, owner_id=command.owner_id)]
        case Accept():
            return _accept(state, command, now)
        case Leave():
            if command.user_id not in state.members:
                raise Stranger(STRANGER)
            return _leave(state, command, now)
    role = _role_of(state, command.by)
    match command:
        case Rename():
            _demand(role, "admin", "rename it")
            name, slug = command.name or state.name, command.slug or state.slug
            same = (name, slug) == (state.name, state.slug)
            return [] if same else [OrganizationRenamed(name=name, slug=slug)]
        case Invite():
            return _invite(state, command, role)
        case Withdraw():
            _demand(role, "admin", "withdraw invitations")
            invitation = state.invitations.get(command.invitation_id)
            if invitation is None:
                raise NoSuchInvitation("No such invitation is open; the list of invitations shows those that are.")
            _demand(role, invitation.role, "withdraw an invitation to become one")
            return [InvitationWithdrawn(invitation_id=command.invitation_id)]
        case ChangeRole():
            return _change_role(state, command, role, now)
        case TransferOwnership():
            return _transfer(state, command, role, now)
        case Remove():
            if command.user_id == command.by.user_id and command.user_id in state.members:
                return _leave(state, Leave(command.user_id), now)
            return _remove(state, command, role, now)
        case Delete():
            _demand(role, "owner", "delete it")
            if command.slug != state.slug:
                raise WrongSlug("must be the organization's slug, to show that this one is meant")
            return [OrganizationDeleted()]


def _role_of(state: Organization, by: Actor) -> Role:
    """What the actor may do as."""
    if by.is_operator:
        if not state.exists:
            raise NoSuchOrganization("There is no such organization.")
        return "owner"
    role = state.members.get(by.user_id)
    if role is None:
        raise Stranger(STRANGER)
    return role


def _demand(role: Role, least: Role, what: str) -> None:
    if _RANK[role] < _RANK[least]:
        whoever = "an owner" if least == "owner" else "an owner or admin"
        raise NotAllowed(f"Only {whoever} of the organization may {what}; you are {_spoken(role)} of it.")


def _spoken(role: Role) -> str:
    return "a member" if role == "member" else f"an {role}"


def _may_invite(role: Role | None, into: Role) -> bool:
    return role not in (None, "member") and _RANK[into] <= _RANK[role]


def _invite(state: Organization, command: Invite, role: Role) -> list[DomainEvent]:
    _demand(role, "admin", "invite others")
    if not _may_invite(role, command.role):
        raise NotAllowed(f"You are {_spoken(role)} of the organization, and may invite into roles up to that one.")
    _demand_seat(state, command.seats)
    return [
        MemberInvited(
            invitation_id=command.invitation_id,
            role=command.role,
            invited_by=command.by.user_id,
            expires_at=command.expires_at,
        )
    ]


def _accept(state: Organization, command: Accept, now: datetime) -> list[DomainEvent]:
    if command.user_id in state.members:
        raise AlreadyMember("You are a member of this organization already.")
    invitation = state.invitations.get(command.invitation_id)
    if invitation is None or invitation.expires_at <= now:
        raise InvitationOver("This invitation was used, withdrawn, or has expired; ask for a new one.")
    _demand_seat(state, command.seats)
    joined = MemberJoined(user_id=command.user_id, role=invitation.role, invitation_id=command.invitation_id)
    return [joined]


def _demand_seat(state: Organization, seats: Seats | None) -> None:
    if seats is None:
        raise SeatsUnknown("How many seats the organization's plan has is not known here yet; try again in a moment.")
    if seats.most is not None and len(state.members) >= seats.most:
        raise NoSeatLeft(
            f"No seat is left: the organization's plan has {seats.most}. Remove a member, or choose a larger plan."
        )


def _change_role(state: Organization, command: ChangeRole, role: Role, now: datetime) -> list[DomainEvent]:
    _demand(role, "admin", "change roles")
    theirs = _role_in(state, command.user_id)
    if "owner" in (theirs, command.role):
        _demand(role, "owner", "make or unmake an owner")
    if theirs == command.role:
        return []
    _demand_other_owner(state, command.user_id)
    changed = RoleChanged(user_id=command.user_id, role=command.role)
    return [changed, *_fallen(state, command.user_id, command.role, now)]


def _transfer(state: Organization, command: TransferOwnership, role: Role, now: datetime) -> list[DomainEvent]:
    _demand(role, "owner", "transfer it")
    if _role_in(state, command.to) == "owner":
        raise AlreadyOwner("This member is an owner already; to step down, change your own role.")
    events: list[DomainEvent] = [RoleChanged(user_id=command.to, role="owner")]
    before = command.by.user_id
    if state.members.get(before) == "owner":
        events += [RoleChanged(user_id=before, role="admin"), *_fallen(state, before, "admin", now)]
    return events


def _remove(state: Organization, command: Remove, role: Role, now: datetime) -> list[DomainEvent]:
    _demand(role, "admin", "remove members")
    if _role_in(state, command.user_id) == "owner":
        _demand(role, "owner", "remove an owner")
    _demand_other_owner(state, command.user_id)
    return _gone(state, command.user_id, now)


def _leave(state: Organization, command: Leave, now: datetime) -> list[DomainEvent]:
    if command.closing_if_alone and len(state.members) == 1:
        return [OrganizationDeleted()]
    _demand_other_owner(state, command.user_id)
    return _gone(state, command.user_id, now)


def _role_in(state: Organization, user_id: str) -> Role:
    role = state.members.get(user_id)
    if role is None:
        raise NotAMember("This person is no member of the organization; the list of members shows who is.")
    return role


def _demand_other_owner(state: Organization, user_id: str) -> None:
    if state.is_last_owner(user_id):
        message = f"{state.slug} would be left without an owner: transfer it to another member, or delete it, first."
        raise LastOwner(message, state.slug)


def _gone(state: Organization, user_id: str, now: datetime) -> list[DomainEvent]:
    return [MemberRemoved(user_id=user_id), *_fallen(state, user_id, None, now)]


def _fallen(state: Organization, user_id: str, role: Role | None, now: datetime) -> list[DomainEvent]:
    """The open invitations that somebody made, and could not make any more in this role."""
    return [
        InvitationWithdrawn(invitation_id=invitation_id)
        for invitation_id, one in state.invitations.items()
        if one.invited_by == user_id and one.expires_at > now and not _may_invite(role, one.role)
    ]
