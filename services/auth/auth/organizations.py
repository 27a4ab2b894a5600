"""What is done to organizations: decide, append, project, and end the access that is no longer due.

Rows are held in one order by everybody: organizations by their ids, then people, then the rest.
"""

import secrets
from collections.abc import Sequence

import asyncpg

from aragora.billing.models import generate_slug
from aragora.chassis import store
from aragora.chassis.sql import Connection
from aragora.chassis.store import VersionConflict
from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events import MemberRemoved, OrganizationDeleted, Role, RoleChanged
from aragora.contracts.ids import new_id
from auth import commands, domain, keys, projections
from auth.acts import Act
from auth.commands import AccountErased, Command, LastOwner, Seats, SlugTaken
from auth.domain import Organization
from auth.projections import queries
from auth.revocations import end_tokens_for

STREAM = "organization"
"""The stream of an organization's people."""
NEUTRAL_NAME = "My organization"
"""Of one that nobody named. The name of its owner would be personal, and an event keeps it for ever."""
SLUG_TRIES = 3
MAX_STEM_LENGTH = 54
"""Of a slug that gets a random end; with it, it has at most 63 characters."""


async def execute(act: Act, org_id: str, command: Command) -> Organization:
    """Do what is asked, and all that follows from it; returns the organization after it.

    Raises:
        Refused: undo the act.
        VersionConflict: somebody appended to the stream without holding the organization; undo the act.
    """
    connection = act.connection
    await connection.fetchval(queries.hold_organization, org_id)
    act.now = act.clock()  # Whoever had it before was earlier.
    await _demand_account(connection, command)
    state, recorded = await store.decide_and_append(
        connection,
        STREAM,
        lambda state: domain.decide(state, command, act.now),
        domain.evolve,
        Organization(),
        org_id=org_id,
        occurred_at=act.now,
    )
    events = [each.event for each in recorded]
    if events:
        concerned = await _concerned(connection, org_id, events)
        await _project(act, org_id, events)
        await _end_access(act, org_id, events, concerned)
        await _note(act, org_id, command)
    return state


async def create(act: Act, owner_id: str, name: str | None, slug: str | None = None) -> str:
    """Found an organization; returns its id. Without a slug it gets one from its name, with a random end if needed.

    Raises:
        SlugTaken, AccountErased: undo the act.
    """
    org_id, named = str(new_id()), name or NEUTRAL_NAME
    if slug is not None:
        await execute(act, org_id, commands.Create(owner_id, named, slug))
        return org_id
    stem = generate_slug(named)
    slugs = [stem] if name else []
    slugs += [f"{stem[:MAX_STEM_LENGTH].rstrip('-')}-{secrets.token_hex(4)}" for _ in range(SLUG_TRIES)]
    for tried in slugs:
        try:
            async with act.connection.transaction():
                await execute(act, org_id, commands.Create(owner_id, named, tried))
        except SlugTaken:
            continue
        return org_id
    raise SlugTaken("No free slug was found for this name; send one of your own.")


async def leave_all(act: Act, user_id: str) -> tuple[str, ...]:
    """Have a person who is to be erased leave every organization; where nobody else is, it is deleted.

    Returns all that they ever belonged to. Call it before anything else in the act that holds people's rows.

    Raises:
        LastOwner: some have other members, and no other owner; undo the act.
        VersionConflict: meanwhile the person joined another one; undo the act, and try again.
    """
    connection = act.connection
    ever = await connection.fetch(queries.memberships_ever, user_id)
    for row in ever:
        await connection.fetchval(queries.hold_organization, row["org_id"])
    await connection.fetchval(queries.hold_person, user_id)
    if await connection.fetch(queries.memberships_ever, user_id) != ever:
        raise VersionConflict("the person's organizations change just now: roll back and do it again")
    owned = []
    for row in ever:
        if row["is_present"]:
            try:
                await execute(act, row["org_id"], commands.Leave(user_id, closing_if_alone=True))
            except LastOwner as error:
                owned.append(error.slug)
    if owned:
        slugs = ", ".join(owned)
        message = (
            f"Others would be left without an owner in {slugs}: transfer each to one of them, or delete it, first."
        )
        raise LastOwner(message, slugs)
    return tuple(row["org_id"] for row in ever)


