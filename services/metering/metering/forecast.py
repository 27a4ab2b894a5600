"""What a month will come to, if it goes on as it began. Pure."""

from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_CEILING, Context, Decimal

from metering.limits import resets_at

LEAST_ELAPSED = timedelta(days=1)
"""The first day of a month counts as a whole one from its first moment: what minutes bring says little of it all."""

_CENT = Decimal("0.01")
# Rounds up at every step, so that what comes out is never below what goes in; wide enough for any sum of costs.
_UP = Context(prec=100, rounding=ROUND_CEILING)
_TICK = timedelta(microseconds=1)


def projected_cost_usd(cost_usd: Decimal, first: date, now: datetime) -> Decimal:
    """The cost of the whole month, in proportion to the part of it that has gone by.

    Args:
        cost_usd: what the month has cost so far; not negative.
        first: the month's first day.
        now: in UTC.

    Returns:
        US dollars, rounded up to whole cents, never below `cost_usd`; of a month that is over, exactly what it cost.
    """
    begin = datetime(first.year, first.month, 1, tzinfo=UTC)
    end = resets_at(begin)
    if now >= end:
        return cost_usd
    elapsed = max(now - begin, LEAST_ELAPSED) // _TICK
    whole = _UP.divide(_UP.multiply(cost_usd, Decimal((end - begin) // _TICK)), Decimal(elapsed))
    return _UP.quantize(whole, _CENT)
