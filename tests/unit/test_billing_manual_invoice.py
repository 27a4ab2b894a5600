"""Our own invoices, against figures worked out by hand: shares of a month, credits, payments, and when they are due."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aragora.contracts.plans import Plan
from billing import manual_invoice
from billing.invoice import Invoice, Line
from billing.manual_invoice import InvalidTerms, Terms, drawn_up, due_of, end_terms, paid, plan_lines, set_terms, share
from billing.plans import Plans
from billing.stretches import Stretch, span_of
from billing.subscription import Sold

NOW = datetime(2026, 11, 5, tzinfo=UTC)


def plan(name: str, price: str) -> Plan:
    return Plan(plan=name, version=1, name=name.title(), rank=1, price_usd_per_month=Decimal(price), seats=None,
                features={}, limits=())  # fmt: skip


PLANS = Plans([plan("free", "0"), plan("team", "29.90"), plan("big", "299")])


def at(number: int, hour: int = 0, month: int = 10) -> datetime:
    return datetime(2026, month, number, hour, tzinfo=UTC)


def terms(starts_on: date = date(2026, 1, 1), ends_on: date | None = None, next_month: str = "2026-10") -> Terms:
    return Terms(starts_on, 30, "{}", next_month, due_of(next_month), ends_on)


def had(*parts: tuple[datetime, datetime, str], **more) -> list[Stretch]:
    return [Stretch(start, end, Sold(name, 1), **more) for start, end, name in parts]


def billed(stretches: list[Stretch], under: Terms | None = None) -> list[tuple[str, str]]:
    return [(line.rule, str(line.amount)) for line in plan_lines(stretches, under or terms(), "2026-10", PLANS)]


START, END = span_of("2026-10")


def test_a_whole_month_costs_its_price():
    (line,) = plan_lines(had((START, END, "team")), terms(), "2026-10", PLANS)
    assert (line.rule, line.amount, line.description) == ("plan", Decimal("29.90"), "Team, October 2026")


@pytest.mark.parametrize(
    ("stretches", "lines"),
    [
        (had((START, END, "free")), []),
        # 22 of 31 days: 29.90 * 22/31 = 21.2193…
        (had((START, at(10), "free"), (at(10), END, "team")), [("proration", "21.22")]),
        # 9 of 31 days of 29.90 = 8.6806…; 22 of 31 of 299 = 212.1935…
        (had((START, at(10), "team"), (at(10), END, "big")), [("proration", "8.68"), ("proration", "212.19")]),
        # twelve hours of 744: 29.90/62 = 0.48225…
        (had((at(10), at(10, 12), "team")), [("proration", "0.48")]),
        (had((START, END, "team"), is_free=True), []),  # comped
        (had((START, END, "team"), paid_by="sub_1"), []),  # Stripe had it
        (had((at(3), at(3) + timedelta(seconds=1), "team")), []),  # a second: nothing, rounded
    ],
)
def test_a_part_of_a_month_costs_a_part(stretches, lines):
    assert billed(stretches) == lines


def test_only_what_is_under_the_terms():
    whole = had((START, END, "team"))
    assert billed(whole, terms(date(2026, 10, 10))) == [("proration", "21.22")]
    assert billed(whole, terms(ends_on=date(2026, 10, 10))) == [("proration", "8.68")]
    assert billed(whole, terms(date(2026, 11, 1))) == []
    assert billed(whole, terms(ends_on=date(2026, 10, 1))) == []


def test_halves_go_to_the_even_cent():
    half = timedelta(days=1)
    assert share(Decimal("0.05"), half, 2 * half) == Decimal("0.02")  # 2.5 cents
    assert share(Decimal("0.07"), half, 2 * half) == Decimal("0.04")  # 3.5
    assert share(Decimal("0.01"), half, 3 * half) == Decimal("0.00")


@given(cuts=st.lists(st.integers(1, 31 * 86_400 - 1), max_size=6, unique=True), price=st.integers(1, 10**7))
def test_the_parts_of_a_month_are_the_month_but_for_rounding(cuts, price):
    edges = [START, *(START + timedelta(seconds=cut) for cut in sorted(cuts)), END]
    price_usd = Decimal(price).scaleb(-2)
    parts = [share(price_usd, end - start, END - START) for start, end in pairwise(edges)]
    assert abs(sum(parts) - price_usd) <= Decimal("0.005") * len(parts)


def invoice(total: str, available: str = "0") -> Invoice:
    line = Line("plan_1", "plan", "Team", Decimal(total))
    return drawn_up("inv_1", "ARA-2026-000001", [line], Decimal(available), terms(), "2026-10", NOW)


@pytest.mark.parametrize(
    ("total", "available", "credited", "due", "status"),
    [
        ("29.90", "0", "0", "29.90", "open"),
        ("29.90", "9.90", "9.90", "20.00", "open"),
        ("29.90", "29.90", "29.90", "0", "paid"),
        ("29.90", "100", "29.90", "0", "paid"),
        ("29.90", "-1", "0", "29.90", "open"),
        ("-5.00", "7", "-5.00", "0", "paid"),  # what is too much is credited
    ],
)
def test_credits_are_taken_off(total, available, credited, due, status):
    one = invoice(total, available)
    assert (one.total, one.credited, one.amount_due, one.status) == (
        Decimal(total), Decimal(credited), Decimal(due), status,
    )  # fmt: skip
    assert sum(line.amount for line in one.lines) == one.total
    assert one.due_at == NOW + timedelta(days=30)


def said(one: Invoice, over: Decimal) -> str:
    return f"{one.status} {one.amount_paid:.2f} {over:.2f} {one.paid_at}"


def test_payments_in_parts_and_too_much():
    one, over = paid(invoice("29.90"), Decimal(10), NOW)
    assert said(one, over) == "open 10.00 0.00 None"
    one, over = paid(one, Decimal("19.90"), NOW)
    assert said(one, over) == f"paid 29.90 0.00 {NOW}"
    one, over = paid(one, Decimal(5), NOW + timedelta(days=1))
    assert said(one, over) == f"paid 29.90 5.00 {NOW}"
    one, over = paid(invoice("29.90"), Decimal(30), NOW)
    assert said(one, over) == f"paid 29.90 0.10 {NOW}"


def test_a_month_is_due_in_the_next_one():
    assert due_of("2026-10") == datetime(2026, 11, 5, tzinfo=UTC)
    assert due_of("2026-12", 28) == datetime(2027, 1, 28, tzinfo=UTC)


def test_terms_go_from_month_to_month_until_they_end():
    one = set_terms(None, date(2026, 10, 20), 14, "{}", 7)
    assert (one.next_month, one.due_at) == ("2026-10", datetime(2026, 11, 7, tzinfo=UTC))
    one = manual_invoice.after(one)
    assert (one.next_month, one.due_at) == ("2026-11", datetime(2026, 12, 7, tzinfo=UTC))
    one = end_terms(one, date(2026, 12, 2))
    one = manual_invoice.after(one)
    assert (one.next_month, one.due_at) == ("2026-12", datetime(2027, 1, 7, tzinfo=UTC))
    one = manual_invoice.after(one)
    assert (one.next_month, one.due_at, one.ends_on) == ("2027-01", None, date(2026, 12, 2))
    assert end_terms(one, date(2027, 5, 1)).ends_on == date(2026, 12, 2)


def test_terms_that_end_with_a_month_end_with_its_invoice():
    one = manual_invoice.after(end_terms(terms(), date(2026, 11, 1)))
    assert one.due_at is None
    never = end_terms(set_terms(None, date(2026, 10, 1), 0, "{}"), date(2026, 9, 15))
    assert (never.ends_on, never.due_at) == (date(2026, 10, 1), None)


def test_terms_said_anew():
    known = terms(date(2026, 9, 1))
    again = set_terms(end_terms(known, date(2026, 10, 9)), date(2026, 9, 1), 7, '{"name": "Other"}')
    assert (again.ends_on, again.net_days, again.next_month, again.billed_to) == (
        None, 7, "2026-10", '{"name": "Other"}',
    )  # fmt: skip
    with pytest.raises(InvalidTerms, match="end them before others begin"):
        set_terms(known, date(2026, 10, 1), 7, "{}")
    ended = end_terms(known, date(2026, 10, 9))
    with pytest.raises(InvalidTerms, match="is billed on 2026-11-05"):
        set_terms(ended, date(2026, 12, 1), 7, "{}")
    done = manual_invoice.after(ended)
    with pytest.raises(InvalidTerms, match="must be in 2026-11 or later"):
        set_terms(done, date(2026, 10, 20), 7, "{}")
    assert set_terms(done, date(2026, 11, 20), 7, "{}").next_month == "2026-11"
    not_begun = set_terms(None, date(2026, 12, 1), 7, "{}")
    assert set_terms(not_begun, date(2026, 11, 1), 7, "{}").next_month == "2026-11"
