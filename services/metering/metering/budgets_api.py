"""HTTP: what an organization means to spend. Parse, run SQL, answer."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

import asyncpg
from fastapi import APIRouter, Path, Request, Response, Security
from msgspec import Meta, Struct

from aragora.billing.rating import trimmed
from aragora.chassis.answering import answer, body_schema, documented
from aragora.chassis.bodies import invalid
from aragora.chassis.problems import Problem, responses
from aragora.chassis.security import Principal, require
from aragora.contracts.keys import OPERATOR
from aragora.contracts.limits import Name
from aragora.contracts.usage import AMOUNT
from metering.api import AnyOrgId, may_read, pool_of, required_organization
from metering.budgets import MAX_BUDGETS, TooManyBudgets, keep_budget, queries
from metering.limit_replies import JSON, read_question
from metering.projections import month_of
from metering.reading import percent_of

router = APIRouter(prefix="/api/usage/budgets", tags=["budgets"])

MayDecide = Annotated[Principal, Security(require(OPERATOR, people=True))]
BudgetId = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="A name of your choice")]


class BudgetBody(Struct, forbid_unknown_fields=True):
    """How much, and whose spending it is about: everybody's, or with `user_id` that person's."""

    amount_usd: Annotated[
        str,
        Meta(
            pattern=r"^[0-9]{1,12}(\.[0-9]{1,18})?$",
            description='Per calendar month (UTC), a decimal in a string: "250". 0: none, any spending exceeds it.',
        ),
    ]
    user_id: Name | None = None


class Budget(Struct):
    """A budget, and what is spent of it in the current month (UTC)."""

    budget_id: str
    user_id: str | None
    """Whose spending; null: everybody's together."""
    amount_usd: Decimal
    month: str
    spent_usd: Decimal
    """Without usage that no price is known for."""
    percent: Decimal
    """Spent of the amount, rounded down to two places."""
    exceeded: bool
    """Whether more is spent than was meant to be."""


class Budgets(Struct):
    budgets: list[Budget]


@router.get(
    "",
    summary="What an organization means to spend",
    responses=documented(Budgets, "All of its budgets, by id") | responses(401, 403, 422),
)
async def list_budgets(
    request: Request, principal: Annotated[Principal, may_read], org_id: AnyOrgId = None
) -> Response:
    """The budgets of an organization, and where each stands in the current month (UTC)."""
    org = _administered(principal, org_id)
    month = month_of(datetime.now(UTC))
    rows = await pool_of(request).fetch(queries.budgets_of, org, month, None)
    return answer(Budgets([_budget(row, month) for row in rows]))


@router.put(
    "/{budget_id}",
    summary="Make or change a budget",
    responses=documented(Budget, "The budget, and where it stands") | responses(400, 401, 403, 409, 413, 422, 503),
    openapi_extra={"requestBody": {"required": True, "content": {JSON: {"schema": body_schema(BudgetBody)}}}},
)
async def put_budget(request: Request, principal: MayDecide, budget_id: BudgetId, org_id: AnyOrgId = None) -> Response:
    """What the organization means to spend in a calendar month (UTC): for every month from this one on.

    A budget refuses nothing. Once more is spent, owners and admins are told: once per month, and again if the budget is
    given another amount that is exceeded too. If it is exceeded already, they are told now. To stop usage at an amount
    there are limits. An organization has up to 50 budgets.
    """
    org = _administered(principal, org_id)
    body = read_question(BudgetBody, await request.body())
    if not AMOUNT.match(body.amount_usd):
        message = 'must be a decimal in a string, such as "250"'
        raise invalid("amount_usd", message)
    now = datetime.now(UTC)
    try:
        async with pool_of(request).acquire() as connection, connection.transaction():
            await keep_budget(connection, org, budget_id, Decimal(body.amount_usd), body.user_id, now)
            (row,) = await connection.fetch(queries.budgets_of, org, month_of(now), budget_id)
    except TooManyBudgets as error:
        raise Problem(409, f"The organization has {MAX_BUDGETS} budgets; delete one, or change one.") from error
    return answer(_budget(row, month_of(now)))


@router.delete(
    "/{budget_id}",
    status_code=204,
    summary="Delete a budget",
    responses=responses(401, 403, 404, 422),
)
async def delete_budget(
    request: Request, principal: MayDecide, budget_id: BudgetId, org_id: AnyOrgId = None
) -> Response:
    """From now on nothing is said of it. Made again under the same name it is a new one."""
    org = _administered(principal, org_id)
    if await pool_of(request).fetchval(queries.drop_budget, org, budget_id) is None:
        raise Problem(404, "The organization has no such budget.")
    return Response(status_code=204)


def _administered(principal: Principal, org_id: str | None) -> str:
    org = required_organization(principal, org_id)
    if not principal.administers:
        raise Problem(403, "Only an owner or admin of the organization may see and change its budgets.")
    return org


def _budget(row: asyncpg.Record, month: str) -> Budget:
    amount, spent = row["amount_usd"], row["spent_usd"]
    return Budget(
        budget_id=row["budget_id"],
        user_id=row["user_id"] or None,
        amount_usd=trimmed(amount),
        month=month,
        spent_usd=trimmed(spent),
        percent=percent_of(spent, amount) or Decimal(0),
        exceeded=spent > amount,
    )
