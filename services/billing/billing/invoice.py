"""An invoice: what it says, and what follows from it as it changes. Pure.

Stripe's invoices and our own are one thing here. Each has a stream `invoice/<id>` with the facts about it that others
should know, each once, in whatever order, and however often, its states are seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Literal

from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events import (
    CollectedBy,
    InvoiceFinalized,
    InvoiceVoided,
    PaymentActionRequired,
    PaymentRefunded,
    PaymentSucceeded,
)
from billing.money import USD

Status = Literal["draft", "open", "paid", "void", "uncollectible"]
Rule = Literal["plan", "proration", "overage", "credit", "other"]
ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of an invoice. Amounts in the invoice's currency; a credit is negative."""

    line_id: str
    rule: Rule
    """Why it is there: a plan's price, a part of it, usage beyond a plan, something credited, or something else."""
    description: str
    amount: Decimal
    quantity: Decimal | None = None
    unit_amount: Decimal | None = None
    period_start: datetime | None = None
    period_end: datetime | None = None
    plan: str | None = None
    plan_version: int | None = None
    price_id: str | None = None
    """Stripe's price."""
    charge_id: str | None = None
    """The row of `usage_charges` that explains it."""


@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice as it stands. Amounts in the currency's main unit."""

    invoice_id: str
    collected_by: CollectedBy
    status: Status
    created_at: datetime
    total: Decimal
    amount_due: Decimal
    subtotal: Decimal = ZERO
    credited: Decimal = ZERO
    """What the balance took off the total; negative: what the total added to the balance."""
    amount_paid: Decimal = ZERO
    currency: str = USD
    number: str | None = None
    attempts: int = 0
    next_attempt_at: datetime | None = None
    needs_action: bool = False
    """The payer's bank asks for a confirmation."""
    period_start: datetime | None = None
    period_end: datetime | None = None
    finalized_at: datetime | None = None
    due_at: datetime | None = None
    paid_at: datetime | None = None
    subscription_id: str | None = None
    payment_intent_id: str | None = None
    hosted_url: str | None = None
    pdf_url: str | None = None
    billed_to: str | None = None
    """JSON: name, address and tax id; of our own invoices."""
    lines: tuple[Line, ...] = ()

    @property
    def is_owed(self) -> bool:
        """Whether somebody still has to pay it."""
        return self.status == "open" and self.amount_due > self.amount_paid


@dataclass(frozen=True, slots=True)
class Told:
    """What was said about an invoice."""

    finalized: bool = False
    ended: bool = False
    """It was said to be void or uncollectible."""
    paid: bool = False
    action_required: bool = False
    refunded: Decimal = ZERO


def evolve(told: Told, event: DomainEvent) -> Told:
    """What was said, with this event."""
    match event:
        case InvoiceFinalized():
            return replace(told, finalized=True)
        case InvoiceVoided():
            return replace(told, ended=True)
        case PaymentSucceeded():
            return replace(told, paid=True)
        case PaymentActionRequired():
            return replace(told, action_required=True)
        case PaymentRefunded():
            return replace(told, refunded=event.refunded)
    return told


def decide(told: Told, invoice: Invoice) -> Sequence[DomainEvent]:
    """What is to be said of an invoice as it stands now, and was not yet."""
    events: list[DomainEvent] = []
    identity = {"invoice_id": invoice.invoice_id, "currency": invoice.currency}
    if invoice.status == "draft":
        return events
    if not told.finalized:
        events.append(
            InvoiceFinalized(
                **identity,
                number=invoice.number,
                collected_by=invoice.collected_by,
                total=invoice.total,
                amount_due=invoice.amount_due,
                finalized_at=invoice.finalized_at or invoice.created_at,
                due_at=invoice.due_at,
            )
        )
    if invoice.needs_action and invoice.is_owed and not told.action_required:
        events.append(PaymentActionRequired(**identity, amount=invoice.amount_due))
    if invoice.status in ("void", "uncollectible") and not told.ended:
        events.append(InvoiceVoided(invoice_id=invoice.invoice_id, status=invoice.status))
    if invoice.status == "paid" and not told.paid:
        paid_at = invoice.paid_at or invoice.finalized_at or invoice.created_at
        events.append(
            PaymentSucceeded(**identity, amount=invoice.amount_paid, paid_at=paid_at, collected_by=invoice.collected_by)
        )
    return events


def decide_refund(told: Told, invoice_id: str, currency: str, refunded: Decimal) -> Sequence[DomainEvent]:
    """Say how much of an invoice has gone back, if it is more than was said."""
    if refunded <= told.refunded:
        return []
    return [PaymentRefunded(invoice_id=invoice_id, refunded=refunded, currency=currency)]
