"""Invitations: a letter to an address, and joining with the secret in it."""

from aragora.chassis.sealing import Sealer
from aragora.contracts.events import Role
from auth import messages
from auth.acts import Act
from auth.commands import Accept, Actor, AlreadyInvited, AlreadyMember, Invite, WrongAddress
from auth.organization_answers import refusals_told
from auth.organizations import execute, seats_of
from auth.projections import queries


async def invite(act: Act, org_id: str, by: Actor, email: str, role: Role) -> str:
    """Invite whoever has this address, which is normalized; returns the invitation's id.

    Raises:
        Refused: undo the act.
    """
    connection = act.connection
    invitation_id, expires_at = await messages.write(act, "invitation", email, org_id=org_id)
    seats = await seats_of(connection, org_id)
    await execute(act, org_id, Invite(by, invitation_id, role, expires_at, seats))
    # Only whoever may invite learns whether the address is known to the organization.
    if await connection.fetchval(queries.is_members_address, org_id, email):
        raise AlreadyMember("Whoever has this address is a member already.")
    if await connection.fetchval(queries.is_invited, org_id, email, invitation_id, act.now):
        raise AlreadyInvited("This address has an open invitation; withdraw it first to send another.")
    return invitation_id


async def accept(act: Act, sealer: Sealer, token: str, user_id: str, email: str) -> str:
    """Join the organization that the letter with this secret is from; returns its id. `email` is the account's.

    Raises:
        InvalidMessageToken: the secret is not one of ours, or was used, or has expired.
        Refused: undo the act; the secret is as good as before.
    """
    connection = act.connection
    letter = await messages.read(connection, sealer, "invitation", token, act.now)
    if letter["email"] != email:
        raise WrongAddress("This invitation is for another address: sign in with the account that has it.")
    org_id: str = letter["org_id"]
    # The organization before the letter, as whoever withdraws an invitation holds them.
    await connection.fetchval(queries.hold_organization, org_id)
    await messages.redeem(connection, sealer, "invitation", token, act.clock())
    seats = await seats_of(connection, org_id)
    await execute(act, org_id, Accept(user_id, letter["message_id"], seats))
    return org_id


async def accept_or_refuse(act: Act, sealer: Sealer, token: str, user_id: str, email: str) -> str:
    """The same, for whoever registers with an invitation.

    Raises:
        Problem: what was refused, told as by the routes.
    """
    with refusals_told("invitation"):
        return await accept(act, sealer, token, user_id, email)
