"""A year of invoices, computed by hand: what each says, what became of it, and which plan is in force then.

A month costs USD 99 for Starter, 299 for Professional, 999 for Enterprise. Stripe bills a month ahead, from the day of
the checkout on; a renewal's invoice is a draft for an hour. A change within a period gives back, and charges, what is
left of it: in proportion to the seconds, each line rounded to a cent, half a cent away from zero. Our own invoices bill
a calendar month after its end, on the 5th, in proportion to the seconds too, half a cent to the even one. Professional
includes 200 debates and USD 40 of usage; beyond that a debate costs 0.50 and a dollar 1.10.

A row of a table is an invoice: when it was drawn up | its lines | total - credited = due | what became of it | the plan
half a day later. `part` is a proration; `usage debates 30.00 of 260` charges 30.00 when 260 were used in the month. It
was paid at the first attempt, unless `x2` says otherwise. A row with two cells is a moment and the plan at it.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

TABLES = {
    "month-ends": """
        # Begun on January 31: billed on the last day of shorter months, and on the 31st again of longer ones.
        2027-01-31 09:00 | plan starter 99.00 | 99.00 | paid 09:00 | starter
        2027-02-28 09:00 | plan starter 99.00 | 99.00 | paid 10:00 | starter
        2027-03-31 09:00 | plan starter 99.00 | 99.00 | paid 10:00 | starter
        2027-04-30 09:00 | plan starter 99.00 | 99.00 | paid 10:00 | starter
        2027-05-31 09:00 | plan starter 99.00 | 99.00 | paid 10:00 | starter
        2027-06-30 09:00 | plan starter 99.00 | 99.00 | paid 10:00 | starter
        2027-07-31 09:00 | plan starter 99.00 | 99.00 | paid 10:00 | starter
        2027-08-31 09:00 | plan starter 99.00 | 99.00 | paid 10:00 | starter
        2027-09-30 09:00 | plan starter 99.00 | 99.00 | paid 10:00 | starter
        2027-10-31 09:00 | plan starter 99.00 | 99.00 | paid 10:00 | starter
        2027-11-30 09:00 | plan starter 99.00 | 99.00 | paid 10:00 | starter
        2027-12-31 09:00 | plan starter 99.00 | 99.00 | paid 10:00 | starter
        2028-01-31 09:00 | plan starter 99.00 | 99.00 | paid 10:00 | starter
        # A leap year: 19 of the 29 days until February 29 are left. 99 * 19/29 = 64.862…, 299 * 19/29 = 195.896…
        2028-02-10 09:00 | part starter -64.86, part professional 195.90 | 131.04 | paid 09:00 | professional
        2028-02-29 09:00 | plan professional 299.00 | 299.00 | paid 10:00 | professional
    """,
    "up-and-down": """
        2027-02-10 08:00 | plan starter 99.00 | 99.00 | paid 08:00 | starter
        # 672 hours until March 10, of which 420 are left: 0.625. 99 * 0.625 = 61.875, 299 * 0.625 = 186.875.
        2027-02-20 20:00 | part starter -61.88, part professional 186.88 | 125.00 | paid 20:00 | professional
        2027-03-10 08:00 | plan professional 299.00 | 299.00 | paid 09:00 | professional
        # 21 of 31 days are left. 299 * 21/31 = 202.548…, 999 * 21/31 = 676.741…
        2027-03-20 08:00 | part professional -202.55, part enterprise 676.74 | 474.19 | paid 08:00 | enterprise
        2027-04-10 08:00 | plan enterprise 999.00 | 999.00 | paid 09:00 | enterprise
        # Down on May 1, at once, with 9 of 30 days left: 0.3 * 999 = 299.70 back, 0.3 * 99 = 29.70. Both wait.
        2027-05-01 07:00 | enterprise
        2027-05-01 20:00 | starter
        # -299.70 + 29.70 + 99 = -171: the balance; it covers the next invoice (99) and 72 of the one after.
        2027-05-10 08:00 | part enterprise -299.70, part starter 29.70, \
            plan starter 99.00 | -171.00 - -171.00 = 0 | paid 09:00 x0 | starter
        2027-06-10 08:00 | plan starter 99.00 | 99.00 - 99.00 = 0 | paid 09:00 x0 | starter
        2027-07-10 08:00 | plan starter 99.00 | 99.00 - 72.00 = 27.00 | paid 09:00 | starter
        2027-08-10 08:00 | plan starter 99.00 | 99.00 | paid 09:00 | starter
        2027-09-10 08:00 | plan starter 99.00 | 99.00 | paid 09:00 | starter
        2027-10-10 08:00 | plan starter 99.00 | 99.00 | paid 09:00 | starter
        2027-11-10 08:00 | plan starter 99.00 | 99.00 | paid 09:00 | starter
        2027-12-10 08:00 | plan starter 99.00 | 99.00 | paid 09:00 | starter
        2028-01-10 08:00 | plan starter 99.00 | 99.00 | paid 09:00 | starter
        2028-02-10 08:00 | plan starter 99.00 | 99.00 | paid 09:00 | starter
    """,
    "later": """
        2027-01-15 10:00 | plan professional 299.00 | 299.00 | paid 10:00 | professional
        2027-02-15 10:00 | plan professional 299.00 | 299.00 | paid 11:00 | professional
        # On February 20 Starter is chosen for the end of the period: nothing is given back or changed before.
        2027-03-15 09:59 | professional
        2027-03-15 10:00 | plan starter 99.00 | 99.00 | paid 11:00 | starter
        2027-04-15 10:00 | plan starter 99.00 | 99.00 | paid 11:00 | starter
        2027-05-15 10:00 | plan starter 99.00 | 99.00 | paid 11:00 | starter
        # Cancelled on June 1, and resumed on June 5.
        2027-06-15 10:00 | plan starter 99.00 | 99.00 | paid 11:00 | starter
        2027-07-15 10:00 | plan starter 99.00 | 99.00 | paid 11:00 | starter
        2027-08-15 10:00 | plan starter 99.00 | 99.00 | paid 11:00 | starter
        2027-09-15 10:00 | plan starter 99.00 | 99.00 | paid 11:00 | starter
        # Cancelled on October 1; it ends with what is paid for.
        2027-10-15 09:59 | starter
        2027-10-15 10:01 | free
        2027-12-31 20:00 | plan starter 99.00 | 99.00 | paid 20:00 | starter
        2028-01-31 20:00 | plan starter 99.00 | 99.00 | paid 21:00 | starter
        2028-02-29 20:00 | plan starter 99.00 | 99.00 | paid 21:00 | starter
    """,
    "fails": """
        2027-01-20 09:00 | plan professional 299.00 | 299.00 | paid 09:00 | professional
        # Declined at 10:00; Stripe tries again three days later, when the card is good again.
        2027-02-20 09:00 | plan professional 299.00 | 299.00 | paid 2027-02-23 10:00 x2 | professional
        2027-03-20 09:00 | plan professional 299.00 | 299.00 | paid 10:00 | professional
        # Declined, and paid with another card on Stripe's page two days later.
        2027-04-20 09:00 | plan professional 299.00 | 299.00 | paid 2027-04-22 12:00 | professional
        2027-05-20 09:00 | plan professional 299.00 | 299.00 | paid 10:00 | professional
        2027-06-20 09:00 | plan professional 299.00 | 299.00 | paid 10:00 | professional
        # Declined on July 20, 23, 25 and 27. Ten days after the first time, at 10:00, plan and subscription end.
        2027-07-20 09:00 | plan professional 299.00 | 299.00 | open x4 | professional
        2027-07-30 09:59 | professional
        2027-07-30 10:00 | free
        2027-09-05 09:00 | plan starter 99.00 | 99.00 | paid 09:00 | starter
        2027-10-05 09:00 | plan starter 99.00 | 99.00 | paid 10:00 | starter
        2027-11-05 09:00 | plan starter 99.00 | 99.00 | paid 10:00 | starter
        2027-12-05 09:00 | plan starter 99.00 | 99.00 | paid 10:00 | starter
        2028-01-05 09:00 | plan starter 99.00 | 99.00 | paid 10:00 | starter
        2028-02-05 09:00 | plan starter 99.00 | 99.00 | paid 10:00 | starter
        2028-03-05 09:00 | plan starter 99.00 | 99.00 | paid 10:00 | starter
    """,
    "leaves": """
        2027-03-03 09:00 | plan starter 99.00 | 99.00 | paid 09:00 | starter
        # 22 of 31 days are left: 99 * 22/31 = 70.258…, 299 * 22/31 = 212.193… The card is declined, and after 23 hours
        # it is as if nobody had asked.
        2027-03-12 09:00 | part starter -70.26, part professional 212.19 | 141.93 | void | starter
        # Cancelled at once: nothing is given back.
        2027-03-17 08:59 | starter
        2027-03-17 09:01 | free
    """,
    "confirms": """
        2027-02-05 09:00 | plan starter 99.00 | 99.00 | paid 09:00 | starter
        # The bank asks the cardholder, who answers the next day.
        2027-03-05 09:00 | plan starter 99.00 | 99.00 | paid 2027-03-06 15:00 | starter
        2027-04-05 10:00 | free
    """,
    "credited": """
        2027-03-01 06:00 | plan starter 99.00 | 99.00 | paid 06:00 | starter
        # USD 150 granted on March 10: 99 + 51.
        2027-04-01 06:00 | plan starter 99.00 | 99.00 - 99.00 = 0 | paid 07:00 x0 | starter
        2027-05-01 06:00 | plan starter 99.00 | 99.00 - 51.00 = 48.00 | paid 07:00 | starter
        2027-06-01 06:00 | plan starter 99.00 | 99.00 | paid 07:00, 25.00 back | starter
        2027-07-01 06:00 | plan starter 99.00 | 99.00 | paid 07:00 | starter
        # USD 98.70 granted on July 10 leaves 0.30: too little for a charge, so it is on the next invoice.
        2027-08-01 06:00 | plan starter 99.00 | 99.00 - 99.00 = 0 | paid 07:00 x0 | starter
        2027-09-01 06:00 | plan starter 99.00 | 99.00 - -0.30 = 99.30 | paid 07:00 | starter
        2027-10-01 06:00 | plan starter 99.00 | 99.00 | paid 07:00 | starter
        2027-11-01 06:00 | plan starter 99.00 | 99.00 | paid 07:00 | starter
        2027-12-01 06:00 | plan starter 99.00 | 99.00 | paid 07:00 | starter
        2028-01-01 06:00 | plan starter 99.00 | 99.00 | paid 07:00 | starter
        2028-02-01 06:00 | plan starter 99.00 | 99.00 | paid 07:00 | starter
        2028-03-01 06:00 | plan starter 99.00 | 99.00 | paid 07:00 | starter
    """,
    "metered": """
        2027-01-10 09:00 | plan professional 299.00 | 299.00 | paid 09:00 | professional
        # January: 60 debates too many, 60 * 0.50 = 30.00; 0.05 * 1.10 = 0.055, of which the even cent is 0.06.
        2027-02-10 09:00 | usage debates 30.00 of 260, usage cost_usd 0.06 of 40.05, \
            plan professional 299.00 | 329.06 | paid 10:00 | professional
        # January, heard of later: 63 * 0.50 = 31.50, of which 30.00 was charged; 0.15 * 1.10 = 0.165, to the even cent
        # 0.16, of which 0.06 was. February: nothing beyond.
        2027-03-10 09:00 | usage debates 1.50 of 263, usage cost_usd 0.10 of 40.15, \
            plan professional 299.00 | 300.60 | paid 10:00 | professional
        # March: 1000.1234 * 1.10 = 1100.13574.
        2027-04-10 09:00 | usage cost_usd 1100.14 of 1040.1234, \
            plan professional 299.00 | 1399.14 | paid 10:00 | professional
        # March, corrected: 990.1234 * 1.10 = 1089.13574, and 1100.14 was charged. April: nothing beyond.
        2027-05-10 09:00 | usage cost_usd -11.00 of 1030.1234, \
            plan professional 299.00 | 288.00 | paid 10:00 | professional
        # Cancelled on May 20. May: 5 * 0.50, on the last invoice. June, until it ended: 10 * 0.50, on one of its own.
        2027-06-10 09:00 | usage debates 2.50 of 205 | 2.50 | paid 09:00 | free
        2027-07-04 00:00 | usage debates 5.00 of 210 | 5.00 | paid 00:00 | free
    """,
    "by-hand": """
        2027-03-05 00:00 | plan starter 99.00 | 99.00 | paid 2027-03-12 00:00 x0 | starter
        # Starter for 10 of March's 31 days, Professional for 21: 99 * 10/31 = 31.935…, 299 * 21/31 = 202.548…
        2027-04-05 00:00 | part starter 31.94, \
            part professional 202.55 | 234.49 | paid 2027-04-12 00:00 x0 | professional
        # USD 50 granted on April 20.
        2027-05-05 00:00 | plan professional 299.00 \
            | 299.00 - 50.00 = 249.00 | paid 2027-05-10 00:00 x0 | professional
        2027-06-05 00:00 | usage debates 0.50 of 201, \
            plan professional 299.00 | 299.50 | paid 2027-06-10 00:00 x0 | professional
        # Due on July 19 and not paid: ten days later the plan ends. Professional was in force for 28 of July's 31 days:
        # 299 * 28/31 = 270.064…
        2027-07-05 00:00 | plan professional 299.00 | 299.00 | paid 2027-08-10 00:00 x0 | professional
        2027-07-28 23:59 | professional
        2027-07-29 00:00 | free
        2027-08-05 00:00 | part professional 270.06 | 270.06 | paid 2027-08-10 00:00 x0 | free
        # Starter again from August 16: 16 of 31 days, 99 * 16/31 = 51.096… The terms end on September 11: 99 * 10/30.
        2027-09-05 00:00 | part starter 51.10 | 51.10 | paid 2027-09-10 00:00 x0 | starter
        2027-10-05 00:00 | part starter 33.00 | 33.00 | paid 2027-10-08 00:00 x0 | free
    """,
}
"""By organization."""


HALF_A_DAY = timedelta(hours=12)
_RULES = {"plan": "plan", "part": "proration", "usage": "overage"}


@dataclass(frozen=True)
class Line:
    """A line of an invoice. `what` is a plan, or a meter, of which `used` is what the whole month had."""

    rule: str
    what: str
    amount: Decimal
    used: Decimal | None


@dataclass(frozen=True)
class Row:
    """An invoice. Amounts in USD."""

    at: datetime
    lines: tuple[Line, ...]
    total: Decimal
    credited: Decimal
    due: Decimal
    status: str
    paid_at: datetime | None
    attempts: int
    refunded: Decimal


def invoices_of(org: str) -> list[Row]:
    """The invoices of an organization's table."""
    return [_row(datetime_of(at), *rest) for at, *rest in _cells(org) if len(rest) > 1]


