"""HTTP about paying through Stripe: begin, look, change the card, see what a change would cost."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response, Security
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from aragora.chassis.answering import answer, documented
from aragora.chassis.problems import Problem, responses
from aragora.chassis.security import Principal, organization_of, require
from aragora.contracts.keys import OPERATOR
from aragora.contracts.plans import Plan
from billing import answers, checkout, paid_changes, payment_answers, reflecting, subscriptions
from billing.api import AnyOrgId, clock_of, may_read, payments_of, pool_of
from billing.intents import queries
from billing.payments import Payments
from billing.plans import Plans
from billing.refusals import as_problems, wrong_field
from billing.stripe_gateway import Json

router = APIRouter(prefix="/api/billing", tags=["payments"])
Person = Annotated[Principal, Security(require(OPERATOR, people=True))]
Reader = Annotated[Principal, may_read]


def _is_page(url: str) -> str:
    """Refuses what a browser could not be sent to."""
    try:
        parts = urlsplit(url)
        is_page = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_page = False
    if not is_page or not url.isprintable() or any(letter.isspace() for letter in url):
        raise ValueError("must be the address of a page: http:// or https://, and a host")
    return url


Url = Annotated[str, Field(min_length=1, max_length=2048, pattern="^https?://"), AfterValidator(_is_page)]
PlanId = Annotated[str, Field(min_length=1, max_length=63, description="As /api/subscription/plans names it")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class PlanWanted(_Body):
    """Which plan; `tier` is another word for it."""

    plan: PlanId | None = None
    tier: PlanId | None = None

    @model_validator(mode="after")
    def _names_one(self) -> "PlanWanted":
        if (self.plan is None) == (self.tier is None):
            raise ValueError("name the plan: as plan, or as tier")
        return self

    @property
    def wanted(self) -> str:
        """The plan's id."""
        return self.plan or self.tier or ""


class CheckoutBody(PlanWanted):
    """Which plan, and where Stripe sends people afterwards. `{CHECKOUT_SESSION_ID}` in it is filled in by Stripe."""

    success_url: Url
    cancel_url: Url


class PortalBody(_Body):
    """Where Stripe's page leads back to."""

    return_url: Url


@router.post(
    "/checkout",
    summary="Begin to pay",
    responses=documented(answers.Success[payment_answers.Checkout], "The page to pay on")
    | responses(400, 401, 403, 404, 409, 422, 503),
)
async def begin(request: Request, principal: Person, body: CheckoutBody, org_id: AnyOrgId = None) -> Response:
    """A page of Stripe's where an owner or admin pays for a plan. Asked again, it is the same page while it is open.

    The plan begins when it is paid for, whoever visits the pages afterwards. 409 if the organization pays already.
    """
    organization = _decides(principal, org_id)
    payments = payments_of(request)
    plan, _ = await _for_sale(request, body.wanted)
    email = principal.token.email if principal.token else None
    with as_problems():
        payments.gateway.demand()
        price_id = payments.prices.of(plan.plan)
        wanted = checkout.Wanted(organization, plan.plan, price_id, body.success_url, body.cancel_url)
        opened = await checkout.check_out(payments, wanted, email, clock_of(request)())
    return answer(answers.Success(opened))


@router.post(
    "/portal",
    summary="Card, invoices and plan at Stripe",
    responses=documented(answers.Success[payment_answers.Page], "Stripe's page")
    | responses(400, 401, 403, 409, 422, 503),
)
async def open_portal(request: Request, principal: Person, body: PortalBody, org_id: AnyOrgId = None) -> Response:
    """A page of Stripe's where an owner or admin updates the card, and finds the invoices."""
    organization = _decides(principal, org_id)
    with as_problems():
        url = await checkout.open_portal(payments_of(request), organization, body.return_url)
    if url is None:
        raise Problem(
            409, "The organization has never paid through Stripe: that begins with POST /api/billing/checkout."
        )
    return answer(answers.Success(payment_answers.Page(url)))


@router.get(
    "/payment-method",
    summary="How it is paid",
    responses=documented(answers.Success[payment_answers.PaymentMethod], "As Stripe says now")
    | responses(401, 403, 409, 422, 503),
)
async def payment_method(request: Request, principal: Reader, org_id: AnyOrgId = None) -> Response:
    """The card by which an organization pays, for its owners and admins: nothing of it is kept here."""
    organization = _named(principal, org_id)
    if not principal.administers:
        raise Problem(403, "Only an owner or admin of the organization may see how it pays.")
    with as_problems():
        method, has_failed = await _method(payments_of(request), organization)
    return answer(answers.Success(payment_answers.method_answer(method, clock_of(request)(), has_failed=has_failed)))


