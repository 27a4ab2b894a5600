"""How much of a limit is used, and what it is called."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.reading import documented_name, percent_of

amounts = st.decimals(0, Decimal(10) ** 30, places=18, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("used", "amount", "percent"),
    [
        ("2", "3", "66.66"),
        ("47.25", "150", "31.5"),
        ("10", "10.00", "100"),
        ("11", "10", "110"),
        ("0", "10", "0"),
        ("0", "0", "0"),
        ("1", "0", "100"),
        ("9999999999999999.999999999999999999", "10000000000000000", "99.99"),
        ("1e30", "1e-18", "1" + "0" * 50),
    ],
)
def test_percent(used: str, amount: str, percent: str):
    assert str(percent_of(Decimal(used), Decimal(amount))) == percent


def test_there_is_no_percent_of_unlimited():
    assert percent_of(Decimal(5), None) is None


@given(amounts, amounts.filter(bool))
def test_100_means_reached_and_nothing_less_does(used: Decimal, amount: Decimal):
    percent = percent_of(used, amount)
    assert percent is not None
    assert (percent >= 100) == (used >= amount)
    assert percent >= 0


@pytest.mark.parametrize(
    ("meter", "name"),
    [
        ("calls:gemini", "gemini_calls"), ("tokens:openai", "openai_tokens"), ("cost_usd", "monthly_cost"),
        ("debates", "debates"), ("api_calls", "api_calls"), ("tokens", "tokens"), ("pages:pdf", "pages:pdf"),
    ],
)  # fmt: skip
def test_meters_go_by_the_names_of_the_guides(meter: str, name: str):
    assert documented_name(meter, "monthly_cost") == name
