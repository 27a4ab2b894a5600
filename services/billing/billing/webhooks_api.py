"""HTTP for Stripe's webhooks, and for operators: what became of them, and of what was asked of Stripe."""

import secrets
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response, Security
from msgspec import Struct

from aragora.billing.stripe_client import WebhookEvent, WebhookSignatureError, verify
from aragora.chassis.answering import answer, documented
from aragora.chassis.problems import Problem, responses
from aragora.chassis.security import require
from aragora.contracts.keys import OPERATOR
from billing import answers, metrics, reconciling, stripe_inbox
from billing.api import clock_of, payments_of, pool_of
from billing.payments import Payments
from billing.refusals import as_problems
from billing.stripe_gateway import StripeNotConfigured
from billing.stripe_inbox import queries

MAX_WEBHOOK_BYTES = 1024 * 1024
_NOBODYS_SECRET = secrets.token_hex()
"""In place of one that is not set: every signature is a wrong one then."""

router = APIRouter(tags=["stripe"])
is_operator = Security(require(OPERATOR))

EventState = Literal["pending", "handled", "ignored", "unresolved"]
IntentState = Literal["pending", "done", "refused"]
EventId = Annotated[str, Path(pattern=r"^[!-~]{1,255}$")]
Limit = Annotated[int, Query(ge=1, le=500, description="How many at most")]


class Received(Struct):
    """The event is kept; what follows from it follows later."""

    received: bool = True


class StripeEvent(Struct):
    """A webhook that was received. `reason`: why nothing came of it, or not yet."""

    event_id: str
    type: str
    created_at: datetime
    received_at: datetime
    object_id: str | None
    customer_id: str | None
    org_id: str | None
    state: EventState
    reason: str | None
    attempts: int
    next_attempt_at: datetime
    handled_at: datetime | None


class StripeIntent(Struct):
    """Something that was asked of Stripe. `code`: why Stripe refused it, in Stripe's words."""

    org_id: str
    intent_id: str
    kind: str
    once: str | None
    state: IntentState
    code: str | None
    requested_at: datetime
    attempts: int
    next_attempt_at: datetime
    finished_at: datetime | None


class Reconciled(Struct):
    """What a comparison with Stripe found."""

    subscriptions: int
    """Live ones at Stripe."""
    repaired: list[str]
    """Organizations of which something else was known here."""
    unknown: list[str]
    """Subscriptions of customers who are nobody's here."""


@router.post(
    "/api/webhooks/stripe",
    summary="Stripe's webhooks",
    responses=documented(Received, "The event is kept") | responses(400, 413, 503),
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
        "parameters": [{"name": "Stripe-Signature", "in": "header", "required": True, "schema": {"type": "string"}}],
    },
)
async def receive(request: Request) -> Response:
    """Keeps an event that Stripe signed, once, and answers at once. It is followed afterwards, in whatever order.

    The signature is the credential: without a good one of the last five minutes nothing is kept (400).
    """
    payments = payments_of(request)
    body = await _body(request)
    now = clock_of(request)()
    with as_problems():
        try:
            event = verify(
                body, request.headers.get("Stripe-Signature"), payments.webhook_secrets or (_NOBODYS_SECRET,), now
            )
        except ValueError as error:
            metrics.webhooks.labels("refused").inc()
            if isinstance(error, WebhookSignatureError) and error.reason == "wrong":
                _demand(payments)
            raise Problem(400, f"This is no webhook of Stripe's: {error}.") from None
        _demand(payments)
    async with payments.pool.acquire() as connection:
        is_new = await stripe_inbox.keep(connection, _said(event), now, is_live=payments.gateway.is_live)
    metrics.webhooks.labels("kept" if is_new else "repeated").inc()
    return answer(Received())


@router.get(
    "/api/billing/stripe/events",
    summary="Webhooks received",
    dependencies=[is_operator],
    responses=documented(answers.Success[list[StripeEvent]], "The newest first") | responses(401, 403, 422),
)
async def list_events(request: Request, state: EventState | None = None, limit: Limit = 100) -> Response:
    """What Stripe told of, and what became of it: what waits, what nobody could make sense of, and why."""
    rows = await pool_of(request).fetch(queries.events_page, state, limit)
    return answer(answers.Success([StripeEvent(**row) for row in rows]))


@router.post(
    "/api/billing/stripe/events/{event_id}/retry",
    summary="Follow a webhook again",
    dependencies=[is_operator],
    responses=documented(answers.Success[StripeEvent], "It is due now") | responses(401, 403, 404, 409, 422),
)
async def retry(request: Request, event_id: EventId) -> Response:
    """Has an event that waits, or that nobody could make sense of, followed now."""
    async with pool_of(request).acquire() as connection:
        row = await connection.fetchrow(queries.retry_event, event_id, clock_of(request)())
        if row is not None:
            return answer(answers.Success(StripeEvent(**row)))
        state = await connection.fetchval(queries.event_state, event_id)
    if state is None:
        raise Problem(404, "No such event was received; GET /api/billing/stripe/events lists them.")
    raise Problem(409, f"The event is {state}: nothing is to follow from it any more.")


@router.get(
    "/api/billing/stripe/intents",
    summary="What was asked of Stripe",
    dependencies=[is_operator],
    responses=documented(answers.Success[list[StripeIntent]], "The newest first") | responses(401, 403, 422),
)
async def list_intents(request: Request, state: IntentState | None = None, limit: Limit = 100) -> Response:
    """What billing asked of Stripe: what was done, what waits for Stripe to answer, what Stripe refused."""
    rows = await pool_of(request).fetch(queries.intents_page, state, limit)
    return answer(answers.Success([StripeIntent(**row) for row in rows]))


@router.post(
    "/api/billing/stripe/reconcile",
    summary="Compare with Stripe",
    dependencies=[is_operator],
    responses=documented(answers.Success[Reconciled], "What was found") | responses(401, 403, 409, 503),
)
async def reconcile(request: Request) -> Response:
    """Finds webhooks that were lost, compares every live subscription with Stripe's, and repairs what differs.

    A worker does so by itself: the former every ten minutes, the latter once a day.
    """
    payments, now = payments_of(request), clock_of(request)()
    if not payments.gateway.is_configured:
        raise Problem(409, "There is nothing to compare with: STRIPE_SECRET_KEY is not set.")
    with as_problems():
        await reconciling.read_lost_events(payments, now)
        found = await reconciling.reconcile(payments, now)
    return answer(answers.Success(Reconciled(found.subscriptions, list(found.repaired), list(found.unknown))))


def _demand(payments: Payments) -> None:
    """Without both variables nothing could come of an event; Stripe sends it again."""
    payments.gateway.demand()
    if not payments.webhook_secrets:
        raise StripeNotConfigured(
            "STRIPE_WEBHOOK_SECRET is not set: nobody can tell whether a webhook is Stripe's. "
            "Set it to the endpoint's signing secret."
        )


async def _body(request: Request) -> bytes:
    """The body as it came, which is what was signed. What is longer is not read to its end."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_WEBHOOK_BYTES:
            raise Problem(413, f"A webhook has at most {MAX_WEBHOOK_BYTES} bytes.")
    return bytes(body)


def _said(event: WebhookEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "type": event.type,
        "created": int(event.created.timestamp()),
        "livemode": event.livemode,
        "account": event.account,
        "data": {"object": event.data.object},
    }