async def find(connection: Connection, org: str) -> str | None:
    """The id of an organization that is named by its id or by its slug. None: there is none, or it was deleted."""
    found: str | None = await connection.fetchval(queries.find_organization, org)
    return found


async def membership_of(connection: Connection, user_id: str, org_id: str) -> Role | None:
    """The person's role in the organization. None: they are no member."""
    role: Role | None = await connection.fetchval(queries.role_of, org_id, user_id)
    return role


async def first_organization(connection: Connection, user_id: str) -> tuple[str, Role] | None:
    """The organization that the person has belonged to for longest, and their role in it. None: they belong to none."""
    row = await connection.fetchrow(queries.first_membership, user_id)
    return (row["org_id"], row["role"]) if row else None


async def seats_of(connection: Connection, org_id: str) -> Seats | None:
    """What billing says of the organization's seats. None: nothing yet."""
    row = await connection.fetchrow(queries.seats_of, org_id)
    return Seats(row["seats"]) if row else None


async def _demand_account(connection: Connection, command: Command) -> None:
    """Keep the account of whoever is to belong from being erased meanwhile."""
    match command:
        case commands.Create(owner_id=user_id) | commands.Accept(user_id=user_id):
            if not await connection.fetchval(queries.hold_person, user_id):
                raise AccountErased("This account is no more; register again.")


async def _concerned(connection: Connection, org_id: str, events: Sequence[DomainEvent]) -> list[str]:
    """Whose tokens for the organization say something that is so no longer; in the order in which people are held."""
    if any(isinstance(event, OrganizationDeleted) for event in events):
        return sorted(row["user_id"] for row in await connection.fetch(queries.members_of, org_id))
    return sorted(event.user_id for event in events if isinstance(event, MemberRemoved | RoleChanged))


async def _project(act: Act, org_id: str, events: Sequence[DomainEvent]) -> None:
    try:
        for event in events:
            for statement, arguments in projections.statements(org_id, event, act.now):
                await act.connection.execute(statement, *arguments)
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "organizations_slug_key":
            raise
        raise SlugTaken("Another organization has this slug, or had it once; choose another.") from error


async def _end_access(act: Act, org_id: str, events: Sequence[DomainEvent], concerned: Sequence[str]) -> None:
    for user_id in concerned:
        await end_tokens_for(act, user_id, org_id, "membership_changed")
    for event in events:
        match event:
            case MemberRemoved():
                await keys.revoke_all(act, org_id=org_id, user_id=event.user_id, reason="member_removed")
            case OrganizationDeleted():
                await keys.revoke_all(act, org_id=org_id, reason="organization_deleted")


async def _note(act: Act, org_id: str, command: Command) -> None:
    match command:
        case commands.Create():
            await act.note("organization_created", org_id=org_id, user_id=command.owner_id)
        case commands.Rename():
            await act.note("organization_renamed", org_id=org_id)
        case commands.Invite():
            letter = command.invitation_id
            await act.note("member_invited", org_id=org_id, invitation_id=letter, role=command.role)
        case commands.Withdraw():
            await act.note("invitation_withdrawn", org_id=org_id, invitation_id=command.invitation_id)
        case commands.Accept():
            letter = command.invitation_id
            await act.note("member_joined", org_id=org_id, user_id=command.user_id, invitation_id=letter)
        case commands.ChangeRole():
            await act.note("role_changed", org_id=org_id, user_id=command.user_id, role=command.role)
        case commands.TransferOwnership():
            await act.note("ownership_transferred", org_id=org_id, user_id=command.to)
        case commands.Remove():
            await act.note("member_removed", org_id=org_id, user_id=command.user_id)
        case commands.Leave():
            await act.note("member_left", org_id=org_id, user_id=command.user_id)
        case commands.Delete():
            await act.note("organization_deleted", org_id=org_id)
