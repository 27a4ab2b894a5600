"""What may be done with an organization, and by whom, one outcome at a time."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

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
from auth import commands
from auth.commands import (
    Accept,
    Actor,
    ChangeRole,
    Command,
    Create,
    Delete,
    Invite,
    Leave,
    Remove,
    Rename,
    Seats,
    TransferOwnership,
    Withdraw,
)
from auth.domain import Organization, decide, evolve

NOW = datetime(2026, 12, 15, 12, tzinfo=UTC)
SOON = NOW + timedelta(days=7)
MANY = Seats(None)

OLGA, ADAM, ALMA, MAX, EVE = (Actor(name) for name in ("olga", "adam", "alma", "max", "eve"))
"""An owner, two admins, a member, and somebody else."""
OPERATOR = Actor("ops", is_operator=True)


def given(*events: DomainEvent, state: Organization | None = None) -> Organization:
    state = state or Organization()
    for event in events:
        state = evolve(state, event)
    return state


def joined(user_id: str, role: Role) -> MemberJoined:
    return MemberJoined(user_id=user_id, role=role)


def invited(invitation_id: str, by: str, role: Role = "member") -> MemberInvited:
    return MemberInvited(invitation_id=invitation_id, role=role, invited_by=by, expires_at=SOON)


def role_of(user_id: str, role: Role) -> RoleChanged:
    return RoleChanged(user_id=user_id, role=role)


def gone(user_id: str) -> MemberRemoved:
    return MemberRemoved(user_id=user_id)


def withdrawn(invitation_id: str) -> InvitationWithdrawn:
    return InvitationWithdrawn(invitation_id=invitation_id)


FOUNDED = OrganizationCreated(name="Acme", slug="acme", owner_id="olga")
ALONE = given(FOUNDED)
ACME = given(joined("adam", "admin"), joined("alma", "admin"), joined("max", "member"), state=ALONE)
TWO_OWNERS = given(joined("zoe", "owner"), state=ACME)
DELETED = given(OrganizationDeleted(), state=ACME)
INVITING = given(invited("i-olga", "olga", "owner"), invited("i-adam", "adam"), state=ACME)


def invite(by: Actor, role: Role, seats: Seats | None = MANY) -> Invite:
    return Invite(by, "i-1", role, SOON, seats)


def accept(user_id: str = "eve", invitation_id: str = "i-adam", seats: Seats | None = MANY) -> Accept:
    return Accept(user_id, invitation_id, seats)


ALLOWED: Sequence[tuple[Organization, Command, Sequence[DomainEvent]]] = [
    (Organization(), Create("olga", "Acme", "acme"), [FOUNDED]),
    (ACME, Rename(ADAM, name="Ace"), [OrganizationRenamed(name="Ace", slug="acme")]),
    (ACME, Rename(OLGA, slug="ace"), [OrganizationRenamed(name="Acme", slug="ace")]),
    (ACME, Rename(OPERATOR, "Acme", "acme"), []),
    (ACME, invite(OLGA, "owner"), [invited("i-1", "olga", "owner")]),
    (ACME, invite(ADAM, "admin"), [invited("i-1", "adam", "admin")]),
    (ACME, invite(OPERATOR, "owner"), [invited("i-1", "ops", "owner")]),
    (ACME, invite(ADAM, "member", Seats(5)), [invited("i-1", "adam")]),
    (INVITING, Withdraw(ALMA, "i-adam"), [withdrawn("i-adam")]),
    (INVITING, Withdraw(OLGA, "i-olga"), [withdrawn("i-olga")]),
    (INVITING, accept(), [MemberJoined(user_id="eve", role="member", invitation_id="i-adam")]),
    (INVITING, accept(seats=Seats(5)), [MemberJoined(user_id="eve", role="member", invitation_id="i-adam")]),
    (ACME, ChangeRole(ADAM, "max", "admin"), [role_of("max", "admin")]),
    (ACME, ChangeRole(ADAM, "alma", "member"), [role_of("alma", "member")]),
    (ACME, ChangeRole(ADAM, "alma", "admin"), []),
    (ACME, ChangeRole(OLGA, "max", "owner"), [role_of("max", "owner")]),
    (TWO_OWNERS, ChangeRole(OLGA, "olga", "member"), [role_of("olga", "member")]),
    (TWO_OWNERS, ChangeRole(OPERATOR, "zoe", "admin"), [role_of("zoe", "admin")]),
    (ACME, TransferOwnership(OLGA, "max"), [role_of("max", "owner"), role_of("olga", "admin")]),
    (ACME, TransferOwnership(OPERATOR, "max"), [role_of("max", "owner")]),
    (ACME, Remove(ADAM, "max"), [gone("max")]),
    (ACME, Remove(ADAM, "alma"), [gone("alma")]),
    (ACME, Remove(MAX, "max"), [gone("max")]),
    (TWO_OWNERS, Remove(OLGA, "zoe"), [gone("zoe")]),
    (TWO_OWNERS, Remove(OPERATOR, "zoe"), [gone("zoe")]),
    (ACME, Leave("max"), [gone("max")]),
    (TWO_OWNERS, Leave("olga"), [gone("olga")]),
    (ALONE, Leave("olga", closing_if_alone=True), [OrganizationDeleted()]),
    (TWO_OWNERS, Leave("olga", closing_if_alone=True), [gone("olga")]),
    (ACME, Delete(OLGA, "acme"), [OrganizationDeleted()]),
    (ACME, Delete(OPERATOR, "acme"), [OrganizationDeleted()]),
]

REFUSED: Sequence[tuple[Organization, Command, type[commands.Refused], str]] = [
    (ACME, Create("eve", "Acme", "acme"), commands.AlreadyExists, "another id"),
    (DELETED, Create("eve", "Acme", "acme"), commands.AlreadyExists, "another id"),
    (ACME, Rename(MAX, "Ace"), commands.NotAllowed, "Only an owner or admin of the organization may rename it"),
    (ACME, invite(MAX, "member"), commands.NotAllowed, "you are a member of it"),
    (ACME, invite(ADAM, "owner"), commands.NotAllowed, "You are an admin"),
    (ACME, invite(ADAM, "member", None), commands.SeatsUnknown, "try again"),
    (ACME, invite(ADAM, "member", Seats(4)), commands.NoSeatLeft, "has 4"),
    (ACME, invite(OPERATOR, "member", Seats(0)), commands.NoSeatLeft, "larger plan"),
    (INVITING, Withdraw(MAX, "i-adam"), commands.NotAllowed, "withdraw invitations"),
    (INVITING, Withdraw(ADAM, "i-olga"), commands.NotAllowed, "Only an owner"),
    (INVITING, Withdraw(ADAM, "i-none"), commands.NoSuchInvitation, "the list of invitations"),
    (INVITING, accept("max"), commands.AlreadyMember, "already"),
    (INVITING, accept(invitation_id="i-none"), commands.InvitationOver, "ask for a new one"),
    (INVITING, accept(seats=None), commands.SeatsUnknown, "try again"),
    (INVITING, accept(seats=Seats(4)), commands.NoSeatLeft, "No seat is left"),
    (INVITING, accept(seats=Seats(1)), commands.NoSeatLeft, "has 1"),
    (ACME, ChangeRole(MAX, "max", "admin"), commands.NotAllowed, "change roles"),
    (ACME, ChangeRole(ADAM, "max", "owner"), commands.NotAllowed, "Only an owner"),
    (ACME, ChangeRole(ADAM, "adam", "owner"), commands.NotAllowed, "Only an owner"),
    (TWO_OWNERS, ChangeRole(ADAM, "zoe", "admin"), commands.NotAllowed, "Only an owner"),
    (ACME, ChangeRole(ADAM, "eve", "admin"), commands.NotAMember, "no member"),
    (ACME, ChangeRole(OLGA, "olga", "admin"), commands.LastOwner, "transfer it"),
    (ACME, ChangeRole(OPERATOR, "olga", "member"), commands.LastOwner, "acme"),
    (ACME, TransferOwnership(ADAM, "adam"), commands.NotAllowed, "Only an owner"),
    (ACME, TransferOwnership(OLGA, "eve"), commands.NotAMember, "no member"),
    (ACME, TransferOwnership(OLGA, "olga"), commands.AlreadyOwner, "your own role"),
    (TWO_OWNERS, TransferOwnership(OLGA, "zoe"), commands.AlreadyOwner, "an owner already"),
    (ACME, Remove(MAX, "adam"), commands.NotAllowed, "remove members"),
    (TWO_OWNERS, Remove(ADAM, "zoe"), commands.NotAllowed, "Only an owner"),
    (ACME, Remove(ADAM, "eve"), commands.NotAMember, "no member"),
    (ACME, Remove(OLGA, "olga"), commands.LastOwner, "delete it"),
    (ACME, Remove(OPERATOR, "olga"), commands.LastOwner, "without an owner"),
    (ACME, Remove(OPERATOR, "ops"), commands.NotAMember, "no member"),
    (ACME, Leave("olga"), commands.LastOwner, "acme"),
    (ALONE, Leave("olga"), commands.LastOwner, "acme"),
    (ACME, Leave("olga", closing_if_alone=True), commands.LastOwner, "acme"),
    (ACME, Leave("eve"), commands.Stranger, "not a member"),
    (ACME, Leave("ops"), commands.Stranger, "not a member"),
    (ACME, Delete(ADAM, "acme"), commands.NotAllowed, "Only an owner"),
    (ACME, Delete(ADAM, "wrong"), commands.NotAllowed, "Only an owner"),
    (ACME, Delete(OLGA, "acne"), commands.WrongSlug, "slug"),
    (ACME, Delete(OPERATOR, ""), commands.WrongSlug, "slug"),
]


@pytest.mark.parametrize(("state", "command", "events"), ALLOWED, ids=str)
def test_allowed(state: Organization, command: Command, events: Sequence[DomainEvent]):
    assert list(decide(state, command, NOW)) == list(events)


@pytest.mark.parametrize(("state", "command", "refusal", "words"), REFUSED, ids=str)
def test_refused(state: Organization, command: Command, refusal: type[commands.Refused], words: str):
    with pytest.raises(refusal, match=words):
        decide(state, command, NOW)


BY_SOMEBODY = [
    lambda by: Rename(by, "Ace"),
    lambda by: invite(by, "member"),
    lambda by: Withdraw(by, "i-adam"),
    lambda by: ChangeRole(by, "max", "admin"),
    lambda by: TransferOwnership(by, "max"),
    lambda by: Remove(by, "max"),
    lambda by: Remove(by, by.user_id),
    lambda by: Delete(by, "acme"),
]


@pytest.mark.parametrize("ask", BY_SOMEBODY)
def test_a_stranger_hears_the_same_whether_there_is_an_organization_or_not(ask):
    said = set()
    for state, by in ((INVITING, EVE), (Organization(), EVE), (DELETED, EVE), (DELETED, OLGA)):
        with pytest.raises(commands.Stranger) as refused:
            decide(state, ask(by), NOW)
        said.add(str(refused.value))
    assert len(said) == 1
    for state in (Organization(), DELETED):
        with pytest.raises(commands.NoSuchOrganization):
            decide(state, ask(OPERATOR), NOW)


def test_nobody_joins_or_leaves_what_is_deleted():
    deleted = given(OrganizationDeleted(), state=INVITING)
    assert (deleted.exists, deleted.members, deleted.invitations) == (False, {}, {})
    with pytest.raises(commands.InvitationOver):
        decide(deleted, accept(), NOW)
    with pytest.raises(commands.Stranger):
        decide(deleted, Leave("olga"), NOW)


def test_an_invitation_admits_once_and_until_it_expires():
    with pytest.raises(commands.InvitationOver):
        decide(INVITING, accept(), SOON)
    assert decide(INVITING, accept(), SOON - timedelta(microseconds=1))
    for ended in (*decide(INVITING, accept(), NOW), withdrawn("i-adam")):
        with pytest.raises(commands.InvitationOver):
            decide(given(ended, state=INVITING), accept("kim"), NOW)


def test_who_left_may_join_again_with_the_role_of_the_new_invitation():
    back = given(gone("adam"), state=INVITING)
    (event,) = decide(back, Accept("adam", "i-olga", MANY), NOW)
    assert given(event, state=back).members["adam"] == "owner"


def test_a_plan_that_shrinks_leaves_members_where_they_are():
    (event,) = decide(INVITING, Remove(OLGA, "max"), NOW)
    fewer = given(event, state=INVITING)
    assert set(fewer.members) == {"olga", "adam", "alma"}
    with pytest.raises(commands.NoSeatLeft):
        decide(fewer, accept(seats=Seats(2)), NOW)


@pytest.mark.parametrize(
    ("command", "fallen"),
    [
        (Remove(OLGA, "adam"), ["i-adam", "i-high"]),
        (Leave("adam"), ["i-adam", "i-high"]),
        (ChangeRole(OLGA, "adam", "member"), ["i-adam", "i-high"]),
        (ChangeRole(OLGA, "adam", "owner"), []),
        (TransferOwnership(OLGA, "max"), ["i-olga"]),
        (Remove(OLGA, "max"), []),
    ],
    ids=str,
)
def test_invitations_fall_with_the_right_of_whoever_made_them(command: Command, fallen: list[str]):
    state = given(invited("i-high", "adam", "admin"), invited("i-low", "olga", "admin"), state=INVITING)
    events = decide(state, command, NOW)
    assert [one.invitation_id for one in events if isinstance(one, InvitationWithdrawn)] == fallen
    assert not [one for one in decide(state, command, SOON) if isinstance(one, InvitationWithdrawn)]


def test_the_last_owner_is_told_which_organization_it_is_about():
    with pytest.raises(commands.LastOwner) as refused:
        decide(ACME, Leave("olga"), NOW)
    assert refused.value.slug == "acme"
