"""HTTP for an organization's people: its invoices, each line explained, as documents, and what was billed and paid."""

import asyncio
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response, Security
from fastapi.responses import RedirectResponse

from aragora.chassis import sql
from aragora.chassis.answering import answer, documented
from aragora.chassis.problems import Problem, responses
from aragora.chassis.security import Principal, organization_of, require
from aragora.chassis.sql import Connection
from billing import answers, invoice_documents, invoice_reading, invoices, subscriptions
from billing import invoice_answers as shapes
from billing.api import AnyOrgId, pool_of
from billing.invoice import Invoice
from billing.invoice_documents import Document
from billing.ledger import queries as ledger_queries
from billing.settings import Settings

router = APIRouter(prefix="/api/billing", tags=["invoices"])
charge_queries = sql.load("billing", "sql/charges.sql")

Reader = Annotated[Principal, Security(require("usage.read", people=True))]
InvoiceId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Cursor = Annotated[str | None, Query(max_length=400, description="The last page's next_cursor")]
Limit = Annotated[int, Query(ge=1, le=100)]
Month = Annotated[str | None, Query(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]

readers = responses(401, 403, 404, 422)
_page: dict[int | str, dict[str, Any]] = {
    200: {"description": "The page", "content": {"text/html": {}}},
    307: {"description": "Stripe's page"},
}
_pdf: dict[int | str, dict[str, Any]] = {
    200: {"description": "The document", "content": {"application/pdf": {}}},
    307: {"description": "Stripe's document"},
}
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_PAGE_HEADERS = {
    **_HEADERS,
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
}


@router.get(
    "/invoices",
    summary="Invoices",
    responses=documented(answers.Success[shapes.InvoicePage], "The newest first", money="number") | readers,
)
async def list_invoices(
    request: Request, principal: Reader, org_id: AnyOrgId = None, cursor: Cursor = None, limit: Limit = 20
) -> Response:
    """Every invoice, Stripe's and our own. Follow `next_cursor` for older ones."""
    organization = whose(principal, org_id)
    before = page_before(cursor)
    rows = await pool_of(request).fetch(invoices.queries.invoices_page, organization, *before, limit)
    found = [invoice_reading.summary(invoices.invoice_of(row)) for row in rows]
    last = found[-1] if len(found) == limit else None
    after = invoice_reading.cursor_after(last.created_at, last.invoice_id) if last else None
    return answer(answers.Success(shapes.InvoicePage(found, after)), money="number")


@router.get(
    "/invoices/{invoice_id}",
    summary="An invoice, explained",
    responses=documented(answers.Success[shapes.Invoice], "The lines add up to the total", money="number") | readers,
)
async def read_invoice(request: Request, principal: Reader, invoice_id: InvoiceId, org_id: AnyOrgId = None) -> Response:
    """An invoice with its lines. Each says in words and figures how it comes about: which usage, price and rule."""
    async with pool_of(request).acquire() as connection:
        found, _ = await _read(connection, whose(principal, org_id), invoice_id)
    return answer(answers.Success(found), money="number")


@router.get(
    "/invoices/{invoice_id}/html",
    summary="An invoice as a page",
    response_class=Response,
    responses=_page | responses(401, 403, 404, 409, 422),
)
async def invoice_page(request: Request, principal: Reader, invoice_id: InvoiceId, org_id: AnyOrgId = None) -> Response:
    """One of our own as a page that prints well. Stripe's are on Stripe's page: 307."""
    async with pool_of(request).acquire() as connection:
        found, saved = await _read(connection, whose(principal, org_id), invoice_id)
    if saved.collected_by == "stripe":
        return _elsewhere(saved.hosted_url)
    page = invoice_documents.html(_document(request, found, saved))
    headers = _PAGE_HEADERS | {"Content-Disposition": f'inline; filename="{_file_name(saved)}.html"'}
    return Response(page, media_type="text/html", headers=headers)


@router.get(
    "/invoices/{invoice_id}/pdf",
    summary="An invoice as PDF",
    response_class=Response,
    responses=_pdf | responses(401, 403, 404, 409, 422),
)
async def invoice_pdf(request: Request, principal: Reader, invoice_id: InvoiceId, org_id: AnyOrgId = None) -> Response:
    """One of our own as PDF, to download. Stripe's are at Stripe: 307."""
    async with pool_of(request).acquire() as connection:
        found, saved = await _read(connection, whose(principal, org_id), invoice_id)
    if saved.collected_by == "stripe":
        return _elsewhere(saved.pdf_url)
    one = _document(request, found, saved)
    from billing.invoice_pdf import pdf  # noqa: PLC0415 - a second's worth of fonts and images, for those who ask for it

    written = await asyncio.to_thread(pdf, one, settings_of(request).invoice_font)
    headers = _HEADERS | {"Content-Disposition": f'attachment; filename="{_file_name(saved)}.pdf"'}
    return Response(written, media_type="application/pdf", headers=headers)


@router.get(
    "/history",
    summary="What was billed and paid",
    responses=documented(answers.Success[shapes.HistoryPage], "The newest first", money="number") | readers,
)
async def history(
    request: Request, principal: Reader, org_id: AnyOrgId = None, cursor: Cursor = None, limit: Limit = 20
) -> Response:
    """Invoices, payments, refunds and credits. Follow `next_cursor` for what was before."""
    organization = whose(principal, org_id)
    rows = await pool_of(request).fetch(ledger_queries.history_page, organization, *page_before(cursor), limit)
    found = [invoice_reading.movement(row) for row in rows]
    after = invoice_reading.cursor_after(found[-1].occurred_at, found[-1].id) if len(found) == limit else None
    return answer(answers.Success(shapes.HistoryPage(found, after)), money="number")


@router.get(
    "/usage-charges",
    summary="What usage beyond the plan cost",
    responses=documented(answers.Success[list[shapes.UsageMonth]], "The latest months first", money="number") | readers,
)
async def usage_charges(
    request: Request, principal: Reader, org_id: AnyOrgId = None, month: Month = None, limit: Limit = 20
) -> Response:
    """Months of usage as they were charged, or why nothing was. Late usage is a further `sequence` of its month."""
    organization = whose(principal, org_id)
    async with pool_of(request).acquire() as connection:
        periods = await connection.fetch(charge_queries.charges_page, organization, month, limit)
        of_months = sorted({row["month"] for row in periods})
        charged = await connection.fetch(charge_queries.charges_of_months, organization, of_months)
    return answer(answers.Success(invoice_reading.months(periods, charged)), money="number")


def whose(principal: Principal, org_id: str | None) -> str:
    """The organization that is asked about; a service must name it."""
    organization = organization_of(principal, org_id)
    if organization is None:
        wrong = [(None, "org_id", "name the organization: this key belongs to none")]
        raise Problem(422, "Mend the fields listed in errors.", errors=wrong)
    return organization


def page_before(cursor: str | None) -> tuple[datetime | None, str | None]:
    """Where a page begins; 422 for a cursor that is none."""
    if cursor is None:
        return None, None
    try:
        return invoice_reading.read_cursor(cursor)
    except (ValueError, OverflowError) as error:
        wrong = [(None, "cursor", "is not one that this API gave; begin without it")]
        raise Problem(422, "Mend the fields listed in errors.", errors=wrong) from error


async def _read(connection: Connection, org_id: str, invoice_id: str) -> tuple[shapes.Invoice, Invoice]:
    saved = await invoices.load(connection, org_id, invoice_id)
    if saved is None:
        raise Problem(404, f"The organization has no invoice {invoice_id}.")
    charge_ids = [line.charge_id for line in saved.lines if line.charge_id]
    charged = await connection.fetch(charge_queries.charges_of_invoice, org_id, charge_ids)
    plans = await subscriptions.load_plans(connection)
    return invoice_reading.whole(saved, {row["charge_id"]: row for row in charged}, plans), saved


def _elsewhere(url: str | None) -> Response:
    if url is None:
        raise Problem(409, "Stripe has no document for this invoice yet: it is a draft.")
    return RedirectResponse(url, 307, headers=_HEADERS)


def _document(request: Request, found: shapes.Invoice, saved: Invoice) -> Document:
    return invoice_documents.document(found, saved.billed_to, settings_of(request).invoice_from)


def settings_of(request: Request) -> Settings:
    """What the service was told."""
    settings: Settings = request.app.state.billing_settings
    return settings


def _file_name(invoice: Invoice) -> str:
    return invoice.number or invoice.invoice_id
