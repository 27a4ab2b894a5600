"""Our own invoices, for those who are billed outside Stripe: when they are due, and what is on them. Pure.

A month is billed after its end: for every stretch of it in which a plan was in force under the terms, its price in
proportion to the seconds of the month, rounded once per line; and the charges for usage that wait, of whatever month.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal

from billing import charges
from billing.invoice import Invoice, Line
from billing.money import rounded
from billing.plans import Plans
from billing.projections import Row
from billing.stretches import Stretch, midnight, month_of, name_of_month, next_month, span_in_words, span_of, within

INVOICE_DAY = 5
"""On which day of the next month a month is billed, unless told otherwise: metering has closed it by then."""

_MICROSECOND = timedelta(microseconds=1)
_QUOTIENT = Context(prec=60, rounding=ROUND_HALF_EVEN)
"""A share of a month need not end. Sixty digits are enough: a share that is not half a cent differs from it by more."""


class InvalidTerms(ValueError):
    """The terms cannot begin then. The message says why; `field` names what to mend."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Terms:
    """Who is billed by us, from a day until another (excluded, in UTC), and within how many days they pay."""

    starts_on: date
    net_days: int
    billed_to: str
    """JSON: name, address lines, country, tax id."""
    next_month: str
    """The month that the next invoice is for, and when that one is due; None: no other will follow."""
    due_at: datetime | None
    ends_on: date | None = None

    @property
    def span(self) -> tuple[datetime, datetime]:
        """From when until when they hold."""
        return midnight(self.starts_on), midnight(self.ends_on) if self.ends_on else datetime.max.replace(tzinfo=UTC)


def due_of(month: str, invoice_day: int = INVOICE_DAY) -> datetime:
    """When a month is billed: on this day (1 to 28) of the next one."""
    return span_of(next_month(month))[0].replace(day=invoice_day)


def set_terms(
    known: Terms | None, starts_on: date, net_days: int, billed_to: str, invoice_day: int = INVOICE_DAY
) -> Terms:
    """The terms with what an operator says anew. Nothing is ever billed twice, and nothing that is owed is lost.

    Raises:
        InvalidTerms: they cannot begin then.
    """
    month = month_of(midnight(starts_on))
    if known is None:
        return Terms(starts_on, net_days, billed_to, month, due_of(month, invoice_day))
    if starts_on == known.starts_on:  # they go on, also if they were to end
        due_at = due_of(known.next_month, invoice_day)
        return replace(known, net_days=net_days, billed_to=billed_to, ends_on=None, due_at=due_at)
    if known.ends_on is None and known.next_month != month_of(midnight(known.starts_on)):
        raise InvalidTerms("starts_on", f"The terms began on {known.starts_on}: end them before others begin.")
    if known.ends_on is not None and known.due_at is not None:
        raise InvalidTerms("starts_on", f"What is owed until {known.ends_on} is billed on {known.due_at:%Y-%m-%d}: "
                           "others may begin after that.")  # fmt: skip
    if known.ends_on is not None and month < known.next_month:
        raise InvalidTerms("starts_on", f"must be in {known.next_month} or later: what was before is billed already")
    return Terms(starts_on, net_days, billed_to, month, due_of(month, invoice_day))


def end_terms(terms: Terms, today: date) -> Terms:
    """The terms ended: today is the first day that is not billed. What is owed until then is billed when it is due."""
    ends_on = terms.ends_on or max(today, terms.starts_on)
    return _without_what_never_comes(replace(terms, ends_on=ends_on))


def after(terms: Terms) -> Terms:
    """The terms after the invoice for their next month. The next one is due on the same day of its month."""
    month = next_month(terms.next_month)
    day = terms.due_at.day if terms.due_at else INVOICE_DAY
    return _without_what_never_comes(replace(terms, next_month=month, due_at=due_of(month, day)))


def _without_what_never_comes(terms: Terms) -> Terms:
    is_over = terms.ends_on is not None and terms.span[1] <= span_of(terms.next_month)[0]
    return replace(terms, due_at=None) if is_over else terms


def plan_lines(had: Sequence[Stretch], terms: Terms, month: str, plans: Plans) -> list[Line]:
    """What the plans of a month cost under the terms: a line for each stretch that is not free.

    What Stripe collected for is not billed again.
    """
    start, end = span_of(month)
    lines: list[Line] = []
    for one in within(had, max(start, terms.span[0]), min(end, terms.span[1])):
        plan = plans.version(one.sold.plan, one.sold.version)
        amount = share(plan.price_usd_per_month, one.end - one.start, end - start)
        if one.is_free or one.paid_by is not None or amount == 0:
            continue
        whole = (one.start, one.end) == (start, end)
        lines.append(
            Line(
                line_id=f"plan_{len(lines) + 1}",
                rule="plan" if whole else "proration",
                description=f"{plan.name}, {name_of_month(month) if whole else span_in_words(one.start, one.end)}",
                amount=amount,
                quantity=Decimal(1) if whole else None,
                unit_amount=plan.price_usd_per_month,
                period_start=one.start,
                period_end=one.end,
                plan=plan.plan,
                plan_version=plan.version,
            )
        )
    return lines


def share(price: Decimal, of_time: timedelta, whole: timedelta) -> Decimal:
    """What a part of a month costs: in proportion to its length, rounded once, halves to the even cent."""
    exact = _QUOTIENT.divide(price * (of_time // _MICROSECOND), Decimal(whole // _MICROSECOND))
    return rounded(exact)


def charge_line(charge: Row, plan_name: str) -> Line:
    """The line for a charge that waits: a row of `usage_charges`."""
    names = charges.Charge.__dataclass_fields__
    start, end = span_of(charge["month"])
    return Line(
        line_id=charge["charge_id"],
        rule="overage",
        description=charges.described(charges.Charge(**{name: charge[name] for name in names}), plan_name,
                                      charge["month"]),
        amount=charge["amount_usd"],
        quantity=charge["charged_quantity"],
        unit_amount=charge["price_usd"],
        period_start=start,
        period_end=end,
        plan=charge["plan"],
        plan_version=charge["plan_version"],
        charge_id=charge["charge_id"],
    )  # fmt: skip


def drawn_up(
    invoice_id: str, number: str, lines: Iterable[Line], available: Decimal, terms: Terms, month: str, now: datetime
) -> Invoice:
    """The invoice for a month, final. `available`: what may be taken off it, as far as it goes.

    A total below zero is credited, and nothing is due.
    """
    listed = tuple(lines)
    total = sum((line.amount for line in listed), Decimal(0))
    credited = min(total, max(available, Decimal(0)))
    due = total - credited
    start, end = span_of(month)
    return Invoice(
        invoice_id=invoice_id,
        collected_by="operator",
        status="open" if due > 0 else "paid",
        number=number,
        created_at=now,
        subtotal=total,
        total=total,
        credited=credited,
        amount_due=due,
        period_start=start,
        period_end=end,
        finalized_at=now,
        due_at=now + timedelta(days=terms.net_days),
        paid_at=None if due > 0 else now,
        billed_to=terms.billed_to,
        lines=listed,
    )


def paid(invoice: Invoice, amount: Decimal, paid_at: datetime) -> tuple[Invoice, Decimal]:
    """An invoice that is open or paid, with a payment. Also returns what was paid too much."""
    taken = min(amount, invoice.amount_due - invoice.amount_paid)
    after_it = replace(invoice, amount_paid=invoice.amount_paid + taken)
    if after_it.status == "open" and not after_it.is_owed:
        after_it = replace(after_it, status="paid", paid_at=paid_at)
    return after_it, amount - taken
