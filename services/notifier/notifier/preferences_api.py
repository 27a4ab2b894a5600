"""HTTP for preferences: how one wants to be told of what, and how an organization's people are unless they say."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from aragora.chassis.answering import answer, documented
from aragora.chassis.bodies import Body, invalid
from aragora.chassis.problems import Problem, responses
from aragora.chassis.security import Principal
from notifier import answers, preferences
from notifier.bodies import OrgId
from notifier.callers import Person, administered, clock_of, pool_of
from notifier.kinds import Email
from notifier.preferences import ORGANIZATION, NotChoosable

router = APIRouter(prefix="/api/notifications", tags=["preferences"])

MAX_KINDS = 100
answers_own = documented(answers.Success[answers.Preferences], "Every kind that can be chosen")
answers_organizations = documented(answers.Success[answers.OrganizationPreferences], "Every kind that can be chosen")
readers = responses(401, 403, 422)
writers = responses(400, 401, 403, 413, 422)


class Chosen(Body):
    """How to be told of a kind. null or left out: no choice."""

    email: Email | None = None
    in_app: bool | None = None


class Choices(Body):
    """By kind. What was chosen for kinds that are not named stays."""

    kinds: Annotated[dict[str, Chosen], Field(max_length=MAX_KINDS)]

    def checked(self) -> dict[str, answers.Choice]:
        """The choices, if they can be made. Otherwise a `Problem` (422) that names the kind."""
        found = {kind: answers.Choice(each.email, each.in_app) for kind, each in self.kinds.items()}
        try:
            preferences.check(found)
        except NotChoosable as error:
            raise invalid(f"kinds.{error.kind[:64]}", str(error)) from error
        return found


@router.get("/preferences", summary="How one is told of what", responses=answers_own | readers)
async def read_own(request: Request, principal: Person) -> Response:
    """Of each kind: what one chose, what the organization did, and what counts. It is for the access token's
    organization: one may choose otherwise in another.
    """
    org_id = _own_organization(principal)
    return answer(answers.Success(await preferences.read_own(pool_of(request), org_id, principal.subject)))


@router.put("/preferences", summary="Choose how to be told", responses=answers_own | writers)
async def choose_own(request: Request, principal: Person, body: Choices) -> Response:
    """For the kinds that are named. `at_once` is an e-mail each time, `digest` one a day for all there is, `off` none.

    What is essential, such as a payment that failed, comes at once whatever one chooses: that is refused.
    """
    org_id, choices = _own_organization(principal), body.checked()
    async with pool_of(request).acquire() as connection:
        await preferences.choose(connection, org_id, principal.subject, choices, clock_of(request)())
        found = await preferences.read_own(connection, org_id, principal.subject)
    return answer(answers.Success(found))


@router.get(
    "/organizations/{org_id}/preferences",
    summary="How an organization's people are told",
    responses=answers_organizations | readers,
)
async def read_of_organization(request: Request, principal: Person, org_id: OrgId) -> Response:
    """For owners and admins: what counts for those who chose nothing themselves."""
    organization = administered(principal, org_id)
    return answer(answers.Success(await preferences.read_of_organization(pool_of(request), organization)))


@router.put(
    "/organizations/{org_id}/preferences",
    summary="Choose how an organization's people are told",
    responses=answers_organizations | writers,
)
async def choose_for_organization(request: Request, principal: Person, org_id: OrgId, body: Choices) -> Response:
    """For owners and admins, for the kinds that are named. What somebody chose for themself goes before it."""
    organization, choices = administered(principal, org_id), body.checked()
    async with pool_of(request).acquire() as connection:
        await preferences.choose(connection, organization, ORGANIZATION, choices, clock_of(request)())
        found = await preferences.read_of_organization(connection, organization)
    return answer(answers.Success(found))


def _own_organization(principal: Principal) -> str:
    if principal.kind != "user":
        raise Problem(403, "Preferences are people's: ask with a person's access token.")
    if principal.org_id is None:
        raise Problem(403, "Your token belongs to no organization; switch to one.")
    return principal.org_id
