"""HTTP: the month on one page. Parse, ask Postgres and the notifier, answer."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import nats.errors
import structlog
from fastapi import APIRouter, Request, Response
from nats.aio.client import Client

from aragora.chassis import tracing
from aragora.chassis.answering import answer, documented
from aragora.chassis.problems import responses
from aragora.chassis.security import Principal
from aragora.contracts.alerts import UNREAD_ALERTS, CountUnread, Unread
from metering import answers, reading
from metering.api import AnyOrgId, UserId, may_read, organization_of_user, pool_of, read_month

log = structlog.get_logger()
router = APIRouter()

ALERTS_DEADLINE_SECONDS = 0.3
"""Nobody waits longer for a page because the notifier is slow: then it is shown without."""

_unread = msgspec.json.Decoder(Unread)


@router.get(
    "/api/subscription/dashboard/{user_id}",
    tags=["subscription"],
    summary="The current month on one page",
    responses=documented(answers.Success[answers.Dashboard], "Usage, limits and forecast", money="number")
    | responses(401, 403, 404, 422),
)
async def dashboard(
    request: Request, principal: Annotated[Principal, may_read], user_id: UserId, org_id: AnyOrgId = None
) -> Response:
    """What the person's organization has used of its plan this month, what the month will cost, and unread alerts."""
    pool, bus = pool_of(request), request.app.state.metering_bus
    org, now = await organization_of_user(pool, principal, user_id, org_id), datetime.now(UTC)
    first = now.date().replace(day=1)
    (usage, limits), unread = await asyncio.gather(
        read_month(pool, org, user_id, first, now), unread_alerts(bus, org, user_id)
    )
    return answer(answers.Success(reading.dashboard(usage, limits, first, now, unread)), money="number")


async def unread_alerts(bus: Client, org_id: str, user_id: str) -> int | None:
    """How many alerts the person has not read, as the notifier says; None if it does not say so in time."""
    question = msgspec.json.encode(CountUnread(org_id=org_id, user_id=user_id))
    try:
        with tracing.span(UNREAD_ALERTS, "CLIENT"):
            reply = await bus.request(UNREAD_ALERTS, question, ALERTS_DEADLINE_SECONDS, headers=tracing.outgoing())
        return _unread.decode(reply.data).unread
    except nats.errors.Error as error:
        log.debug("unread_alerts_unknown", error=repr(error))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        log.warning("unread_alerts_unreadable", error=repr(error))
    return None
