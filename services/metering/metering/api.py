"""HTTP: usage comes in, usage is read. Parse, run SQL, answer; the rules are elsewhere."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated

import asyncpg
import msgspec
from fastapi import APIRouter, Path, Query, Request, Response, Security

from aragora.chassis import sql, tracing
from aragora.chassis.answering import answer, body_schema, documented
from aragora.chassis.bodies import invalid
from aragora.chassis.problems import Problem, responses
from aragora.chassis.security import Principal, authorize_org, organization_of, require
from aragora.chassis.sql import Pool
from aragora.contracts.usage import InvalidUsage, UsageEvent
from metering import answers, ingest, reading
from metering.edge import BusUnavailable, EdgeOverloaded, UsagePublisher
from metering.projections import month_of

queries = sql.load("metering", "sql/reading.sql")
router = APIRouter()

may_write = Security(require("usage.write"))
may_read = Security(require("usage.read", people=True))

OrgId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
AnyOrgId = Annotated[
    str | None, Query(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Whose usage; absent: the caller's own")
]
UserId = Annotated[str, Path(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
BillingPeriod = Annotated[
    str | None, Query(pattern=r"^(19|20)\d{2}-(0[1-9]|1[0-2])$", description="YYYY-MM; absent: now")
]
Name = Annotated[str | None, Query(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
Moment = Annotated[
    str | None,
    Query(max_length=40, description="A date (YYYY-MM-DD, UTC) or an RFC 3339 moment with an offset"),
]


def pool_of(request: Request) -> Pool:
    """The service's connections."""
    pool: Pool = request.app.state.metering_pool
    return pool


@router.post(
    "/api/usage/events",
    status_code=202,
    tags=["usage"],
    summary="Record usage",
    responses=documented(answers.Accepted, "Every event is on disk and will be counted once", status=202)
    | responses(400, 401, 403, 413, 415, 422, 503),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                ingest.JSON: {"schema": body_schema(UsageEvent | list[UsageEvent])},
                **{
                    kind: {"schema": {"type": "string", "description": "One native event per line"}}
                    for kind in ingest.NDJSON
                },
                ingest.CLOUDEVENT: {"schema": body_schema(ingest.StrictUsageRecorded)},
                ingest.CLOUDEVENT_BATCH: {"schema": body_schema(list[ingest.StrictUsageRecorded])},
            },
        }
    },
)
async def record_usage(request: Request, principal: Annotated[Principal, may_write]) -> Response:
    """Takes one event, a list or NDJSON in native form, or CloudEvents 1.0 in structured, batch or binary mode.

    A batch (at most 10,000 events and 8 MiB) is accepted whole or refused whole, and a refusal names the wrong events.
    The answer comes when the events are on disk. An id counts once per organization: after an error send the same
    batch again. An API key records its own organization's usage only.
    """
    body = await request.body()
    publisher: UsagePublisher = request.app.state.metering_publisher
    try:
        source = f"/api/usage/events/{principal.subject}"
        only_org = None if principal.reaches_all else principal.org_id
        events = ingest.read_body(body, dict(request.headers), source=source, now=datetime.now(UTC), only_org=only_org)
        correlation_id = tracing.correlation_id()
        for event in events:
            event.correlationid = event.correlationid or correlation_id
        await publisher.publish(events)
    except ingest.UnreadableBody as error:
        raise Problem(error.status, error.detail) from error
    except InvalidUsage as error:
        wrong = [(each.index, each.field, each.message) for each in error.errors]
        detail = "No event was recorded: mend the ones listed in errors and send the batch again."
        raise Problem(403 if isinstance(error, ingest.OthersUsage) else 422, detail, errors=wrong) from error
    except EdgeOverloaded as error:
        detail = "Too much usage is waiting; nothing was recorded, send it again."
        raise Problem(503, detail, headers={"Retry-After": "1"}) from error
    except BusUnavailable as error:
        detail = "The bus did not confirm the events; send the whole batch again with the same ids."
        raise Problem(503, detail, headers={"Retry-After": "2"}) from error
    return answer(answers.Accepted(len(events), [event.id for event in events]), status=202)


