"""HTTP for an organization's owners and for operators: start, change, cancel, resume, trial, comp, move."""

from typing import Annotated

from fastapi import APIRouter, Request, Response, Security
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from aragora.chassis.answering import documented
from aragora.chassis.problems import Problem, responses
from aragora.chassis.security import Principal, authorize_org, require
from aragora.contracts.keys import OPERATOR
from billing import answers, commands, paid_changes, subscriptions
from billing.api import OrgId, answer_subscription, clock_of, payments_of, pool_of
from billing.catalog_rules import MAX_TRIAL_DAYS
from billing.commands import Command
from billing.paid_changes import Choice
from billing.refusals import as_problems

router = APIRouter(prefix="/api/subscription/organizations/{org_id}/subscription", tags=["subscription"])
Person = Annotated[Principal, Security(require(OPERATOR, people=True))]
is_operator = Security(require(OPERATOR))

PlanId = Annotated[str, Field(min_length=1, max_length=63, description="As /api/subscription/plans names it")]
AtPeriodEnd = Annotated[bool, Field(description="At the end of the billing period, trial or comp; else at once")]

answers_subscription = documented(answers.Success[answers.Subscription], "The subscription", money="number")
refused = responses(400, 401, 403, 404, 409, 422)
refused_by_stripe = responses(402, 503) | refused


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class PlanChoice(_Body):
    """Which plan."""

    plan: PlanId


class PlanChange(PlanChoice):
    """Which plan, and when."""

    at_period_end: AtPeriodEnd = False


class Cancellation(_Body):
    """When the plan ends."""

    at_period_end: AtPeriodEnd = True


class TrialChoice(PlanChoice):
    """Which plan, and for how many days: as many as the plan says, if null."""

    days: Annotated[int, Field(ge=1, le=MAX_TRIAL_DAYS)] | None = None


class CompChoice(PlanChoice):
    """Which plan, and until when: until further notice, if null."""

    until: Annotated[AwareDatetime, Field(strict=False)] | None = None


@router.get("", summary="An organization's plan", responses=answers_subscription | responses(401, 403, 404, 422))
async def read_subscription(request: Request, principal: Person, org_id: OrgId) -> Response:
    """For the organization's people, and for operators."""
    authorize_org(principal, org_id)
    async with pool_of(request).acquire() as connection:
        return await answer_subscription(request, connection, org_id)


@router.put("", summary="Give a plan", dependencies=[is_operator], responses=answers_subscription | refused)
async def assign(request: Request, org_id: OrgId, body: PlanChoice) -> Response:
    """Gives the organization this plan now, from whatever it had; one that is not known yet is enrolled by it.

    The same request again changes nothing. For operators: nothing is charged.
    """
    return await _execute(request, org_id, commands.Assign(body.plan))


@router.post("/change", summary="Change the plan", responses=answers_subscription | refused_by_stripe)
async def change(request: Request, principal: Person, org_id: OrgId, body: PlanChange) -> Response:
    """Another plan, at once or at the end of the period. An owner or admin may choose a listed plan that costs nothing:
    a paid one begins with a checkout (402). An operator may choose any.

    Who pays through Stripe already may choose any that is sold. A higher one begins when the difference is paid (402 if
    it is not), a lower one at once, with a credit for what is left of the period.
    """
    _may_decide(principal, org_id)
    by_operator = OPERATOR in principal.scopes
    reference = await _paid_by(request, org_id)
    if reference is None:
        return await _execute(request, org_id, commands.Change(body.plan, body.at_period_end, by_operator))
    choice = Choice(body.plan, body.at_period_end, by_operator)
    with as_problems():
        async with pool_of(request).acquire() as connection:
            known = await subscriptions.load_plans(connection)
        await paid_changes.change(payments_of(request), reference, org_id, choice, known, clock_of(request)())
    return await _answer(request, org_id)


@router.post("/cancel", summary="Cancel", responses=answers_subscription | refused_by_stripe)
async def cancel(request: Request, principal: Person, org_id: OrgId, body: Cancellation | None = None) -> Response:
    """Ends the plan, at the end of the period unless told otherwise. The default plan follows.

    Nothing is given back for what is left of a period that was paid for.
    """
    _may_decide(principal, org_id)
    at_period_end = (body or Cancellation()).at_period_end
    reference = await _paid_by(request, org_id)
    if reference is None:
        return await _execute(request, org_id, commands.Cancel(at_period_end))
    with as_problems():
        now = clock_of(request)()
        await paid_changes.cancel(payments_of(request), reference, org_id, now, at_period_end=at_period_end)
    return await _answer(request, org_id)


@router.post("/resume", summary="Resume", responses=answers_subscription | refused_by_stripe)
async def resume(request: Request, principal: Person, org_id: OrgId) -> Response:
    """Takes back a cancellation, or a change at the end of the period, that has not taken effect yet."""
    _may_decide(principal, org_id)
    reference = await _paid_by(request, org_id)
    if reference is None:
        return await _execute(request, org_id, commands.Resume())
    with as_problems():
        await paid_changes.resume(payments_of(request), reference, org_id, clock_of(request)())
    return await _answer(request, org_id)


@router.post("/trial", summary="Give a trial", dependencies=[is_operator], responses=answers_subscription | refused)
async def trial(request: Request, org_id: OrgId, body: TrialChoice) -> Response:
    """A plan to try for some days; afterwards what the organization had before. Given again, it begins again."""
    return await _execute(request, org_id, commands.Trial(body.plan, body.days))


@router.post("/comp", summary="Comp", dependencies=[is_operator], responses=answers_subscription | refused)
async def comp(request: Request, org_id: OrgId, body: CompChoice) -> Response:
    """A plan free of charge, until a moment (afterwards what the organization had before) or until further notice."""
    return await _execute(request, org_id, commands.Comp(body.plan, body.until))


@router.post("/move", summary="Move version", dependencies=[is_operator], responses=answers_subscription | refused)
async def move(request: Request, org_id: OrgId) -> Response:
    """Moves the organization from the version of its plan that it was sold to the current one."""
    return await _execute(request, org_id, commands.Move())


def _may_decide(principal: Principal, org_id: str) -> None:
    authorize_org(principal, org_id)
    if not principal.administers:
        raise Problem(403, "Only an owner or admin of the organization may decide on its plan.")


async def _paid_by(request: Request, org_id: str) -> str | None:
    """Stripe's subscription that pays for the plan."""
    row = await pool_of(request).fetchrow(subscriptions.queries.subscription_of, org_id)
    return row["payment_reference"] if row else None


async def _answer(request: Request, org_id: str) -> Response:
    async with pool_of(request).acquire() as connection:
        return await answer_subscription(request, connection, org_id)


async def _execute(request: Request, org_id: str, command: Command) -> Response:
    async with pool_of(request).acquire() as connection:
        known = await subscriptions.load_plans(connection)
        now = clock_of(request)()
        with as_problems():
            await subscriptions.execute(connection, org_id, command, known, now=now)
        return await answer_subscription(request, connection, org_id)
