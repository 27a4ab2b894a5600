"""Which days are not like the others."""

from decimal import Decimal

import pytest

from metering.anomalies import FLOORS, MIN_DAYS, WINDOW_DAYS, Meter, is_unusual


@pytest.mark.parametrize(
    ("meter", "used", "usual", "days", "unusual"),
    [
        ("cost_usd", "40.01", "10", 7, True),
        ("cost_usd", "40", "10", 7, False),  # four times as much is not yet more than that
        ("cost_usd", "400", "10", 6, False),  # of so few days nobody knows what is usual
        ("cost_usd", "400", "10", 28, True),
        ("cost_usd", "5", "0.01", 28, False),  # 500 times as much, and nobody's loss
        ("cost_usd", "5.000001", "0.01", 28, True),
        ("api_calls", "500", "1", 28, False),
        ("api_calls", "501", "1", 28, True),
        ("api_calls", "4000", "1000", 28, False),
        ("api_calls", "4001", "1000", 28, True),
    ],
)
def test_a_day_is_unusual(meter: Meter, used: str, usual: str, days: int, *, unusual: bool):
    assert is_unusual(meter, Decimal(used), Decimal(usual), days) is unusual


def test_no_digit_is_lost():
    usual = Decimal("12345678901234567890.123456789012345678")
    four_times = Decimal("49382715604938271560.493827156049382712")
    assert not is_unusual("cost_usd", four_times, usual, WINDOW_DAYS)
    assert is_unusual("cost_usd", four_times + Decimal("1e-18"), usual, WINDOW_DAYS)


def test_the_figures_fit_one_another():
    assert WINDOW_DAYS % 7 == 0, "every weekday as often as any other"
    assert 0 < MIN_DAYS <= WINDOW_DAYS
    assert all(floor > 0 for floor in FLOORS.values())