@router.get(
    "/api/usage/events",
    tags=["usage"],
    summary="The event log of an organization",
    responses=documented(answers.EventPage, "A page of events, the newest first") | responses(401, 403, 422),
)
async def event_log(
    request: Request,
    principal: Annotated[Principal, may_read],
    org_id: AnyOrgId = None,
    start: Moment = None,
    end: Moment = None,
    user_id: Name = None,
    event_type: Name = None,
    provider: Name = None,
    model: Name = None,
    id: Name = None,  # noqa: A002 - the event's own name for it
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=400)] = None,
) -> Response:
    """Events from `start` (included) to `end` (excluded), filtered; follow `next_cursor` for the next page."""
    org = required_organization(principal, org_id)
    seen_by = None if principal.administers else principal.subject
    if seen_by and user_id not in (None, seen_by):
        raise Problem(403, "Only an owner or admin of the organization may read another member's events.")
    since, until = _moment("start", start), _moment("end", end, end_of_day=True)
    rows = await pool_of(request).fetch(
        queries.event_page,
        org,
        since or datetime(1, 1, 1, tzinfo=UTC),
        until or datetime(9999, 12, 31, tzinfo=UTC),
        user_id or seen_by,
        event_type,
        provider,
        *_read_cursor(cursor),
        model,
        id,
        limit,
    )
    events = [reading.logged_event(row) for row in rows]
    last = reading.cursor_after(rows[-1]) if len(rows) == limit else None
    return answer(answers.EventPage(events, last))


@router.get(
    "/api/usage/organizations/{org_id}/summary",
    tags=["usage"],
    summary="An organization's usage over any days",
    responses=documented(answers.Success[answers.Summary], "Totals, whole and by kind") | responses(401, 403, 422),
)
async def organization_summary(
    request: Request, principal: Annotated[Principal, may_read], org_id: OrgId, start: Moment = None, end: Moment = None
) -> Response:
    """Whole UTC days, from that of `start` to that of `end`, both included; everything that is known, if absent."""
    authorize_org(principal, org_id)
    if not principal.administers:
        raise Problem(403, "Only an owner or admin of the organization may read its summary.")
    since, until = _moment("start", start), _moment("end", end)
    pool = pool_of(request)
    span = await pool.fetchrow(queries.log_span, org_id)
    today = datetime.now(UTC).date()
    first = since.date() if since else ((span and span["first_day"]) or today)
    last = until.date() if until else max((span and span["last_day"]) or today, first)
    if last < first:
        raise invalid("end", "lies before start")
    rows = await pool.fetch(queries.summarize, org_id, first, last)
    return answer(answers.Success(reading.summary(org_id, first, last, rows)))


@router.get(
    "/api/subscription/usage/{user_id}",
    tags=["subscription"],
    summary="A month's usage",
    responses=documented(answers.Success[answers.UserUsage], "The month, and the person's share", money="number")
    | responses(401, 403, 404, 422),
)
async def user_usage(
    request: Request,
    principal: Annotated[Principal, may_read],
    user_id: UserId,
    billing_period: BillingPeriod = None,
    org_id: AnyOrgId = None,
) -> Response:
    """The usage of the person's organization in a calendar month (UTC), with the person's own share beside it.

    The current month has the limits of the organization and the person's own, and how much of them is used.
    """
    pool = pool_of(request)
    org = await organization_of_user(pool, principal, user_id, org_id)
    usage, _ = await read_month(pool, org, user_id, _first_day(billing_period), datetime.now(UTC))
    return answer(answers.Success(usage), money="number")


