"""HTTP for the members of an organization: list, change a role, remove."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from aragora.chassis.answering import answer, documented
from aragora.chassis.bodies import Body
from aragora.chassis.problems import responses
from aragora.contracts.events import Role
from auth import answers, commands, organizations
from auth.callers import Person, act_of, pool_of
from auth.organization_answers import Member, refusals_told
from auth.organizations_api import Org, actor, changes, id_of, standing
from auth.projections import queries

router = APIRouter(prefix="/api/organizations/{org}/members", tags=["organizations"])

UserId = Annotated[str, Path(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]


class RoleChoice(Body):
    """What a member may do."""

    role: Role


@router.get(
    "",
    summary="Members",
    responses=documented(answers.Success[list[Member]], "In the order of joining") | responses(401, 403, 404, 422, 503),
)
async def list_members(request: Request, principal: Person, org: Org) -> Response:
    """For every member, and for operators."""
    async with pool_of(request).acquire() as connection:
        org_id, _ = await standing(connection, principal, org)
        rows = await connection.fetch(queries.members_of, org_id)
    return answer(answers.Success([Member(**row) for row in rows]))


@router.put(
    "/{user_id}/role",
    summary="Change a role",
    responses=documented(answers.Success[Member], "The member") | changes,
)
async def change_role(request: Request, principal: Person, org: Org, user_id: UserId, body: RoleChoice) -> Response:
    """Admins make members admins and admins members; owners make and unmake owners too. One owner always remains."""
    with refusals_told():
        async with act_of(request, principal) as act:
            org_id = await id_of(act.connection, org)
            await organizations.execute(act, org_id, commands.ChangeRole(actor(principal), user_id, body.role))
            (row,) = await act.connection.fetch(queries.member, org_id, user_id)
    return answer(answers.Success(Member(**row)))


@router.delete(
    "/{user_id}",
    summary="Remove a member",
    responses=documented(answers.Done, "Removed") | responses(401, 403, 404, 409, 422, 503),
)
async def remove(request: Request, principal: Person, org: Org, user_id: UserId) -> Response:
    """Ends the person's tokens and API keys for the organization. Admins remove members and admins; owners anybody."""
    with refusals_told():
        async with act_of(request, principal) as act:
            org_id = await id_of(act.connection, org)
            await organizations.execute(act, org_id, commands.Remove(actor(principal), user_id))
    return answer(answers.Done(message="The member is removed"))
