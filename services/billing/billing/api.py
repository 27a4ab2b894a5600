"""HTTP for everybody: what is sold, and what one has. Parse, run SQL, answer; the rules are elsewhere."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response, Security

from aragora.chassis.answering import answer, documented
from aragora.chassis.bodies import invalid
from aragora.chassis.problems import Problem, responses
from aragora.chassis.security import Principal, authenticated, organization_of, require
from aragora.chassis.sql import Connection, Pool
from billing import answers, reading, subscriptions
from billing.handlers import Clock
from billing.payments import Payments
from billing.subscriptions import queries

router = APIRouter(tags=["subscription"])
may_read = Security(require("usage.read", people=True))

OrgId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
AnyOrgId = Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Whose; absent: the caller's own")]
UserId = Annotated[str, Path(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]


def pool_of(request: Request) -> Pool:
    """The service's connections."""
    pool: Pool = request.app.state.billing_pool
    return pool


def clock_of(request: Request) -> Clock:
    """The service's clock."""
    clock: Clock = request.app.state.billing_clock
    return clock


def payments_of(request: Request) -> Payments:
    """Stripe, its prices, and how long a grace period is."""
    payments: Payments = request.app.state.billing_payments
    return payments


@router.get(
    "/api/subscription/plans",
    summary="What is sold",
    dependencies=[Security(authenticated)],
    responses=documented(answers.Success[list[answers.Plan]], "Up the ladder of tiers", money="number")
    | responses(401),
)
async def list_plans(request: Request) -> Response:
    """The plans that people may choose, in their current versions. A limit that is null or missing is unlimited."""
    async with pool_of(request).acquire() as connection:
        plans = await subscriptions.load_plans(connection)
    return answer(answers.Success([reading.plan_answer(plan) for plan in plans.listed]), money="number")


@router.get(
    "/api/subscription/user/{user_id}/subscription",
    summary="A person's plan",
    responses=documented(answers.Success[answers.Subscription], "That of the organization", money="number")
    | responses(401, 403, 404, 422),
)
async def user_subscription(
    request: Request, principal: Annotated[Principal, may_read], user_id: UserId, org_id: AnyOrgId = None
) -> Response:
    """The subscription of the person's organization: a plan belongs to an organization, not to a person."""
    async with pool_of(request).acquire() as connection:
        organization = await _organization_of_user(connection, principal, user_id, org_id)
        return await answer_subscription(request, connection, organization)


async def answer_subscription(request: Request, connection: Connection, org_id: str) -> Response:
    """An organization's subscription, as an answer. 404 if there is none."""
    row = await connection.fetchrow(queries.subscription_of, org_id)
    if row is None:
        raise Problem(404, f"The organization {org_id} has no subscription; an operator starts one with PUT.")
    plans = await subscriptions.load_plans(connection)
    return answer(answers.Success(reading.subscription(row, plans, clock_of(request)())), money="number")


async def _organization_of_user(connection: Connection, principal: Principal, user_id: str, org_id: str | None) -> str:
    if user_id != principal.subject and not principal.administers:
        raise Problem(403, "Only an owner or admin of the organization may ask for another member.")
    org = organization_of(principal, org_id)
    if org is not None:
        return org
    known: list[str] = [row["org_id"] for row in await connection.fetch(queries.organizations_of_user, user_id)]
    if not known:
        raise Problem(404, "This user is no member of any organization known here; name one with org_id.")
    if len(known) > 1:
        message = "the user is a member of several organizations; name one"
        raise invalid("org_id", message)
    return known[0]
