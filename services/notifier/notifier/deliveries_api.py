"""HTTP for what was sent to an endpoint: the log, and sending again."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from aragora.chassis.answering import answer, documented
from aragora.chassis.bodies import Body, Moment
from aragora.chassis.problems import responses
from notifier import answers, deliveries, endpoints
from notifier import endpoint_answers as shapes
from notifier.bodies import AnyOrgId, Cursor, Limit, before, cursor_after
from notifier.callers import Person, administered, clock_of, pool_of
from notifier.endpoints_api import EndpointId, answered, refusals, sealer_of

router = APIRouter(prefix="/api/notifications/endpoints/{endpoint_id}", tags=["deliveries"])

KindName = Annotated[str | None, Query(pattern=r"^[a-z_.]{1,64}$", description="Only messages of this type")]
answers_delivery = documented(answers.Success[shapes.DeliveryWithAttempts], "The message and every attempt")


class Redelivery(Body):
    """What was queued from `since` on, and before `until`: what failed or was skipped, unless `statuses` says more."""

    since: Moment
    until: Moment | None = None
    statuses: Annotated[list[shapes.Settled], Field(min_length=1, max_length=3, default=[*deliveries.UNSENT])]


@router.get(
    "/deliveries",
    summary="What was sent to an endpoint",
    responses=documented(answers.Success[shapes.DeliveryPage], "The newest first") | responses(401, 403, 404, 422),
)
async def list_deliveries(
    request: Request,
    principal: Person,
    endpoint_id: EndpointId,
    org_id: AnyOrgId = None,
    status: shapes.DeliveryStatus | None = None,
    kind: KindName = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> Response:
    """What was sent in the last 30 days, and all that waits, with what the last attempt came to."""
    organization = administered(principal, org_id)
    async with pool_of(request).acquire() as connection:
        with answered():
            await endpoints.read(connection, sealer_of(request), organization, endpoint_id)
        found, positions = await deliveries.read_page(
            connection, organization, endpoint_id, before=before(cursor), status=status, kind=kind, limit=limit
        )
    return answer(answers.Success(shapes.DeliveryPage(found, cursor_after(positions, limit))))


@router.get(
    "/deliveries/{delivery_id}",
    summary="A message to an endpoint",
    responses=answers_delivery | responses(401, 403, 404, 422),
)
async def read_delivery(
    request: Request, principal: Person, endpoint_id: EndpointId, delivery_id: UUID, org_id: AnyOrgId = None
) -> Response:
    """The body as it is sent, and of every attempt the headers, how long it took, and what came back."""
    return await _answer(request, administered(principal, org_id), endpoint_id, delivery_id)


@router.post(
    "/deliveries/{delivery_id}/redeliver", summary="Send a message again", responses=answers_delivery | refusals
)
async def redeliver_one(
    request: Request, principal: Person, endpoint_id: EndpointId, delivery_id: UUID, org_id: AnyOrgId = None
) -> Response:
    """At once, before newer ones that wait, and under the same `webhook-id`. One that waits already goes on waiting."""
    organization = administered(principal, org_id)
    with answered():
        async with pool_of(request).acquire() as connection, connection.transaction():
            await deliveries.redeliver(connection, organization, endpoint_id, delivery_id, clock_of(request)())
    return await _answer(request, organization, endpoint_id, delivery_id)


@router.post("/deliveries/{delivery_id}/skip", summary="Give a message up", responses=answers_delivery | refusals)
async def skip_delivery(
    request: Request, principal: Person, endpoint_id: EndpointId, delivery_id: UUID, org_id: AnyOrgId = None
) -> Response:
    """One that waits and that the endpoint does not take: those behind it go on. It can be redelivered."""
    organization = administered(principal, org_id)
    with answered():
        async with pool_of(request).acquire() as connection, connection.transaction():
            await deliveries.skip(connection, organization, endpoint_id, delivery_id, clock_of(request)())
    return await _answer(request, organization, endpoint_id, delivery_id)


@router.post(
    "/redeliver",
    summary="Send again what was sent since",
    responses=documented(answers.Success[shapes.Redelivered], "How many wait now") | refusals,
)
async def redeliver_since(
    request: Request, principal: Person, endpoint_id: EndpointId, body: Redelivery, org_id: AnyOrgId = None
) -> Response:
    """In the old order, under the same ids, and before newer ones that wait: after an outage, say, what was missed."""
    organization = administered(principal, org_id)
    with answered():
        async with pool_of(request).acquire() as connection, connection.transaction():
            count = await deliveries.redeliver_since(
                connection, organization, endpoint_id, clock_of(request)(), statuses=body.statuses, since=body.since,
                until=body.until,
            )  # fmt: skip
    return answer(answers.Success(shapes.Redelivered(count)))


async def _answer(request: Request, org_id: str, endpoint_id: str, delivery_id: UUID) -> Response:
    with answered():
        async with pool_of(request).acquire() as connection:
            found = await deliveries.read(connection, org_id, endpoint_id, delivery_id)
    return answer(answers.Success(found))
