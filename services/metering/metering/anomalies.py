"""When an organization's day is far from what its days are like. Pure.

Why these figures:

* The *median* of the days before: one earlier outbreak, or a quiet weekend, does not move it.
* *28 days* are four whole weeks, so that every weekday is in it as often as any other. Only days that had any of the
  meter count: who works one day a week is compared with such days. *7* of them at least: of less nobody knows what is
  usual, and a new customer's first week is not an alarm.
* *4 times* the median: working days of one organization commonly differ by a factor of 2 or 3.
* *Floors* of 5 USD and 500 calls a day: below that it is nobody's loss, and small numbers multiply easily.

The day so far is compared with whole days. It only grows, so that may say something late, but nothing wrong.
"""

from datetime import timedelta
from decimal import Decimal
from typing import Literal, TypeAlias

from aragora.billing.rating import EXACT

Meter: TypeAlias = Literal["cost_usd", "api_calls"]

FLOORS: dict[Meter, Decimal] = {"cost_usd": Decimal(5), "api_calls": Decimal(500)}
"""A day is unusual only above this."""
FACTOR = Decimal(4)
WINDOW_DAYS = 28
MIN_DAYS = 7
LOOK_EVERY = timedelta(hours=1)


def is_unusual(meter: Meter, used: Decimal, usual: Decimal, days: int) -> bool:
    """Whether a day with so much of a meter is one to tell of.

    Args:
        meter: what is counted.
        used: of it, on that day so far.
        usual: the median of the days before that had any, out of `WINDOW_DAYS`.
        days: how many those are.
    """
    return days >= MIN_DAYS and used > max(EXACT.multiply(FACTOR, usual), FLOORS[meter])
