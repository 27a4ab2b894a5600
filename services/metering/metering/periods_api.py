"""HTTP: the months that are closed. Parse, run SQL, answer."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from aragora.chassis.answering import answer, documented
from aragora.chassis.problems import responses
from aragora.chassis.security import Principal
from metering import answers
from metering.api import AnyOrgId, may_read, pool_of, required_organization
from metering.periods import queries, read_totals

router = APIRouter()


@router.get(
    "/api/usage/periods",
    tags=["usage"],
    summary="The months that are closed",
    responses=documented(answers.ClosedPeriods, "The latest month first") | responses(401, 403, 422),
)
async def closed_periods(
    request: Request,
    principal: Annotated[Principal, may_read],
    org_id: AnyOrgId = None,
    limit: Annotated[int, Query(ge=1, le=240, description="Months")] = 24,
) -> Response:
    """What an organization used in each month that is closed: what it is charged by.

    A month is closed some days after its end. Usage that is recorded later closes it once more, with the next
    `sequence`; only the latest is shown. A month without usage is absent.
    """
    rows = await pool_of(request).fetch(queries.closed_periods, required_organization(principal, org_id), limit)
    periods = [answers.ClosedPeriod(**dict(row) | {"totals": read_totals(row["totals"])}) for row in rows]
    return answer(answers.ClosedPeriods(periods))