@router.get(
    "/subscription",
    summary="What is paid for",
    responses=documented(answers.Success[payment_answers.PaidSubscription], "How it stands", money="number")
    | responses(401, 403, 404, 422),
)
async def read_standing(request: Request, principal: Reader, org_id: AnyOrgId = None) -> Response:
    """What an organization pays for, until when, what is owed, and what somebody is to do about it."""
    organization = _named(principal, org_id)
    now = clock_of(request)()
    async with pool_of(request).acquire() as connection:
        row = await connection.fetchrow(subscriptions.queries.subscription_of, organization)
        if row is None:
            raise Problem(404, f"The organization {organization} has no subscription; an operator starts one with PUT.")
        plans = await subscriptions.load_plans(connection)
        reference = await connection.fetchval(queries.paying_subscription, organization)
        standing = payment_answers.standing_answer(
            row,
            plans.version(row["plan"], row["plan_version"]),
            await connection.fetchrow(queries.stripe_subscription, organization, reference),
            await connection.fetchrow(reflecting.queries.dunning_of, organization),
            await connection.fetchrow(queries.oldest_open_invoice, organization),
            now,
            is_invoiced=await connection.fetchval(queries.has_terms, organization, now.date()),
            shows_page=principal.administers,
        )
    return answer(answers.Success(standing), money="number")


@router.post(
    "/preview",
    summary="What a change would cost",
    responses=documented(answers.Success[payment_answers.Preview], "If it were made now", money="number")
    | responses(400, 401, 403, 409, 422, 503),
)
async def preview(request: Request, principal: Person, body: PlanWanted, org_id: AnyOrgId = None) -> Response:
    """What a change to another plan would cost now, to the cent, and what the next invoice would say."""
    organization = _decides(principal, org_id)
    plan, plans = await _for_sale(request, body.wanted)
    row = await pool_of(request).fetchrow(subscriptions.queries.subscription_of, organization)
    if row is None or row["payment_reference"] is None:
        raise Problem(
            409, "The organization does not pay through Stripe yet: POST /api/billing/checkout shows the price."
        )
    with as_problems():
        at_once, following = await paid_changes.preview(
            payments_of(request), row["payment_reference"], organization, plan, plans, clock_of(request)()
        )
    return answer(answers.Success(payment_answers.preview_answer(plan.plan, at_once, following)), money="number")


def _named(principal: Principal, org_id: str | None) -> str:
    organization = organization_of(principal, org_id)
    if organization is None:
        raise wrong_field("org_id", "name the organization: your key belongs to none")
    return organization


def _decides(principal: Principal, org_id: str | None) -> str:
    organization = _named(principal, org_id)
    if not principal.administers:
        raise Problem(403, "Only an owner or admin of the organization may decide on what it pays.")
    return organization


async def _for_sale(request: Request, name: str) -> tuple[Plan, Plans]:
    """A plan that people may buy, and all plans."""
    async with pool_of(request).acquire() as connection:
        plans = await subscriptions.load_plans(connection)
    with as_problems():
        plan = plans.current(name)
    if not plan.listed or plan.price_usd_per_month == 0:
        offered = ", ".join(one.plan for one in plans.listed if one.price_usd_per_month > 0)
        raise wrong_field("plan", f"{plan.name} cannot be bought; there are {offered}")
    return plan, plans


async def _method(payments: Payments, org_id: str) -> tuple[Json | None, bool]:
    """The payment method of the subscription, else the customer's, and whether the last payment failed."""
    async with payments.pool.acquire() as connection:
        customer_id = await connection.fetchval(reflecting.queries.live_customer_of, org_id)
        reference = await connection.fetchval(queries.paying_subscription, org_id)
    if customer_id is None:
        return None, False
    customer = await payments.gateway.customer(customer_id)
    method: Json | None = (customer.get("invoice_settings") or {}).get("default_payment_method")
    if reference is None:
        return method, False
    paid = await payments.gateway.subscription(reference)
    if paid["default_payment_method"] is not None:
        method = await payments.gateway.payment_method(paid["default_payment_method"])
    return method, paid["status"] in ("past_due", "unpaid", "incomplete")
