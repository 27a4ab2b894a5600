"""HTTP for operators: publish another version of a plan, look at all of them, take a plan off the list."""

import json
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response, Security

from aragora.chassis.answering import answer, documented
from aragora.chassis.problems import Problem, responses
from aragora.chassis.security import require
from aragora.chassis.sql import Connection
from aragora.chassis.store import VersionConflict
from billing import answers, plans, reading, subscriptions
from billing.api import clock_of, pool_of
from billing.catalog_rules import Fault, read_plan, table_at
from billing.plans import PlanInUse, UnknownPlan
from billing.subscriptions import queries

router = APIRouter(prefix="/api/subscription/plans/{plan}", tags=["plans"])
is_operator = Security(require("operator"))
PlanId = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]

_PRICE = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}
_AMOUNT = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}, {"type": "null"}]}
_BODY = {
    "type": "object",
    "required": ["name", "price_usd_per_month", "seats"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "price_usd_per_month": {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}]},
        "seats": {"anyOf": [{"type": "integer", "minimum": 0}, {"enum": ["unlimited"]}, {"type": "null"}]},
        "trial_days": {"type": "integer", "minimum": 0},
        "listed": {"type": "boolean"},
        "features": {"type": "object", "additionalProperties": {"type": "boolean"}},
        "limits": {"type": "object", "additionalProperties": _AMOUNT, "description": "By meter. null: unlimited"},
        "limits_per_user": {"type": "object", "additionalProperties": _AMOUNT},
        "overage": {
            "type": "object",
            "description": "By meter that has a limit: the price of what goes beyond",
            "additionalProperties": {
                "anyOf": [
                    *_PRICE["anyOf"],
                    {
                        "type": "object",
                        "required": ["price_usd"],
                        "additionalProperties": False,
                        "properties": {"price_usd": _PRICE, "per": {"type": "integer", "minimum": 1}},
                    },
                ]
            },
        },
    },
}
answers_version = documented(answers.Success[answers.PlanVersion], "The version that is sold now", money="number")


@router.post(
    "",
    summary="Publish a version",
    dependencies=[is_operator],
    responses=answers_version | responses(400, 401, 403, 409, 413, 422),
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _BODY}}}},
)
async def publish_plan(request: Request, plan: PlanId) -> Response:
    """Sells the plan as the body says from now on, as its next version; who has an earlier one keeps that.

    The body is what a catalog's `[plans.<id>]` table is. Published as it is sold already, nothing happens. A restart
    changes nothing of it; the catalog's plan comes back when the catalog says something new.
    """
    table = _read_json(await request.body())
    async with pool_of(request).acquire() as connection:
        known = await subscriptions.load_plans(connection)
        before = known.current(plan) if plan in known.ids else None
        rank, is_default = (before.rank, before.is_default) if before else (known.next_rank, False)
        try:
            meters = request.app.state.billing_meters
            wanted = read_plan(plan, table_at(table, ()), meters, rank=rank, is_default=is_default)
        except Fault as fault:
            wrong = [(None, ".".join(fault.key) or "body", fault.message)]
            raise Problem(422, "Mend the fields listed in errors.", errors=wrong) from fault
        return await _publish(request, connection, plan, lambda history: plans.publish_by_operator(history, wanted))


@router.get(
    "/versions",
    summary="All versions of a plan",
    dependencies=[is_operator],
    responses=documented(answers.Success[list[answers.PlanVersion]], "The newest first", money="number")
    | responses(401, 403, 404, 422),
)
async def list_versions(request: Request, plan: PlanId) -> Response:
    """What was ever sold under this name, by the catalog or by operators."""
    rows = [row for row in await pool_of(request).fetch(queries.all_plans) if row["plan"] == plan]
    if not rows:
        raise Problem(404, f"No plan is called {plan!r}.")
    return answer(answers.Success([reading.plan_version(row) for row in reversed(rows)]), money="number")


@router.post(
    "/retire",
    summary="Take a plan off the list",
    dependencies=[is_operator],
    responses=answers_version | responses(401, 403, 404, 409, 422),
)
async def retire_plan(request: Request, plan: PlanId) -> Response:
    """Nobody chooses it any more; who has it keeps it, and operators may still give it."""
    async with pool_of(request).acquire() as connection:
        try:
            (await subscriptions.load_plans(connection)).current(plan)
        except UnknownPlan as error:
            raise Problem(404, str(error.args[0])) from error
        return await _publish(request, connection, plan, plans.retire)


async def _publish(request: Request, connection: Connection, plan: str, decide: Any) -> Response:
    try:
        await subscriptions.publish(connection, plan, decide, now=clock_of(request)())
    except PlanInUse as error:
        raise Problem(409, str(error)) from error
    except VersionConflict as error:
        raise Problem(409, "Others are publishing this plan; look at it and try again.") from error
    rows = [row for row in await connection.fetch(queries.all_plans) if row["plan"] == plan]
    return answer(answers.Success(reading.plan_version(rows[-1])), money="number")


def _read_json(body: bytes) -> Any:
    try:
        return json.loads(body, parse_float=Decimal, parse_constant=Decimal)
    except (ValueError, RecursionError, ArithmeticError) as error:
        raise Problem(400, f"The body is not valid JSON: {error}") from error
