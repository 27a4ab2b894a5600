"""HTTP for organizations: found, list, read, rename, transfer, leave, delete."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import Field

from aragora.chassis.answering import answer, documented
from aragora.chassis.bodies import Body
from aragora.chassis.problems import Problem, responses
from aragora.chassis.security import Principal
from aragora.chassis.sql import Connection
from aragora.contracts.events import Role
from auth import answers, commands, organization_answers, organizations
from auth.callers import Person, act_of, pool_of
from auth.commands import Actor, NoSuchOrganization, Stranger
from auth.domain import STRANGER
from auth.organization_answers import Organization, OrganizationName, refusals_told
from auth.projections import queries

router = APIRouter(prefix="/api/organizations", tags=["organizations"])

Org = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="The organization's id or slug")]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=63)]
UserId = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]

answers_organization = documented(answers.Success[Organization], "The organization")
changes = responses(400, 401, 403, 404, 409, 422, 503)
"""What may be said to a change, if it has a body."""


class Founding(Body):
    """A new organization. Without a slug it gets one made from its name."""

    name: OrganizationName
    slug: Slug | None = None


class Renaming(Body):
    """What is to be another. What is missing or null stays."""

    name: OrganizationName | None = None
    slug: Slug | None = None


class Transfer(Body):
    """Who is to be an owner."""

    user_id: UserId


class Deletion(Body):
    """The organization's slug, to show that this one is meant."""

    slug: Annotated[str, Field(max_length=64)]


@router.post(
    "",
    status_code=201,
    summary="Found an organization",
    responses=documented(answers.Success[Organization], "The organization", status=201)
    | responses(400, 401, 403, 409, 422, 503),
)
async def found(request: Request, principal: Person, body: Founding) -> Response:
    """For anybody who is signed in, who becomes its owner. To act for it, switch to it."""
    with refusals_told():
        async with act_of(request, principal) as act:
            org_id = await organizations.create(act, principal.subject, body.name, body.slug)
            return await answer_organization(act.connection, principal, org_id, status=201)


@router.get(
    "",
    summary="My organizations",
    responses=documented(answers.Success[list[Organization]], "In the order of joining") | responses(401, 403, 503),
)
async def list_mine(request: Request, principal: Person) -> Response:
    """All that one belongs to, with one's role in each."""
    async with pool_of(request).acquire() as connection:
        rows = await connection.fetch(queries.organizations_for, principal.subject)
    return answer(answers.Success([organization_answers.organization(row) for row in rows]))


@router.get("/{org}", summary="An organization", responses=answers_organization | responses(401, 403, 404, 422, 503))
async def read(request: Request, principal: Person, org: Org) -> Response:
    """For its members, and for operators."""
    async with pool_of(request).acquire() as connection:
        org_id, _ = await standing(connection, principal, org)
        return await answer_organization(connection, principal, org_id)


@router.patch("/{org}", summary="Rename", responses=answers_organization | changes)
async def rename(request: Request, principal: Person, org: Org, body: Renaming) -> Response:
    """For owners and admins. The former slug leads nowhere from then on."""
    with refusals_told():
        async with act_of(request, principal) as act:
            org_id = await id_of(act.connection, org)
            await organizations.execute(act, org_id, commands.Rename(actor(principal), body.name, body.slug))
            return await answer_organization(act.connection, principal, org_id)


@router.post("/{org}/transfer", summary="Transfer ownership", responses=answers_organization | changes)
async def transfer(request: Request, principal: Person, org: Org, body: Transfer) -> Response:
    """Makes another member an owner, and the owner who asks an admin."""
    with refusals_told():
        async with act_of(request, principal) as act:
            org_id = await id_of(act.connection, org)
            await organizations.execute(act, org_id, commands.TransferOwnership(actor(principal), body.user_id))
            return await answer_organization(act.connection, principal, org_id)


@router.post(
    "/{org}/leave",
    summary="Leave",
    responses=documented(answers.Done, "Left") | responses(401, 403, 409, 422, 503),
)
async def leave(request: Request, principal: Person, org: Org) -> Response:
    """Ends one's tokens and API keys for the organization. Its last owner transfers or deletes it first."""
    with refusals_told():
        async with act_of(request, principal) as act:
            org_id = await id_of(act.connection, org)
            await organizations.execute(act, org_id, commands.Leave(principal.subject))
    return answer(answers.Done(message="You have left the organization"))


@router.delete("/{org}", summary="Delete an organization", responses=documented(answers.Done, "Deleted") | changes)
async def delete(request: Request, principal: Person, org: Org, body: Deletion) -> Response:
    """For owners, and for ever: nobody acts for it any more, nobody gets its slug. What was used and paid is kept."""
    with refusals_told():
        async with act_of(request, principal) as act:
            org_id = await id_of(act.connection, org)
            await organizations.execute(act, org_id, commands.Delete(actor(principal), body.slug))
    return answer(answers.Done(message="The organization is deleted"))


def actor(principal: Principal) -> Actor:
    """Who asks, as organizations know them: by the person, and not by the role that an older token may say."""
    return Actor(principal.subject, principal.reaches_all)


async def id_of(connection: Connection, org: str) -> str:
    """The organization's id. Where there is none, what was asked for: nobody is a member of that."""
    return await organizations.find(connection, org) or org


async def standing(connection: Connection, principal: Principal, org: str) -> tuple[str, Role | None]:
    """The organization's id, and the caller's role in it: None for an operator who is no member.

    Raises:
        Problem: 403, the caller is no member, or there is none; 404, an operator asks for one that there is not.
    """
    with refusals_told():
        org_id = await organizations.find(connection, org)
        role = await organizations.membership_of(connection, principal.subject, org_id or org)
        if org_id is None and principal.reaches_all:
            raise NoSuchOrganization("There is no such organization.")
        if org_id is None or (role is None and not principal.reaches_all):
            raise Stranger(STRANGER)
        return org_id, role


async def answer_organization(
    connection: Connection, principal: Principal, org_id: str, *, status: int = 200
) -> Response:
    """The organization as the caller sees it."""
    row = await connection.fetchrow(queries.organization_for, org_id, principal.subject)
    if row is None:
        raise Problem(404, "There is no such organization.")
    return answer(answers.Success(organization_answers.organization(row)), status=status)
