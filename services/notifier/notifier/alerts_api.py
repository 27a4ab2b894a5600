"""HTTP for alerts: what somebody is to know, since when they do, and live."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response, Security

from aragora.chassis.answering import answer, documented
from aragora.chassis.bodies import invalid
from aragora.chassis.problems import Problem, responses
from aragora.chassis.security import authenticated
from notifier import alerts, answers
from notifier.alert_following import AlertStreams
from notifier.alert_stream import EventStream
from notifier.alerts import UnknownAlert
from notifier.bodies import AnyOrgId, AnyUserId, Cursor, Limit, UserId, before, cursor_after
from notifier.callers import Operator, Person, Viewer, caller_again, clock_of, marker_of, pool_of, reader_of
from notifier.domain import Severity
from notifier.kinds import CHOOSABLE, ENDPOINT_TYPES, KINDS

router = APIRouter(tags=["alerts"])

MAX_POSITION_DIGITS = 18
KindName = Annotated[str | None, Query(pattern=r"^[a-z_.]{1,64}$", description="Only alerts of this type")]
readers = responses(401, 403, 404, 422, 503)
_stream: dict[int | str, dict[str, Any]] = {
    200: {"description": "Alerts as they come, until the caller leaves", "content": {"text/event-stream": {}}}
}


@router.get(
    "/api/subscription/alerts/{user_id}",
    summary="A person's alerts",
    responses=documented(answers.Success[answers.AlertPage], "The newest first") | readers,
)
async def list_alerts(
    request: Request,
    principal: Viewer,
    user_id: UserId,
    *,
    org_id: AnyOrgId = None,
    unread_only: bool = False,
    kind: KindName = None,
    severity: Severity | None = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> Response:
    """What a member of the organization is to know: what is for everybody there, for owners and admins what is for
    them, and what concerns the person alone. Kinds that they chose not to see in the product are left out.

    Owners, admins and API keys see what another member sees, but not what concerns that person alone.
    """
    reader = await reader_of(request, principal, user_id, org_id)
    async with pool_of(request).acquire() as connection:
        found, total, unread = await alerts.read_page(
            connection, reader, before=before(cursor), kind=kind, severity=severity, unread_only=unread_only,
            limit=limit,
        )  # fmt: skip
    after = cursor_after([each.position for each in found], limit)
    return answer(answers.Success(answers.AlertPage(found, total, unread, after)))


@router.get(
    "/api/subscription/alerts/{user_id}/stream",
    summary="A person's alerts, live",
    response_class=Response,
    responses=_stream | responses(401, 403, 404, 422, 429, 503),
)
async def stream_alerts(
    request: Request,
    principal: Viewer,
    user_id: UserId,
    org_id: AnyOrgId = None,
    after: Annotated[str | None, Query(description="Go on after this position, as Last-Event-ID does")] = None,
    last_event_id: Annotated[str | None, Header(description="What a browser sends when it connects again")] = None,
) -> Response:
    """Server-Sent Events: `alert` with an alert as in the list, and `unread` with `{"unread_count": …}` whenever that
    is another. The id of an event is the alert's position: a client that comes back with it misses nothing.

    The stream ends when the credential is not good any more, and when the service stops: then connect again.
    """
    reader = await reader_of(request, principal, user_id, org_id)
    told = last_event_id or after or ""
    if told and not (told.isascii() and told.isdigit() and len(told) <= MAX_POSITION_DIGITS):
        raise invalid("after", "must be the id of an event of this stream, or the position of an alert")
    streams: AlertStreams = request.app.state.notifier_alert_streams

    async def still_good() -> bool:
        return await reader_of(request, await caller_again(request), user_id, org_id) == reader

    stream = await streams.open(reader, int(told) if told else None)
    return EventStream(streams, stream, still_good)


@router.post(
    "/api/subscription/alerts/{alert_id}/mark-read",
    summary="Mark an alert as read",
    responses=documented(answers.Success[answers.MarkedRead], "It is read; twice is once") | readers,
)
async def mark_read(
    request: Request, principal: Person, alert_id: UUID, org_id: AnyOrgId = None, user_id: AnyUserId = None
) -> Response:
    """For oneself: others go on seeing the alert as unread. Operators and their services name the person."""
    reader = await marker_of(request, principal, user_id, org_id)
    async with pool_of(request).acquire() as connection:
        try:
            read_at = await alerts.mark_read(connection, reader, alert_id, clock_of(request)())
        except UnknownAlert as error:
            raise Problem(404, str(error)) from error
        (unread,) = await alerts.count_unread(connection, [reader])
    return answer(answers.Success(answers.MarkedRead(alert_id, is_read=True, read_at=read_at, unread_count=unread)))


@router.post(
    "/api/subscription/alerts/{user_id}/mark-all-read",
    summary="Mark all alerts as read",
    responses=documented(answers.Success[answers.AllMarkedRead], "They are read") | readers,
)
async def mark_all_read(request: Request, principal: Person, user_id: UserId, org_id: AnyOrgId = None) -> Response:
    """Everything that there is until now, of the organization and of the person. What comes later is unread."""
    reader = await marker_of(request, principal, user_id, org_id)
    async with pool_of(request).acquire() as connection:
        marked = await alerts.mark_all_read(connection, reader, clock_of(request)())
        (unread,) = await alerts.count_unread(connection, [reader])
    return answer(answers.Success(answers.AllMarkedRead(marked, unread)))


@router.get(
    "/api/notifications/attention",
    tags=["operators"],
    summary="What only an operator can settle",
    responses=documented(answers.Success[answers.AttentionPage], "The newest first") | responses(401, 403, 422),
)
async def list_attention(request: Request, _: Operator, cursor: Cursor = None, limit: Limit = 20) -> Response:
    """Such as a payment for which there is no invoice. It stays here for as long as alerts do, settled or not."""
    found = await alerts.read_attention(pool_of(request), before(cursor), limit)
    after = cursor_after([each.position for each in found], limit)
    return answer(answers.Success(answers.AttentionPage(found, after)))


@router.get(
    "/api/notifications/kinds",
    summary="What there is to be told of",
    dependencies=[Security(authenticated)],
    responses=documented(answers.Success[list[answers.Kind]], "Every kind of notification") | responses(401, 503),
)
async def list_kinds() -> Response:
    """Every kind, whom it is for, how one is told of it without having chosen, and whether one can choose.

    A kind's name is the `type` of an alert and of a webhook, and the key of a preference.
    """
    shown = [
        answers.Kind(
            type=kind.name, description=kind.description, audience=kind.audience, email=kind.email,
            in_app=kind.in_app, essential=kind.essential, choosable=kind.name in CHOOSABLE,
            for_endpoints=kind.name in ENDPOINT_TYPES,
        )
        for kind in KINDS.values()
    ]  # fmt: skip
    return answer(answers.Success(shown))
