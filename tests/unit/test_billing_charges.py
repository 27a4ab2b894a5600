"""What usage beyond a plan costs, against figures worked out by hand, and in every order of closings."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aragora.contracts.plans import Limit, Overage, Plan, built_in_meter
from billing.charges import Charge, charged_stretch, charges_for, described, plain, price_in_words, words_of
from billing.money import rounded
from billing.plans import Plans
from billing.stretches import Stretch
from billing.subscription import Sold


def plan_with(plan: str = "team", *, is_default: bool = False, **overages: tuple[str, str, int] | None) -> Plan:
    """`debates=("100", "0.50", 1)`: 100 included, then USD 0.50 for each."""
    limits = tuple(
        Limit(meter=built_in_meter(meter), limit=Decimal(said[0]),
              overage=Overage(price_usd=Decimal(said[1]), per=Decimal(said[2])))
        for meter, said in overages.items() if said
    )  # fmt: skip
    return Plan(plan=plan, version=1, name=plan.title(), rank=1, price_usd_per_month=Decimal(29), seats=None,
                features={}, limits=limits, is_default=is_default)  # fmt: skip


WORKED = [
    # included, price, per, used, charged before → beyond, exact, amount (None: no line)
    ("100", "0.50", 1, "120", "0", "20", "10.00", "10.00"),
    ("100", "0.50", 1, "100", "0", "0", "0", None),
    ("100", "0.50", 1, "99", "0", "0", "0", None),
    ("0", "2.00", 1_000_000, "5120344", "0", "5120344", "10.240688", "10.24"),
    ("1000000", "2.00", 1_000_000, "1002500", "0", "2500", "0.005", None),  # half a cent: to the even one, 0.00
    ("1000000", "2.00", 1_000_000, "1007500", "0", "7500", "0.015", "0.02"),  # and 1.5 cents to 2
    ("1000000", "2.00", 1_000_000, "1002501", "0", "2501", "0.005002", "0.01"),
    ("50", "1.2", 1, "51.288125", "0", "1.288125", "1.54575", "1.55"),
    ("100", "0.50", 1, "130", "10.00", "30", "15.00", "5.00"),  # ten came late
    ("100", "0.50", 1, "120", "10.00", "20", "10.00", None),  # nothing came
    ("100", "0.000001", 1, "4100", "0", "4000", "0.004", None),
    ("100", "0.000001", 1, "100000100", "0.00", "100000000", "100", "100"),
    ("0", "0.000001", 1_000, "1", "0", "1", "1E-9", None),
]  # fmt: skip


@pytest.mark.parametrize(("included", "price", "per", "used", "before", "beyond", "exact", "amount"), WORKED)
def test_a_worked_figure(included, price, per, used, before, beyond, exact, amount):
    plan = plan_with(tokens=(included, price, per))
    found = charges_for(plan, {"tokens": Decimal(used), "debates": Decimal(9)}, {"tokens": Decimal(before)})
    if amount is None:
        assert found == []
        return
    assert found == [
        Charge("tokens", Decimal(used), Decimal(included), Decimal(beyond), Decimal(price), Decimal(per),
               Decimal(exact), Decimal(before), Decimal(amount))
    ]  # fmt: skip


def test_what_was_not_used_and_what_has_no_price_is_no_charge():
    plan = plan_with(debates=("0", "1", 1))
    assert charges_for(plan, {}, {}) == []
    assert charges_for(plan_with(), {"debates": Decimal(10**6)}, {}) == []


def test_a_total_that_fell_gives_back():
    plan = plan_with(debates=("10", "1", 1))
    (one,) = charges_for(plan, {"debates": Decimal(12)}, {"debates": Decimal("5.00")})
    assert (one.amount_usd, one.exact_usd) == (Decimal("-3.00"), Decimal(2))


amounts = st.decimals("0", "1000000", places=6)


@given(
    included=st.integers(0, 10**9),
    price=st.decimals("0.000001", "1000", places=6),
    per=st.sampled_from([1, 2, 5, 10, 1000, 10**6]),
    totals=st.lists(amounts, min_size=1, max_size=8),
)
def test_however_often_a_month_is_closed_its_lines_add_up_to_the_rounded_total(included, price, per, totals):
    plan = plan_with(cost_usd=(str(included), str(price), per))
    charged = Decimal(0)
    for total in totals:
        for one in charges_for(plan, {"cost_usd": total}, {"cost_usd": charged}):
            charged += one.amount_usd
            exact = Fraction(max(Decimal(0), total - included)) * Fraction(price) / per
            assert Fraction(one.exact_usd) == exact, "nothing is lost on the way"
    beyond = max(Decimal(0), totals[-1] - included)
    assert charged == rounded(beyond * price / per)


FREE, TEAM = plan_with("free", is_default=True), plan_with("team", debates=("100", "0.50", 1))
START, MIDDLE, END = (datetime(2026, 10, day, tzinfo=UTC) for day in (1, 20, 31))


def stretch(plan: str, at: datetime, end: datetime = END, *, is_free: bool = False) -> Stretch:
    return Stretch(at, end, Sold(plan, 1), None, is_free)


@pytest.mark.parametrize(
    ("had", "plan"),
    [
        ([stretch("team", START)], "team"),
        ([stretch("free", START)], "free"),
        ([stretch("team", START, MIDDLE), stretch("free", MIDDLE)], "team"),  # a cancellation makes nothing free
        ([stretch("free", START, MIDDLE), stretch("team", MIDDLE)], "team"),
        ([stretch("team", START, MIDDLE), stretch("team", MIDDLE, is_free=True)], None),
        ([stretch("team", START, MIDDLE, is_free=True), stretch("free", MIDDLE)], None),
        ([], "nothing"),
    ],
)
def test_by_which_plan_a_month_is_charged(had: list[Stretch], plan: str | None):
    found = charged_stretch(had, Plans([FREE, TEAM]))
    if plan == "nothing":
        assert found is None
    else:
        assert found is not None
        assert found.is_free if plan is None else found.sold.plan == plan


def test_the_words_of_a_line():
    (one,) = charges_for(plan_with(tokens=("1000000", "2.00", 1_000_000)), {"tokens": Decimal(5120344)}, {})
    assert described(one, "Team", "2026-10") == (
        "October 2026: 4,120,344 tokens beyond the 1,000,000 that Team includes, at USD 2.00 per 1,000,000"
    )
    (late,) = charges_for(TEAM, {"debates": Decimal(130)}, {"debates": Decimal("10.00")})
    assert described(late, "Team", "2026-10").startswith("October 2026, recorded later: 30 debates beyond the 100 that")
    assert [words_of(meter) for meter in ("calls:gemini", "api_calls", "cost_usd", "big_files")] == [
        "calls (gemini)", "API calls", "USD of usage", "big files",
    ]  # fmt: skip
    assert price_in_words(Decimal("0.000001"), Decimal(1)) == "USD 0.000001 each"
    assert price_in_words(Decimal("1200.50"), Decimal(1000)) == "USD 1,200.50 per 1,000"
    assert [plain(Decimal(text)) for text in ("0", "100", "1E+3", "1.50", "0.000001")] == [
        "0", "100", "1,000", "1.5", "0.000001",
    ]  # fmt: skip
