"""How an organization's payments stand, in figures and in words, and the shapes of these answers. Pure."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from msgspec import Struct

from aragora.contracts.plans import Plan
from billing.money import from_minor
from billing.projections import Row
from billing.standing import Json, moment

EXPIRING = timedelta(days=30)
"""A card that is good for less than that is one to replace."""

Standing = Literal["none", "active", "trialing", "canceling", "changing", "past_due", "expired", "invoiced"]
_WORDS: dict[Standing, str] = {
    "none": "Nothing is paid for.",
    "active": "The plan is paid for, and goes on by itself.",
    "trialing": "The plan is on trial; the card is charged when the trial ends.",
    "canceling": "The plan is paid for, and ends with the period.",
    "changing": "The plan is paid for, and another one follows it at the end of the period.",
    "past_due": "The last invoice is not paid; the plan goes on while the grace period runs.",
    "expired": "The last invoice was not paid in time, and the plan has ended.",
    "invoiced": "The plan is paid by invoice, outside Stripe.",
}
_NEXT: dict[Standing, str] = {
    "none": "Choose a plan, and pay for it with POST /api/billing/checkout.",
    "canceling": "To keep the plan: POST /api/subscription/organizations/{org_id}/subscription/resume.",
    "past_due": "Update the card with POST /api/billing/portal, or pay the open invoice on its page, before the grace "
    "period ends.",
    "expired": "Pay for a plan again with POST /api/billing/checkout.",
}


class Page(Struct):
    """Where somebody goes on in a browser."""

    url: str


class Checkout(Struct):
    """A page of Stripe's where a plan is paid for; it is good until `expires_at`."""

    session_id: str
    url: str
    expires_at: datetime


class PaymentMethod(Struct):
    """How an organization pays, by Stripe's word of this moment. Nothing of it is kept here.

    `expiring`: the card is good for less than 30 days. `failed`: the last payment did not go through, or the card is
    past its last day.
    """

    status: Literal["none", "ok", "expiring", "failed"]
    brand: str | None = None
    last4: str | None = None
    exp_month: int | None = None
    exp_year: int | None = None


class Grace(Struct):
    """An invoice that is not paid, and how long the plan goes on all the same."""

    invoice_id: str
    attempt: int
    started_at: datetime
    ends_at: datetime
    is_over: bool


class OpenInvoice(Struct):
    """The oldest invoice that somebody still has to pay. `url`: its page, for owners and admins."""

    invoice_id: str
    amount: Decimal
    currency: str
    url: str | None


class PaidSubscription(Struct):
    """What an organization pays for, and how that stands."""

    org_id: str
    plan: str
    plan_name: str
    price_monthly: Decimal
    paid_through: Literal["stripe", "operator"] | None
    status: Standing
    summary: str
    next_step: str | None
    current_period_start: datetime | None
    current_period_end: datetime | None
    cancel_at: datetime | None
    next_plan: str | None
    next_plan_at: datetime | None
    grace: Grace | None
    open_invoice: OpenInvoice | None


class PreviewLine(Struct):
    """A line as it would stand on the invoice; a credit is negative."""

    description: str
    amount: Decimal
    is_proration: bool


class PreviewInvoice(Struct):
    """An invoice as it would be. `due`: what would be charged, after what stands to the organization's credit."""

    at: datetime
    total: Decimal
    due: Decimal
    currency: str
    lines: list[PreviewLine]


class Preview(Struct):
    """What a change to a plan would cost, if it were made now."""

    plan: str
    amount_due_now: Decimal
    currency: str
    now: PreviewInvoice | None
    """None: nothing is charged now."""
    next: PreviewInvoice


