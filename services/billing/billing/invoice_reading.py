"""From invoices and rows to answers: every line with what explains it. Pure."""

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from billing import invoice_answers as answers
from billing.charges import plain, price_in_words, words_of
from billing.invoice import Invoice, Line
from billing.money import places_of
from billing.plans import Plans
from billing.projections import Row
from billing.stretches import month_of, name_of_month, span_in_words, span_of

_USAGE = answers.Usage.__struct_fields__
_SUMMARY = answers.InvoiceSummary.__struct_fields__
_MICROSECOND = timedelta(microseconds=1)


def summary(invoice: Invoice) -> answers.InvoiceSummary:
    """An invoice without its lines."""
    return answers.InvoiceSummary(**{name: getattr(invoice, name) for name in _SUMMARY})


def whole(invoice: Invoice, charged: Mapping[str, Row], plans: Plans) -> answers.Invoice:
    """An invoice with its lines, each explained. `charged`: the rows of `usage_charges` behind it, by charge."""
    lines = [
        answers.InvoiceLine(
            line.line_id, line.rule, line.description, line.amount, line.quantity, line.unit_amount,
            line.period_start, line.period_end,
            explain(line, invoice.currency, charged.get(line.charge_id or ""), plans),
        )
        for line in invoice.lines
    ]  # fmt: skip
    return answers.Invoice(**{name: getattr(invoice, name) for name in _SUMMARY}, lines=lines)


def usage(row: Row) -> answers.Usage:
    """The usage behind a charge."""
    return answers.Usage(**{name: row[name] for name in _USAGE})


def explain(line: Line, currency: str, charge: "Row | None", plans: Plans) -> answers.Explanation:
    """Why a line is there, and how its amount comes about."""
    if charge is not None:
        return _of_usage(charge, plans)
    name = plans.current(line.plan).name if line.plan in plans.ids else "a plan"
    price = None
    if line.unit_amount is not None:
        price = answers.Price(line.plan, line.plan_version, line.unit_amount, None, line.price_id)
    span = ""
    if line.period_start is not None and line.period_end is not None:
        span = f" from {span_in_words(line.period_start, line.period_end)}"
    amount = money(line.amount, currency)
    if line.rule == "plan":
        version = f", version {line.plan_version}," if line.plan_version else ""
        return answers.Explanation(f"The price of {name}{version} for a whole period{span}: {amount}.", price=price)
    if line.rule == "proration":
        return _of_share(line, name, span, amount, price)
    if line.rule == "credit":
        return answers.Explanation(f"A credit of {money(-line.amount, currency)}.")
    return answers.Explanation(f"Added outside this platform, as Stripe says: {amount}{span}.", price=price)


def _of_share(line: Line, name: str, span: str, amount: str, price: answers.Price | None) -> answers.Explanation:
    if line.price_id is not None or line.period_start is None or line.period_end is None or price is None:
        did = "given back for" if line.amount < 0 else "charged for"
        text = f"The plan changed within a period: {amount} {did} {name}{span}, in proportion to the time, by Stripe."
        return answers.Explanation(text, price=price)
    start, end = span_of(month_of(line.period_start))
    share = answers.Share(
        line.period_start, line.period_end, (line.period_end - line.period_start) // _MICROSECOND,
        (end - start) // _MICROSECOND,
    )  # fmt: skip
    text = (
        f"{name}, version {line.plan_version}, at USD {price.price} a month, was in force{span}: "
        f"{_seconds(share.microseconds)} of the month's {_seconds(share.of_microseconds)} seconds, which is {amount}, "
        "rounded once, half to even."
    )
    return answers.Explanation(text, price=price, share=share)


def _of_usage(charge: Row, plans: Plans) -> answers.Explanation:
    plan = plans.version(charge["plan"], charge["plan_version"])
    what, month = words_of(charge["meter"]), name_of_month(charge["month"])
    text = (
        f"In {month} {plain(charge['used'])} {what} were used, by {charge['usage_events']} usage events. {plan.name}, "
        f"version {plan.version}, includes {plain(charge['included'])}; the {plain(charge['charged_quantity'])} beyond "
        f"it cost {price_in_words(charge['price_usd'], charge['per'])}: exactly USD {charge['exact_usd']:f} for the "
        "whole month, rounded once, half to even"
    )
    before = charge["charged_before_usd"]
    text += f". USD {before:.2f} of it was charged before: this line is the rest, " if before else ": "
    return answers.Explanation(
        f"{text}{money(charge['amount_usd'], 'usd')}.",
        usage=usage(charge),
        price=answers.Price(plan.plan, plan.version, charge["price_usd"], charge["per"]),
    )


def money(amount: Decimal, currency: str) -> str:
    """An amount as people read it: `USD 1,234.50`."""
    return f"{currency.upper()} {amount:,.{places_of(currency)}f}"


def _seconds(microseconds: int) -> str:
    return plain(Decimal(microseconds).scaleb(-6))


def movement(row: Row) -> answers.Movement:
    """A row of `billing_history`."""
    return answers.Movement(**{name: row[name] for name in answers.Movement.__struct_fields__})


def months(periods: Sequence[Row], charged: Sequence[Row]) -> list[answers.UsageMonth]:
    """Months as they were charged, from rows of `charged_periods` and `usage_charges`."""
    return [
        answers.UsageMonth(
            row["month"], row["sequence"], row["plan"], row["plan_version"], row["collected_by"], row["reason"],
            row["charged_at"], row["period_event_id"],
            [usage(one) for one in charged if (one["month"], one["sequence"]) == (row["month"], row["sequence"])],
        )
        for row in periods
    ]  # fmt: skip


def cursor_after(moment: datetime, row_id: str) -> str:
    """Where the page after this row begins."""
    return base64.urlsafe_b64encode(f"{moment.isoformat()} {row_id}".encode()).decode()


def read_cursor(cursor: str) -> tuple[datetime, str]:
    """What `cursor_after` wrote.

    Raises:
        ValueError: it did not write this.
    """
    moment, _, row_id = base64.urlsafe_b64decode(cursor.encode()).decode().partition(" ")
    found = datetime.fromisoformat(moment)
    if found.utcoffset() != timedelta(0) or not row_id or "\x00" in row_id:
        raise ValueError("not a cursor")
    return found.astimezone(UTC), row_id
