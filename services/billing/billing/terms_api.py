"""HTTP for operators: who is billed by us, payments that come, and invoices that are withdrawn."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from typing import Annotated

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import Field, StringConstraints

from aragora.chassis.answering import answer, documented
from aragora.chassis.bodies import Body, invalid
from aragora.chassis.problems import Problem, responses
from aragora.chassis.sql import Connection
from aragora.chassis.store import VersionConflict
from aragora.contracts.events import PLATFORM
from billing import answers, invoice_reading, ledger, manual_invoice, manual_invoices
from billing import invoice_answers as shapes
from billing.api import OrgId, clock_of, payments_of, pool_of
from billing.invoice_reading import money
from billing.invoices_api import InvoiceId, settings_of
from billing.ledger_api import Amount, Operator, Reference, Words, recorder
from billing.manual_invoice import InvalidTerms, Terms
from billing.manual_invoices import NotPayable, Payment, UnknownInvoice
from billing.money import USD

router = APIRouter(prefix="/api/billing/organizations/{org_id}", tags=["operators"])

FARTHEST = timedelta(days=400)
"""How far from now terms may begin: farther is a slip of the pen."""

Day = Annotated[date, Field(strict=False)]
answers_terms = documented(answers.Success[shapes.Terms], "The terms", money="number")
refusals = responses(400, 401, 403, 404, 409, 413, 422)


class BilledTo(Body):
    """Who an invoice is for, as they are to be addressed. It is on invoices, and nowhere else."""

    name: Words
    address: Annotated[list[Words], Field(max_length=8, default_factory=list)]
    country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")] | None = None
    tax_id: Annotated[Words, Field(max_length=40)] | None = None


class NewTerms(Body):
    """How an organization is billed: from a day (UTC) on, payable within so many days."""

    billed_to: BilledTo
    net_days: Annotated[int, Field(ge=0, le=365)] = 30
    starts_on: Day


class NewPayment(Body):
    """Money that came. `reference` (the bank's, say) names it: the same one again changes nothing."""

    invoice_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    amount: Amount
    reference: Reference
    paid_on: Day


@router.put("/terms", summary="Bill outside Stripe", responses=answers_terms | refusals)
async def set_terms(request: Request, principal: Operator, org_id: OrgId, body: NewTerms) -> Response:
    """From `starts_on` on, each month is billed after its end by an invoice of our own, which somebody pays by hand.

    The same day again changes whom it is for and when it is payable, and takes back that the terms were to end.
    """
    now = clock_of(request)()
    if abs(body.starts_on - now.date()) > FARTHEST:
        raise invalid("starts_on", f"must be within {FARTHEST.days} days of today")
    async with _owed_by(request, org_id) as connection:
        known = await manual_invoices.terms_of(connection, org_id)
        billed_to = body.billed_to.model_dump_json()
        try:
            terms = manual_invoice.set_terms(
                known, body.starts_on, body.net_days, billed_to, settings_of(request).invoice_day
            )
        except InvalidTerms as error:
            raise invalid(error.field, str(error)) from error
        await manual_invoices.save_terms(connection, org_id, terms, recorder(principal), now)
    return _answer(terms)


@router.get("/terms", summary="How an organization is billed outside Stripe", responses=answers_terms | refusals)
async def read_terms(request: Request, _: Operator, org_id: OrgId) -> Response:
    """The terms, also those that have ended."""
    async with pool_of(request).acquire() as connection:
        return _answer(await _terms(connection, org_id))


@router.delete("/terms", summary="End billing outside Stripe", responses=answers_terms | refusals)
async def end_terms(request: Request, principal: Operator, org_id: OrgId) -> Response:
    """Today (UTC) is the first day that is not billed. What is owed until then is billed when its month is."""
    now = clock_of(request)()
    async with _owed_by(request, org_id) as connection:
        terms = manual_invoice.end_terms(await _terms(connection, org_id), now.date())
        await manual_invoices.save_terms(connection, org_id, terms, recorder(principal), now)
    return _answer(terms)


@router.post(
    "/payments",
    summary="Record a payment",
    responses=documented(answers.Success[shapes.PaymentRecorded], "The invoice after it", money="number") | refusals,
)
async def record_payment(request: Request, principal: Operator, org_id: OrgId, body: NewPayment) -> Response:
    """Money that came for one of our own invoices, all of it or a part. What is too much becomes a credit."""
    now = clock_of(request)()
    if not date(2000, 1, 1) <= body.paid_on <= now.date():
        raise invalid("paid_on", "must be a day until today (UTC)")
    payment = Payment(body.invoice_id, body.amount, body.reference, body.paid_on)
    async with _owed_by(request, org_id) as connection:
        invoice, over = await manual_invoices.record_payment(
            connection, org_id, payment, recorder(principal), now, payments_of(request).grace
        )
    message = f"The invoice is {invoice.status}."
    if over:
        message += f" {money(over, USD)} was paid too much, and is credited: the next invoices are lower by it."
    elif invoice.is_owed:
        message += f" {money(invoice.amount_due - invoice.amount_paid, USD)} is still owed."
    done = shapes.PaymentRecorded(invoice_reading.summary(invoice), over, message)
    return answer(answers.Success(done), money="number")


@router.post(
    "/invoices/{invoice_id}/void",
    summary="Withdraw an invoice",
    responses=documented(answers.Success[shapes.InvoiceSummary], "The invoice", money="number") | refusals,
)
async def void_invoice(request: Request, principal: Operator, org_id: OrgId, invoice_id: InvoiceId) -> Response:
    """Withdraws one of our own that is not paid. What was credited on it or paid of it is credited again, and its
    charges for usage wait for the next invoice; its plan's price is not billed again by itself.
    """
    now = clock_of(request)()
    async with _owed_by(request, org_id) as connection:
        invoice = await manual_invoices.void(
            connection, org_id, invoice_id, recorder(principal), now, payments_of(request).grace
        )
    return answer(answers.Success(invoice_reading.summary(invoice)), money="number")


@asynccontextmanager
async def _owed_by(request: Request, org_id: str) -> AsyncIterator[Connection]:
    """A transaction in which nobody else bills the organization; what it refuses is answered."""
    if org_id == PLATFORM:
        raise Problem(404, f"{PLATFORM!r} stands for the platform, and is billed by nobody; name an organization.")
    try:
        async with pool_of(request).acquire() as connection, connection.transaction():
            await ledger.hold(connection, org_id)
            yield connection
    except UnknownInvoice as error:
        raise Problem(404, str(error)) from error
    except NotPayable as error:
        raise Problem(409, str(error)) from error
    except VersionConflict as error:
        raise Problem(409, "Others are changing this organization's billing; look at it and try again.") from error


async def _terms(connection: Connection, org_id: str) -> Terms:
    terms = await manual_invoices.terms_of(connection, org_id)
    if terms is None:
        raise Problem(404, "The organization is not billed outside Stripe; PUT terms to begin.")
    return terms


def _answer(terms: Terms) -> Response:
    to = msgspec.json.decode(terms.billed_to, type=shapes.BilledTo)
    shown = shapes.Terms(to, terms.net_days, terms.starts_on, terms.ends_on, terms.next_month, terms.due_at)
    return answer(answers.Success(shown), money="number")
