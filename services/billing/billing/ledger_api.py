"""HTTP about credits: what is in an organization's favour, coupons, and credits that operators grant."""

from datetime import timedelta
from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response, Security
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field

from aragora.chassis.answering import answer, documented
from aragora.chassis.bodies import Body
from aragora.chassis.problems import Problem, responses
from aragora.chassis.security import Principal, require
from aragora.contracts.ids import new_id
from aragora.contracts.keys import OPERATOR
from billing import answers, coupons, invoice_reading, ledger
from billing import invoice_answers as shapes
from billing.api import AnyOrgId, OrgId, clock_of, pool_of
from billing.coupons import CouponExists, NotRedeemable, UnknownCoupon
from billing.invoices_api import Cursor, Limit, Reader, page_before, readers, whose
from billing.ledger import Entry
from billing.money import USD

router = APIRouter(prefix="/api/billing", tags=["credits"])
Operator = Annotated[Principal, Security(require(OPERATOR))]
Person = Annotated[Principal, Security(require(OPERATOR, people=True))]

MAX_AMOUNT = 10**7
FARTHEST = timedelta(days=3653)


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be an amount, as a number or a text")  # noqa: TRY004 - pydantic wants a ValueError
    return value


def _single_line(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise ValueError("must be a line of printable characters")
    return text.strip()


Amount = Annotated[
    Decimal, BeforeValidator(_no_bool), Field(gt=0, le=MAX_AMOUNT, decimal_places=2, strict=False, description="In USD")
]
Words = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_single_line)]
Reference = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._:/#+-]+$")]
Code = Annotated[str, Field(min_length=4, max_length=40, pattern=r"^[A-Za-z0-9_-]+$"), AfterValidator(str.upper)]


class CreditGrant(Body):
    """A credit. With a `reference` the same request again changes nothing."""

    amount_usd: Amount
    reason: Words
    reference: Reference | None = None


class NewCoupon(Body):
    """A coupon. `max_redemptions` null: any number of organizations; `redeem_by` null: no end."""

    code: Code
    amount_usd: Amount
    max_redemptions: Annotated[int, Field(ge=1, le=10**9)] | None = None
    redeem_by: Annotated[AwareDatetime, Field(strict=False)] | None = None


class Redemption(Body):
    """Which coupon."""

    code: Code


def recorder(principal: Principal) -> str:
    """Who records something: a person's id, or a service by its name."""
    return principal.subject if principal.kind == "user" else f"{principal.kind}:{principal.subject}"


@router.get(
    "/balance",
    summary="What is in the organization's favour",
    responses=documented(answers.Success[shapes.Balance], "The newest entries first", money="number") | readers,
)
async def read_balance(
    request: Request, principal: Reader, org_id: AnyOrgId = None, cursor: Cursor = None, limit: Limit = 20
) -> Response:
    """The balance and the entries of the ledger. What Stripe has taken over is on Stripe's invoices as `credited`."""
    organization = whose(principal, org_id)
    async with pool_of(request).acquire() as connection, connection.transaction(isolation="repeatable_read"):
        balance = await ledger.balance(connection, organization)
        moving = balance - await ledger.available(connection, organization)
        rows = await connection.fetch(ledger.queries.entries_page, organization, *page_before(cursor), limit)
    found = [_shown(ledger.entry_of(row)) for row in rows]
    after = invoice_reading.cursor_after(found[-1].recorded_at, found[-1].entry_id) if len(found) == limit else None
    return answer(answers.Success(shapes.Balance(balance, moving, USD, found, after)), money="number")


@router.post(
    "/organizations/{org_id}/credits",
    summary="Grant a credit",
    status_code=201,
    responses=documented(answers.Success[shapes.LedgerEntry], "The entry of the ledger", status=201, money="number")
    | responses(400, 401, 403, 409, 413, 422),
)
async def grant_credit(request: Request, principal: Operator, org_id: OrgId, body: CreditGrant) -> Response:
    """Takes something off the next invoices: ours, or Stripe's, if the organization pays there."""
    now = clock_of(request)()
    entry = Entry(
        f"credit/{body.reference or new_id().hex}", "credit", body.amount_usd, body.reason, recorder(principal), now
    )
    async with pool_of(request).acquire() as connection, connection.transaction():
        if not await ledger.grant(connection, org_id, entry):
            before = await ledger.find(connection, org_id, entry.entry_id)
            if before is None or (before.amount, before.reason) != (entry.amount, entry.reason):
                raise Problem(409, f"Another credit has the reference {body.reference} already: choose its own one.")
            entry = before
    return answer(answers.Success(_shown(entry)), status=201, money="number")


@router.post(
    "/coupons",
    summary="Create a coupon",
    status_code=201,
    responses=documented(answers.Success[shapes.Coupon], "The coupon", status=201, money="number")
    | responses(400, 401, 403, 409, 413, 422),
)
async def create_coupon(request: Request, principal: Operator, body: NewCoupon) -> Response:
    """A code that gives a credit, to each organization once. The same request again changes nothing."""
    now = clock_of(request)()
    if body.redeem_by is not None and not now < body.redeem_by <= now + FARTHEST:
        wrong = [(None, "redeem_by", "must be in the future, by no more than ten years")]
        raise Problem(422, "Mend the fields listed in errors.", errors=wrong)
    coupon = coupons.Coupon(body.code, body.amount_usd, body.max_redemptions, body.redeem_by)
    async with pool_of(request).acquire() as connection, connection.transaction():
        try:
            await coupons.create(connection, coupon, recorder(principal), now)
        except CouponExists as error:
            raise Problem(409, str(error)) from error
        found = await coupons.read(connection, coupon.code)
    return answer(answers.Success(found), status=201, money="number")


@router.get(
    "/coupons",
    summary="Coupons",
    responses=documented(answers.Success[list[shapes.Coupon]], "The newest first", money="number")
    | responses(401, 403, 422),
)
async def list_coupons(request: Request, _: Operator, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response:
    """The coupons there are, and how often each was redeemed."""
    async with pool_of(request).acquire() as connection:
        found = await coupons.latest(connection, limit)
    return answer(answers.Success(found), money="number")


@router.post(
    "/coupons/redeem",
    summary="Redeem a coupon",
    responses=documented(answers.Success[shapes.LedgerEntry], "The entry of the ledger", money="number")
    | responses(400, 401, 403, 404, 409, 413, 422),
)
async def redeem_coupon(request: Request, principal: Person, body: Redemption, org_id: AnyOrgId = None) -> Response:
    """For owners and admins: what the coupon is good for is taken off the next invoices. Each organization once."""
    organization = whose(principal, org_id)
    if not principal.administers:
        raise Problem(403, "Only an owner or admin of the organization may redeem a coupon.")
    async with pool_of(request).acquire() as connection:
        try:
            entry = await coupons.redeem(connection, organization, body.code, recorder(principal), clock_of(request)())
        except UnknownCoupon as error:
            raise Problem(404, str(error)) from error
        except NotRedeemable as error:
            raise Problem(409, str(error)) from error
    return answer(answers.Success(_shown(entry)), money="number")


def _shown(entry: Entry) -> shapes.LedgerEntry:
    return shapes.LedgerEntry(**{name: getattr(entry, name) for name in shapes.LedgerEntry.__struct_fields__})