def standing_answer(
    row: Row, plan: Plan, paid: "Row | None", dunned: "Row | None", owed: "Row | None", now: datetime, *,
    is_invoiced: bool, shows_page: bool,
) -> PaidSubscription:  # fmt: skip
    """How it stands.

    Args:
        row: of `subscription_of`.
        plan: the version that the organization has.
        paid: Stripe's subscription, a row of `stripe_subscription`.
        dunned: a row of `dunning_of`.
        owed: a row of `oldest_open_invoice`.
        now: in UTC.
        is_invoiced: the organization has billing terms.
        shows_page: whoever asks may pay.
    """
    grace = None
    if dunned is not None and dunned["invoice_id"] is not None:
        is_over = dunned["expired_at"] is not None
        grace = Grace(dunned["invoice_id"], dunned["attempt"], dunned["started_at"], dunned["ends_at"], is_over)
    is_changing = paid is not None and paid["kept_until"] is not None and now < paid["kept_until"]
    status = _status(paid, grace, is_invoiced=is_invoiced, is_changing=is_changing)
    through: Literal["stripe", "operator"] | None = "operator" if is_invoiced else None
    step = _NEXT.get(status)
    return PaidSubscription(
        org_id=row["org_id"],
        plan=plan.plan,
        plan_name=plan.name,
        price_monthly=plan.price_usd_per_month,
        paid_through="stripe" if row["payment_reference"] else through,
        status=status,
        summary=_WORDS[status],
        next_step=step.format(org_id=row["org_id"]) if step else None,
        current_period_start=paid["current_period_start"] if paid else None,
        current_period_end=paid["current_period_end"] if paid else None,
        cancel_at=paid["cancel_at"] if paid else None,
        next_plan=paid["plan"] if paid and is_changing else None,
        next_plan_at=paid["kept_until"] if paid and is_changing else None,
        grace=grace,
        open_invoice=OpenInvoice(
            owed["invoice_id"], owed["amount"], owed["currency"].upper(), owed["hosted_url"] if shows_page else None
        )
        if owed
        else None,
    )


def _status(paid: "Row | None", grace: Grace | None, *, is_invoiced: bool, is_changing: bool) -> Standing:
    if grace is not None:
        return "expired" if grace.is_over else "past_due"
    if paid is None:
        return "invoiced" if is_invoiced else "none"
    if paid["status"] not in ("active", "trialing"):
        return "past_due"
    if paid["cancel_at"] is not None:
        return "canceling"
    if is_changing:
        return "changing"
    return "trialing" if paid["status"] == "trialing" else "active"


def method_answer(method: Json | None, now: datetime, *, has_failed: bool) -> PaymentMethod:
    """How somebody pays, from Stripe's payment method; None: no way is known."""
    if method is None:
        return PaymentMethod("failed" if has_failed else "none")
    details = method.get(method["type"]) or {}
    month, year = details.get("exp_month"), details.get("exp_year")
    about = (details.get("brand") or method["type"], details.get("last4"), month, year)
    if has_failed or month is None or year is None:
        return PaymentMethod("failed" if has_failed else "ok", *about)
    ends_at = now.replace(
        year=year + month // 12, month=month % 12 + 1, day=1, hour=0, minute=0, second=0, microsecond=0
    )
    if ends_at <= now:
        return PaymentMethod("failed", *about)
    return PaymentMethod("expiring" if ends_at - now < EXPIRING else "ok", *about)


def preview_answer(plan: str, at_once: Json | None, following: Json) -> Preview:
    """What a change would cost, from the invoices as Stripe would write them."""
    now = _preview(at_once) if at_once is not None else None
    then = _preview(following)
    return Preview(plan, now.due if now else Decimal(0), then.currency, now, then)


def _preview(said: Json) -> PreviewInvoice:
    currency = said["currency"]
    return PreviewInvoice(
        at=moment(said.get("next_payment_attempt") or said["period_end"]),
        total=from_minor(said["total"], currency),
        due=from_minor(max(0, said["amount_due"]), currency),
        currency=currency.upper(),
        lines=list(_lines(said["lines"]["data"], currency)),
    )


def _lines(said: Iterable[dict[str, Any]], currency: str) -> Iterable[PreviewLine]:
    for line in said:
        parent = line.get("parent") or {}
        details = parent.get("subscription_item_details") or parent.get("invoice_item_details") or {}
        amount = from_minor(line["amount"], currency)
        yield PreviewLine(line.get("description") or "", amount, bool(details.get("proration")))
