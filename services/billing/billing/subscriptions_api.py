"""HTTP for an organization's owners and for operators: start, change, cancel, resume, trial, comp, move."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated

import structlog
from fastapi import APIRouter, Request, Response, Security
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from aragora.chassis.answering import documented
from aragora.chassis.problems import Problem, responses
from aragora.chassis.security import Principal, authorize_org, require
from aragora.chassis.store import VersionConflict
from aragora.contracts.keys import OPERATOR
from billing import answers, commands, subscriptions
from billing.api import OrgId, answer_subscription, clock_of, pool_of
from billing.catalog_rules import MAX_TRIAL_DAYS
from billing.commands import Command, InvalidPeriod, Refused
from billing.plans import UnknownPlan

router = APIRouter(prefix="/api/subscription/organizations/{org_id}/subscription", tags=["subscription"])
Person = Annotated[Principal, Security(require(OPERATOR, people=True))]
is_operator = Security(require(OPERATOR))

PlanId = Annotated[str, Field(min_length=1, max_length=63, description="As /api/subscription/plans names it")]
AtPeriodEnd = Annotated[bool, Field(description="At the end of the billing period, trial or comp; else at once")]

_STATUS: Mapping[type[Refused], HTTPStatus] = {
    commands.NotSubscribed: HTTPStatus.NOT_FOUND,
    commands.NotAnOrganization: HTTPStatus.NOT_FOUND,
    commands.PaymentNeeded: HTTPStatus.PAYMENT_REQUIRED,
    commands.PlanNotOffered: HTTPStatus.FORBIDDEN,
}
"""The others say that there is nothing to do: 409."""

answers_subscription = documented(answers.Success[answers.Subscription], "The subscription", money="number")
refusals = responses(400, 401, 403, 404, 409, 422)


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


@router.put("", summary="Give a plan", dependencies=[is_operator], responses=answers_subscription | refusals)
async def assign(request: Request, org_id: OrgId, body: PlanChoice) -> Response:
    """Gives the organization this plan now, from whatever it had; one that is not known yet is enrolled by it.

    The same request again changes nothing. For operators: nothing is charged.
    """
    return await _execute(request, org_id, commands.Assign(body.plan))


@router.post("/change", summary="Change the plan", responses=answers_subscription | responses(402) | refusals)
async def change(request: Request, principal: Person, org_id: OrgId, body: PlanChange) -> Response:
    """Another plan, at once or at the end of the period. An owner or admin may choose a listed plan that costs nothing:
    a paid one begins with a checkout (402). An operator may choose any.
    """
    _may_decide(principal, org_id)
    by_operator = OPERATOR in principal.scopes
    return await _execute(request, org_id, commands.Change(body.plan, body.at_period_end, by_operator))


@router.post("/cancel", summary="Cancel", responses=answers_subscription | refusals)
async def cancel(request: Request, principal: Person, org_id: OrgId, body: Cancellation | None = None) -> Response:
    """Ends the plan, at the end of the period unless told otherwise. The default plan follows."""
    _may_decide(principal, org_id)
    return await _execute(request, org_id, commands.Cancel((body or Cancellation()).at_period_end))


@router.post("/resume", summary="Resume", responses=answers_subscription | refusals)
async def resume(request: Request, principal: Person, org_id: OrgId) -> Response:
    """Takes back a cancellation, or a change at the end of the period, that has not taken effect yet."""
    _may_decide(principal, org_id)
    return await _execute(request, org_id, commands.Resume())


@router.post("/trial", summary="Give a trial", dependencies=[is_operator], responses=answers_subscription | refusals)
async def trial(request: Request, org_id: OrgId, body: TrialChoice) -> Response:
    """A plan to try for some days; afterwards what the organization had before. Given again, it begins again."""
    return await _execute(request, org_id, commands.Trial(body.plan, body.days))


@router.post("/comp", summary="Comp", dependencies=[is_operator], responses=answers_subscription | refusals)
async def comp(request: Request, org_id: OrgId, body: CompChoice) -> Response:
    """A plan free of charge, until a moment (afterwards what the organization had before) or until further notice."""
    return await _execute(request, org_id, commands.Comp(body.plan, body.until))


@router.post("/move", summary="Move version", dependencies=[is_operator], responses=answers_subscription | refusals)
async def move(request: Request, org_id: OrgId) -> Response:
    """Moves the organization from the version of its plan that it was sold to the current one."""
    return await _execute(request, org_id, commands.Move())


def _may_decide(principal: Principal, org_id: str) -> None:
    authorize_org(principal, org_id)
    if not principal.administers:
        raise Problem(403, "Only an owner or admin of the organization may decide on its plan.")


async def _execute(request: Request, org_id: str, command: Command) -> Response:
    correlation_id = structlog.contextvars.get_contextvars().get("correlation_id")
    async with pool_of(request).acquire() as connection:
        known = await subscriptions.load_plans(connection)
        now = clock_of(request)()
        try:
            await subscriptions.execute(connection, org_id, command, known, now=now, correlation_id=correlation_id)
        except UnknownPlan as error:
            wrong = [(None, "plan", str(error.args[0]))]
            raise Problem(422, "Mend the fields listed in errors.", errors=wrong) from error
        except InvalidPeriod as error:
            wrong = [(None, error.field, str(error))]
            raise Problem(422, "Mend the fields listed in errors.", errors=wrong) from error
        except Refused as error:
            raise Problem(_STATUS.get(type(error), HTTPStatus.CONFLICT), str(error)) from error
        except VersionConflict as error:
            raise Problem(409, "Others are changing this subscription; look at it and try again.") from error
        return await answer_subscription(request, connection, org_id)
