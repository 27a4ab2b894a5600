"""What a month will come to."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.forecast import LEAST_ELAPSED, projected_cost_usd

JUNE = date(2026, 6, 1)
JULY = datetime(2026, 7, 1, tzinfo=UTC)
months = st.dates(date(2000, 1, 1), date(9998, 12, 31)).map(lambda day: day.replace(day=1))
costs = st.decimals(0, Decimal(10) ** 12, places=18, allow_nan=False, allow_infinity=False)


def start_of(first: date) -> datetime:
    return datetime.combine(first, datetime.min.time(), UTC)


def moments(first: datetime, last: datetime) -> st.SearchStrategy[datetime]:
    return st.timedeltas(timedelta(0), last - first).map(lambda elapsed: first + elapsed)


def end_of(first: date) -> datetime:
    return start_of((first + timedelta(days=32)).replace(day=1))


@pytest.mark.parametrize(
    ("cost", "now", "projected"),
    [
        ("15.75", "2026-06-11T00:00:00Z", "47.25"),
        ("50", "2026-06-16T00:00:00Z", "100.00"),
        ("10", "2026-06-22T12:00:00Z", "13.96"),
        ("1", "2026-06-02T00:00:00Z", "30.00"),
        ("1", "2026-06-01T00:00:00Z", "30.00"),
        ("1", "2026-06-01T00:00:01Z", "30.00"),
        ("1", "2026-06-01T12:00:00Z", "30.00"),
        ("0", "2026-06-01T00:00:00Z", "0.00"),
        ("0.0000001", "2026-06-30T00:00:00Z", "0.01"),
        ("8.123456789", "2026-06-30T23:59:59.999999Z", "8.13"),
        ("8.123456789", "2026-07-01T00:00:00Z", "8.123456789"),
        ("8.123456789", "2031-01-01T00:00:00Z", "8.123456789"),
    ],
)
def test_a_month_goes_on_as_it_began(cost: str, now: str, projected: str):
    assert str(projected_cost_usd(Decimal(cost), JUNE, datetime.fromisoformat(now))) == projected


def test_every_month_has_its_own_length():
    def projected(first: date) -> Decimal:
        return projected_cost_usd(Decimal(1), first, start_of(first) + timedelta(days=10))

    assert [str(projected(date(2024, month, 1))) for month in (1, 2, 4, 12)] == ["3.10", "2.90", "3.00", "3.10"]
    assert str(projected(date(2025, 2, 1))) == "2.80"


@given(months, costs, st.timedeltas(timedelta(0), timedelta(days=32)))
def test_it_is_never_below_what_was_spent(first: date, cost: Decimal, elapsed: timedelta):
    assert projected_cost_usd(cost, first, start_of(first) + elapsed) >= cost


@given(months, costs, st.timedeltas(timedelta(0), timedelta(days=100)))
def test_at_the_end_it_is_what_was_spent(first: date, cost: Decimal, later: timedelta):
    assert projected_cost_usd(cost, first, end_of(first) + later) == cost
    moment_before = end_of(first) - timedelta(microseconds=1)
    assert projected_cost_usd(cost, first, moment_before) - cost <= Decimal("0.01") + cost / 10**11


@given(costs, moments(start_of(JUNE), JULY - timedelta(seconds=1)))
def test_it_is_linear_from_the_second_day_on(cost: Decimal, now: datetime):
    elapsed = max(now - start_of(JUNE), LEAST_ELAPSED)
    exact = cost * ((JULY - start_of(JUNE)) // timedelta(microseconds=1)) / (elapsed // timedelta(microseconds=1))
    assert abs(projected_cost_usd(cost, JUNE, now) - exact) <= Decimal("0.01") + exact / 10**20


@given(costs, st.lists(moments(start_of(JUNE), JULY + timedelta(days=1)), min_size=2))
def test_without_further_usage_it_only_falls(cost: Decimal, asked_at: list[datetime]):
    found = [projected_cost_usd(cost, JUNE, now) for now in sorted(asked_at)]
    assert found == sorted(found, reverse=True)
