"""HTTP for invitations: invite, list, withdraw, accept."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import Field

from aragora.chassis.answering import answer, documented
from aragora.chassis.bodies import Body
from aragora.chassis.problems import Problem, responses
from aragora.contracts.events import Role
from auth import answers, commands, invitations, organizations, users
from auth.bodies import Email, normalized
from auth.callers import Person, act_of, clock_of, pool_of, sealer_of
from auth.messages import MAX_TOKEN_LENGTH
from auth.organization_answers import Invitation, Organization, refusals_told
from auth.organizations_api import Org, actor, answer_organization, changes, id_of, standing
from auth.projections import queries

router = APIRouter(tags=["organizations"])
PATH = "/api/organizations/{org}/invitations"

InvitationId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class InvitationLetter(Body):
    """Whom to invite, and as what."""

    email: Email
    role: Role = "member"


class Acceptance(Body):
    """The secret of the letter."""

    token: Annotated[str, Field(min_length=1, max_length=MAX_TOKEN_LENGTH)]


@router.post(
    PATH,
    status_code=201,
    summary="Invite",
    responses=documented(answers.Success[Invitation], "The invitation; a letter is on its way", status=201) | changes,
)
async def invite(request: Request, principal: Person, org: Org, body: InvitationLetter) -> Response:
    """For owners and admins, into roles up to their own. Needs a free seat; whoever accepts first, takes it."""
    email = normalized(body.email)
    with refusals_told():
        async with act_of(request, principal) as act:
            org_id = await id_of(act.connection, org)
            invitation_id = await invitations.invite(act, org_id, actor(principal), email, body.role)
            (row,) = await act.connection.fetch(queries.invitation, org_id, invitation_id)
    return answer(answers.Success(Invitation(**row)), status=201)


@router.get(
    PATH,
    summary="Open invitations",
    responses=documented(answers.Success[list[Invitation]], "The oldest first") | responses(401, 403, 404, 422, 503),
)
async def list_invitations(request: Request, principal: Person, org: Org) -> Response:
    """For owners and admins. Those accepted, withdrawn or expired are not among them."""
    async with pool_of(request).acquire() as connection:
        org_id, role = await standing(connection, principal, org)
        if role not in ("owner", "admin") and not principal.reaches_all:
            raise Problem(403, "Only an owner or admin of the organization may see whom it invites.")
        rows = await connection.fetch(queries.open_invitations, org_id, clock_of(request)())
    return answer(answers.Success([Invitation(**row) for row in rows]))


@router.delete(
    PATH + "/{invitation_id}",
    summary="Withdraw an invitation",
    responses=documented(answers.Done, "Withdrawn") | responses(401, 403, 404, 409, 422, 503),
)
async def withdraw(request: Request, principal: Person, org: Org, invitation_id: InvitationId) -> Response:
    """For owners, and for admins if it is not to make an owner. Its letter is worth nothing from then on."""
    with refusals_told():
        async with act_of(request, principal) as act:
            org_id = await id_of(act.connection, org)
            await organizations.execute(act, org_id, commands.Withdraw(actor(principal), invitation_id))
    return answer(answers.Done(message="The invitation is withdrawn"))


@router.post(
    "/api/invitations/accept",
    summary="Accept an invitation",
    responses=documented(answers.Success[Organization], "The organization that one belongs to now")
    | responses(400, 401, 403, 409, 422, 503),
)
async def accept(request: Request, principal: Person, body: Acceptance) -> Response:
    """With the secret of the letter, by the account that has its address. To act for the organization, switch to it."""
    with refusals_told():
        async with act_of(request, principal) as act:
            user = await users.load(act.connection, principal.subject)
            org_id = await invitations.accept(act, sealer_of(request), body.token, user.user_id, user.email)
            return await answer_organization(act.connection, principal, org_id)
