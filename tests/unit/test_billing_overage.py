"""A plan may price what goes beyond a limit; what makes no sense is refused with line, key and what to do."""

from decimal import Decimal

import pytest

from aragora.contracts.plans import Overage, Plan
from billing import reading
from billing.catalog import CatalogError, parse
from billing.catalog_rules import Fault, read_plan

CATALOG = """\
[catalog]
name = "ours"
default_plan = "free"
tiers = ["free", "team"]

[plans.free]
name = "Free"
price_usd_per_month = "0"
seats = 1

[plans.team]
name = "Team"
price_usd_per_month = "29.90"
seats = "unlimited"

[plans.team.limits]
debates = 100
tokens = 0
cost_usd = "50"
images = "unlimited"

[plans.team.overage]
debates = "0.50"
tokens = { price_usd = "2.00", per = 1_000_000 }

[plans.team.overage.cost_usd]
price_usd = 1.2
"""


def overage_of(plan: Plan) -> dict[str, Overage]:
    return {one.meter.name: one.overage for one in plan.limits if one.overage is not None}


def test_prices_beyond_the_limits():
    free, team = parse(CATALOG, "ours.toml").plans
    assert overage_of(free) == {}
    assert overage_of(team) == {
        "debates": Overage(price_usd=Decimal("0.50"), per=Decimal(1)),
        "tokens": Overage(price_usd=Decimal("2.00"), per=Decimal(1_000_000)),
        "cost_usd": Overage(price_usd=Decimal("1.2"), per=Decimal(1)),
    }
    assert {one.meter.name: one.limit for one in team.limits} == {
        "debates": 100, "tokens": 0, "cost_usd": 50, "images": None,
    }  # fmt: skip


def test_people_see_the_prices():
    shown = reading.plan_answer(parse(CATALOG, "ours.toml").plans[1]).overage
    assert (shown["tokens"].price_usd, shown["tokens"].per) == (Decimal("2.00"), Decimal(1_000_000))
    assert set(shown) == {"debates", "tokens", "cost_usd"}


CHANGES: dict[str, tuple[str, str, str, str]] = {
    # what: (old text, new text, the line that is named begins with, the message holds)
    "no limit": ('debates = "0.50"', 'api_calls = "0.50"', "api_calls", "overage.api_calls: has a price, but the plan"),
    "unlimited": ('debates = "0.50"', 'images = "0.50"', 'images = "0', "has a price, but is unlimited"),
    "negative": ('debates = "0.50"', 'debates = "-1"', 'debates = "-1"', "is -1, below 0"),
    "nothing": ('debates = "0.50"', "debates = 0", "debates = 0", 'write "unlimited" as the limit'),
    "parts of a millionth": ('"0.50"', '"0.0000001"', 'debates = "0', "more than 6 decimals"),
    "words": ('debates = "0.50"', 'debates = "cheap"', 'debates = "c', "must be a number"),
    "per nothing": ("1_000_000", "0", "tokens = {", "overage.tokens.per: is 0, by which a price has no exact share"),
    "per three": ("1_000_000", "3_000", "tokens = {", "is 3000, by which a price has no exact share"),
    "per a half": ("1_000_000", "0.5", "tokens = {", "counted in whole numbers"),
    "no price": ('price_usd = "2.00", ', "", "tokens = {", "overage.tokens: has no price_usd; add it"),
    "unknown key": ("per = 1", "each = 1", "tokens = {", "overage.tokens.each: is not known here"),
    "no table": ("[plans.team.overage]\n", "[[plans.team.overage]]\n", "[[plans", "overage: must be a table"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_prices_that_make_no_sense(what: str):
    old, new, begins, message = CHANGES[what]
    text = CATALOG.replace(old, new, 1)
    assert text != CATALOG
    if what == "no table":
        text = text.partition("\n[plans.team.overage.cost_usd]")[0]
    with pytest.raises(CatalogError) as refused:
        parse(text, "ours.toml")
    line = next(number for number, each in enumerate(text.splitlines(), 1) if each.startswith(begins))
    assert str(refused.value).startswith(f"ours.toml, line {line}, "), refused.value
    assert message in str(refused.value)


def test_an_operators_plan_is_held_to_the_same():
    table = {"name": "Gold", "price_usd_per_month": 5, "seats": None, "limits": {"debates": 10}}
    plan = read_plan("gold", table | {"overage": {"debates": "0.5"}}, {},
                     rank=1, is_default=False)  # fmt: skip
    assert overage_of(plan) == {"debates": Overage(price_usd=Decimal("0.5"))}
    with pytest.raises(Fault) as refused:
        read_plan("gold", table | {"overage": {"tokens": {"price_usd": "1"}}}, {}, rank=1, is_default=False)
    assert refused.value.key == ("overage", "tokens")
