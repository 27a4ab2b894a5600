"""Whatever is asked of an organization, by whomever, in whatever order: what always holds."""

from dataclasses import replace
from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from unit.test_auth_domain import NOW

from aragora.contracts.envelope import DomainEvent, restore
from aragora.contracts.events import InvitationWithdrawn, MemberInvited, MemberJoined
from auth.commands import (
    Accept,
    Actor,
    ChangeRole,
    Command,
    Create,
    Delete,
    Invite,
    Leave,
    Refused,
    Remove,
    Rename,
    Seats,
    TransferOwnership,
    Withdraw,
)
from auth.domain import Organization, decide, evolve
from auth.projections import statements

LIFETIME = timedelta(days=7)
PEOPLE = ["ann", "bea", "cem", "dan", "eva"]
RANK = {"member": 0, "admin": 1, "owner": 2}

_PERSON = st.sampled_from(PEOPLE)
_ACTOR = st.builds(
    Actor, st.sampled_from(["ann", "ann", "bea", "bea", *PEOPLE, "ops"]), st.sampled_from([False] * 7 + [True])
)
_ROLE = st.sampled_from(["owner", "admin", "member"])
_SEATS = st.sampled_from([None, *map(Seats, (0, 2, 3, 4, 5, None))])
_ROOMY = st.sampled_from([None, *map(Seats, (0, 4, None, None, None, None, None, None))])
_LATELY = st.sampled_from(["0", "0", "0", "1", "2", "3"])
"""How many letters before the last one."""
_INVITE = st.builds(Invite, _ACTOR, st.just("the next"), _ROLE, st.just(NOW), _ROOMY)
_ACCEPT = st.builds(Accept, _PERSON, _LATELY, _SEATS)
_COMMANDS: st.SearchStrategy[Command] = st.one_of(
    _INVITE,
    _ACCEPT,
    _INVITE,
    _ACCEPT,
    st.builds(Create, _PERSON, st.just("Acme"), st.just("acme")),
    st.builds(Rename, _ACTOR, st.sampled_from([None, "Acme", "Ace"]), st.sampled_from([None, "acme", "ace"])),
    st.builds(Withdraw, _ACTOR, _LATELY),
    st.builds(ChangeRole, _ACTOR, _PERSON, _ROLE),
    st.builds(TransferOwnership, _ACTOR, _PERSON),
    st.builds(Remove, _ACTOR, _PERSON),
    st.builds(Leave, st.sampled_from(PEOPLE[2:]), st.booleans()),
    st.builds(Delete, _ACTOR, st.sampled_from(["acme", *["other"] * 7])),
)
_STEPS = st.lists(st.tuples(_COMMANDS, st.sampled_from([0, 0, 0, 1, 30, 200])), min_size=25, max_size=60)
_START: list[tuple[Command, int]] = [
    (Create("ann", "Acme", "acme"), 0),
    (Invite(Actor("ann"), "the next", "admin", NOW, Seats(None)), 0),
    (Accept("bea", "0", Seats(2)), 0),
    (Invite(Actor("bea"), "the next", "member", NOW, Seats(3)), 0),
    (Accept("cem", "0", Seats(3)), 0),
]


@given(_STEPS)
@settings(max_examples=400)
def test_what_always_holds(steps: list[tuple[Command, int]]):
    state, log, now = Organization(), list[DomainEvent](), NOW
    letters, operators_letters = 0, set[str]()
    for asked, hours in [*_START, *steps]:
        now += timedelta(hours=hours)
        command = asked
        if isinstance(asked, Invite):
            command = replace(asked, invitation_id=f"i-{letters}", expires_at=now + LIFETIME)
            letters += 1
        elif isinstance(asked, Accept | Withdraw):
            command = replace(asked, invitation_id=f"i-{letters - 1 - int(asked.invitation_id)}")
        before = state
        try:
            events = list(decide(before, command, now))
        except Refused:
            continue
        for event in events:
            if isinstance(event, MemberJoined):
                demand_due(before, event, command, log, now)
            if isinstance(event, MemberInvited) and isinstance(command, Invite) and command.by.is_operator:
                operators_letters.add(event.invitation_id)
            assert statements("org", event, now)
            state = evolve(state, event)
        log += events
        demand_right(before, state, command)
        demand_order(state, operators_letters, now)
    replayed = Organization()
    for event in log:
        replayed = evolve(replayed, restore(event.type_name, event.model_dump(mode="json")))
    assert replayed == state


def demand_due(
    before: Organization, joined: MemberJoined, command: Command, log: list[DomainEvent], now: datetime
) -> None:
    """Nobody joins but by an invitation that is good, into its role, on a free seat."""
    assert isinstance(command, Accept)
    (letter,) = [one for one in log if isinstance(one, MemberInvited) and one.invitation_id == joined.invitation_id]
    assert (letter.role, letter.expires_at > now) == (joined.role, True)
    ended = [one for one in log if isinstance(one, MemberJoined | InvitationWithdrawn)]
    assert joined.invitation_id not in [one.invitation_id for one in ended]
    assert joined.user_id not in before.members
    assert command.seats is not None
    assert command.seats.most is None or len(before.members) < command.seats.most


def demand_right(before: Organization, after: Organization, command: Command) -> None:
    """What was done, whoever did it might do."""
    if before == after or isinstance(command, Create | Accept | Leave) or command.by.is_operator:
        return
    role = before.members[command.by.user_id]
    if role == "member":
        assert command == Remove(command.by, command.by.user_id)
    if role != "owner":
        assert after.exists
        assert owners(before) == owners(after)
        made = after.invitations.keys() - before.invitations.keys()
        assert all(RANK[after.invitations[one].role] <= RANK[role] for one in made)


def demand_order(state: Organization, operators_letters: set[str], now: datetime) -> None:
    """Somebody owns it, unless it is deleted: then it has nobody. An open invitation is one that its maker may make."""
    if not state.exists:
        assert (state.members, state.invitations) == ({}, {})
        return
    assert owners(state)
    for invitation_id, invitation in state.invitations.items():
        if invitation_id not in operators_letters and invitation.expires_at > now:
            theirs = state.members[invitation.invited_by]
            assert theirs != "member"
            assert RANK[invitation.role] <= RANK[theirs]


def owners(state: Organization) -> set[str]:
    return {user_id for user_id, role in state.members.items() if role == "owner"}


@given(_STEPS)
def test_what_is_deleted_stays_so(steps: list[tuple[Command, int]]):
    state = Organization()
    beginning: list[Command] = [Create("ann", "Acme", "acme"), Delete(Actor("ann"), "acme")]
    for command in beginning:
        for event in decide(state, command, NOW):
            state = evolve(state, event)
    for command, _ in steps:
        try:
            events = decide(state, command, NOW)
        except Refused:
            continue
        assert events == []