def plans_of(org: str) -> list[tuple[datetime, str]]:
    """Moments, and the plan that is in force at each of them."""
    return [(datetime_of(at) + (HALF_A_DAY if len(rest) > 1 else timedelta(0)), rest[-1]) for at, *rest in _cells(org)]


def datetime_of(text: str) -> datetime:
    """`2027-01-31 09:00`, or `2027-01-31`, in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _cells(org: str) -> list[list[str]]:
    texts = [text for text in map(str.strip, TABLES[org].strip().splitlines()) if not text.startswith("#")]
    return [[cell.strip() for cell in text.split("|")] for text in texts]


def _row(at: datetime, lines: str, sums: str, fate: str, _: str) -> Row:
    total, credited, due = sums.replace(" - ", " ").replace("= ", "").split() if "=" in sums else (sums, "0", sums)
    found = re.fullmatch(r"(paid|open|void)(?: ([-\d]+))?(?: (\d\d:\d\d))?(?: x(\d))?(?:, ([.\d]+) back)?", fate)
    assert found, fate
    status, day, hour, attempts, refunded = found.groups()
    return Row(
        at, tuple(sorted(map(_line, lines.split(", ")), key=str)), Decimal(total), Decimal(credited), Decimal(due),
        status, datetime_of(f"{day or at.date()} {hour}") if status == "paid" else None, int(attempts or 1),
        Decimal(refunded or 0),
    )  # fmt: skip


def _line(text: str) -> Line:
    rule, what, amount, *used = text.split()
    return Line(_RULES[rule], what, Decimal(amount), Decimal(used[1]) if used else None)
