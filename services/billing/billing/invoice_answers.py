"""The shapes of answers about invoices, what explains them, and the ledger. Amounts are exact decimals."""

from datetime import date, datetime
from decimal import Decimal
from typing import Literal

from msgspec import Struct

from aragora.contracts.events import CollectedBy
from billing.invoice import Rule, Status

EntryKind = Literal["credit", "coupon", "applied", "returned", "moved", "payment", "refund"]
"""What an entry of the ledger is."""


class Usage(Struct):
    """The usage that a line is for, and how its amount follows from it."""

    charge_id: str
    month: str
    sequence: int
    """1: the month as it was closed first; more: with what was recorded later."""
    meter: str
    used: Decimal
    """In the whole month."""
    included: Decimal
    charged_quantity: Decimal
    exact_usd: Decimal
    """What the whole month costs, not rounded."""
    charged_before_usd: Decimal
    """What earlier lines of this month and meter charged."""
    amount_usd: Decimal
    """The whole month, rounded, without what was charged before."""
    usage_events: int
    usage_digest: str
    """Of the events behind it, as metering's UsagePeriodClosed says."""
    period_event_id: str
    """The id of that UsagePeriodClosed."""


class Price(Struct):
    """The price that a line applies: of a version of a plan, for each `per` of what is counted, or per month."""

    plan: str | None
    version: int | None
    price: Decimal
    per: Decimal | None
    stripe_price_id: str | None = None


class Share(Struct):
    """The part of a month that a line is for."""

    period_start: datetime
    period_end: datetime
    microseconds: int
    of_microseconds: int


class Explanation(Struct):
    """Why a line is there, in words, and the figures behind it."""

    text: str
    usage: Usage | None = None
    price: Price | None = None
    share: Share | None = None


class InvoiceLine(Struct):
    """A line of an invoice. The amounts of all lines add up to the invoice's total."""

    line_id: str
    rule: Rule
    description: str
    amount: Decimal
    quantity: Decimal | None
    unit_amount: Decimal | None
    period_start: datetime | None
    period_end: datetime | None
    explanation: Explanation


class InvoiceSummary(Struct):
    """An invoice. `credited` was taken off the total; what is left is `amount_due`."""

    invoice_id: str
    number: str | None
    collected_by: CollectedBy
    status: Status
    currency: str
    total: Decimal
    credited: Decimal
    amount_due: Decimal
    amount_paid: Decimal
    period_start: datetime | None
    period_end: datetime | None
    created_at: datetime
    finalized_at: datetime | None
    due_at: datetime | None
    paid_at: datetime | None


class Invoice(InvoiceSummary):
    """An invoice with its lines."""

    lines: list[InvoiceLine]


class InvoicePage(Struct):
    """Invoices, the newest first. `next_cursor` is null on the last page."""

    invoices: list[InvoiceSummary]
    next_cursor: str | None


class Movement(Struct):
    """Something that was billed, paid or credited."""

    id: str
    kind: str
    occurred_at: datetime
    amount: Decimal
    currency: str
    invoice_id: str | None
    status: str
    description: str


class HistoryPage(Struct):
    """What was billed, paid and credited, the newest first."""

    entries: list[Movement]
    next_cursor: str | None


class LedgerEntry(Struct):
    """An entry of the ledger; positive in the organization's favour."""

    entry_id: str
    kind: EntryKind
    amount: Decimal
    currency: str
    invoice_id: str | None
    coupon: str | None
    reason: str
    recorded_at: datetime


class Balance(Struct):
    """What is in the organization's favour. `being_moved` of it Stripe is just taking over."""

    balance: Decimal
    being_moved: Decimal
    currency: str
    entries: list[LedgerEntry]
    next_cursor: str | None


class UsageMonth(Struct):
    """A month of usage as it was charged: by whose prices, who collects it, and why."""

    month: str
    sequence: int
    plan: str | None
    version: int | None
    collected_by: CollectedBy | None
    reason: str
    charged_at: datetime
    period_event_id: str
    charges: list[Usage]


class Coupon(Struct):
    """A coupon, and how often it was redeemed."""

    code: str
    amount_usd: Decimal
    max_redemptions: int | None
    redeem_by: datetime | None
    redemptions: int
    created_at: datetime


class BilledTo(Struct):
    """Who an invoice is for, as they are to be addressed."""

    name: str
    address: list[str] = []
    country: str | None = None
    tax_id: str | None = None


class Terms(Struct):
    """How an organization is billed outside Stripe. `next_invoice_at` null: no other invoice will follow."""

    billed_to: BilledTo
    net_days: int
    starts_on: date
    ends_on: date | None
    """The first day that is not billed."""
    next_month: str
    next_invoice_at: datetime | None


class PaymentRecorded(Struct):
    """A payment, the invoice after it, and what was credited because it was paid too much."""

    invoice: InvoiceSummary
    credited: Decimal
    message: str