@router.get(
    "/api/subscription/usage/{user_id}/trends",
    tags=["subscription"],
    summary="Usage by month",
    responses=documented(answers.Success[answers.Trends], "One entry per month, the oldest first", money="number")
    | responses(401, 403, 404, 422),
)
async def usage_trends(
    request: Request,
    principal: Annotated[Principal, may_read],
    user_id: UserId,
    months: Annotated[int, Query(ge=1, le=36)] = 6,
    org_id: AnyOrgId = None,
) -> Response:
    """The last months of the person's organization, the current one included, by provider."""
    pool = pool_of(request)
    org = await organization_of_user(pool, principal, user_id, org_id)
    firsts = reading.months_before(_first_day(None), months)
    rows = await pool.fetch(queries.usage_by_month, org, firsts[0], reading.last_day(firsts[-1]))
    return answer(answers.Success(reading.trends(org, firsts, rows)), money="number")


@router.get(
    "/api/subscription/pricing",
    tags=["subscription"],
    summary="What models cost",
    dependencies=[may_read],
    responses=documented(answers.Success[list[answers.ModelPrice]], "The prices in force", money="number")
    | responses(401, 403, 422),
)
async def pricing(request: Request, provider: Name = None) -> Response:
    """The price book's tables, as of now. Models that are not listed are priced by genai-prices, or not at all."""
    rows = request.app.state.metering_prices.rows(datetime.now(UTC))
    chosen = [row for row in rows if provider is None or row.provider == provider.lower()]
    return answer(answers.Success([reading.model_price(row) for row in chosen]), money="number")


def required_organization(principal: Principal, org_id: str | None) -> str:
    """The organization that a request is about: the one it names, else the caller's. Else a `Problem`."""
    org = organization_of(principal, org_id)
    if org is None:
        raise invalid("org_id", "name the organization")
    return org


async def read_month(
    pool: Pool, org_id: str, user_id: str, first: date, now: datetime
) -> tuple[answers.UserUsage, list[asyncpg.Record]]:
    """The month that begins on `first`, and if it is the current one the rows of its limits; both of one moment."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        rows = await connection.fetch(queries.usage_by_provider, org_id, first, reading.last_day(first), user_id)
        is_current = month_of(first) == month_of(now)
        limits = await connection.fetch(queries.limit_uses, org_id, month_of(now), user_id) if is_current else []
    return reading.user_usage(org_id, user_id, first, rows, limits, now), limits


async def organization_of_user(pool: Pool, principal: Principal, user_id: str, org_id: str | None) -> str:
    """The organization asked about, else the caller's, else the user's only one. Else a `Problem`."""
    if user_id != principal.subject and not principal.administers:
        raise Problem(403, "Only an owner or admin of the organization may read another member's usage.")
    org = organization_of(principal, org_id)
    if org is not None:
        return org
    known: list[str] = [row["org_id"] for row in await pool.fetch(queries.organizations_of_user, user_id)]
    if not known:
        raise Problem(404, "No usage of this user is recorded; name the organization with org_id.")
    if len(known) > 1:
        message = "the user has used several organizations; name one"
        raise invalid("org_id", message)
    return known[0]


def _first_day(billing_period: str | None) -> date:
    if billing_period is None:
        return datetime.now(UTC).date().replace(day=1)
    return date(int(billing_period[:4]), int(billing_period[5:]), 1)


def _moment(field: str, text: str | None, *, end_of_day: bool = False) -> datetime | None:
    if text is None:
        return None
    try:
        if len(text) == len("2025-01-31"):
            day = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
            return day + timedelta(days=1) if end_of_day else day
        moment: datetime = msgspec.convert(text, Annotated[datetime, msgspec.Meta(tz=True)])
        return moment.astimezone(UTC)
    except (ValueError, OverflowError, msgspec.ValidationError) as error:
        message = "must be a date (2025-01-31) or an RFC 3339 moment with an offset (2025-01-31T12:00:00Z)"
        raise invalid(field, message) from error


def _read_cursor(cursor: str | None) -> tuple[datetime | None, str | None]:
    if cursor is None:
        return None, None
    try:
        return reading.read_cursor(cursor)
    except ValueError as error:
        message = "is not one that this API gave; begin without it"
        raise invalid("cursor", message) from error
