"""A catalog is right, or refused with the file, the line, the key and what to do."""

import re
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import ValidationError

from aragora.contracts.plans import Meter, Plan
from billing.catalog import CatalogError, parse
from billing.settings import CATALOGS, Settings, read_catalog

GOOD = """\
[catalog]
name = "ours"
default_plan = "free"
tiers = ["free", "pro"]

[plans.free]
name = "Free"
price_usd_per_month = "0"
seats = 1

[plans.free.limits]
debates = 10
"calls:gemini" = 100

[plans.pro]
name = "Pro"
price_usd_per_month = "29.50"
seats = "unlimited"
trial_days = 14

[plans.pro.features]
api_access = true

[plans.pro.limits]
debates = "unlimited"
cost_usd = 50.25
exports = 5
"active:people" = 0

[plans.pro.limits_per_user]
debates = 3

[plans.staff]
name = "Staff"
price_usd_per_month = 0
seats = "unlimited"
listed = false

[meters.exports]
aggregation = "count"
event_type = "export"

[meters."active:people"]
aggregation = "unique_users"

[meters.longest]
aggregation = "max"
quantity = "seconds"
provider = "Exa"
"""


def line_of(text: str, key: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if line.startswith(key))


def limits(plan: Plan, per: str = "organization") -> dict[str, Decimal | None]:
    return {one.meter.name: one.limit for one in plan.limits if one.per == per}


def test_a_good_catalog():
    catalog = parse(GOOD, "ours.toml")
    free, pro, staff = catalog.plans
    assert catalog.name == "ours"
    assert [(one.plan, one.rank, one.listed, one.is_default) for one in catalog.plans] == [
        ("free", 0, True, True), ("pro", 1, True, False), ("staff", 2, False, False),
    ]  # fmt: skip
    assert (free.seats, free.price_usd_per_month, free.trial_days) == (1, Decimal(0), 0)
    assert free.features == {}
    assert limits(free) == {"debates": 10, "calls:gemini": 100}
    assert (pro.seats, pro.price_usd_per_month, pro.trial_days) == (None, Decimal("29.50"), 14)
    assert pro.features == {"api_access": True}
    expected = {"debates": None, "cost_usd": Decimal("50.25"), "exports": 5, "active:people": 0}
    assert limits(pro) == expected
    assert limits(pro, "user") == {"debates": 3}
    assert staff.price_usd_per_month == 0
    assert catalog.meters == {
        "exports": Meter(name="exports", aggregation="count", event_type="export"),
        "active:people": Meter(name="active:people", aggregation="unique_users"),
        "longest": Meter(name="longest", aggregation="max", quantity="seconds", providers=("metaphor", "exa")),
    }


CHANGES: dict[str, tuple[str, str, str, str]] = {
    # what: (old text, new text, the line that is named begins with, the message holds)
    "negative": ("debates = 10", "debates = -1", "debates", "plans.free.limits.debates: is -1, below 0; write 0"),
    "negative text": ('"29.50"', '"-1"', 'price_usd_per_month = "-1"', "plans.pro.price_usd_per_month: is -1, below"),
    "fractional": ("debates = 10", "debates = 10.5", "debates", "is 10.5, but this is counted in whole numbers"),
    "fraction of a custom count": ("exports = 5", "exports = 0.5", "exports", "counted in whole numbers"),
    "absurd": ("debates = 10", "debates = 1_000_000_000_000_001", "debates", "is the unit right?"),
    "absurd price": ('"29.50"', '"10000001"', 'price_usd_per_month = "1', "is the unit right?"),
    "not a number": ("cost_usd = 50.25", "cost_usd = nan", "cost_usd", "must be a number of at least 0"),
    "endless": ("cost_usd = 50.25", "cost_usd = inf", "cost_usd", "must be a number of at least 0"),
    "too exact": ("cost_usd = 50.25", "cost_usd = 0.0000001", "cost_usd", "more than 6 decimals"),
    "parts of a cent": ('"29.50"', '"29.501"', 'price_usd_per_month = "29', "whole cents"),
    "true as a number": ("debates = 10", "debates = true", "debates", "must be a number"),
    "words": ("debates = 10", 'debates = "many"', "debates", 'or "unlimited"'),
    "unknown meter": ("debates = 10", "debate = 10", "debate =", "'debate' is not a meter; built in are debates"),
    "unknown kind": ('"calls:gemini"', '"call:gemini"', '"call:', "limits.\"call:gemini\": 'call:gemini' is not"),
    "missing tier": ('["free", "pro"]', '["free", "pro", "max"]', "tiers", "'max', but there is no [plans.max]"),
    "tier twice": ('["free", "pro"]', '["free", "free"]', "tiers", "names 'free' twice"),
    "no tiers": ('["free", "pro"]', "[]", "tiers", "the ids of the plans, the lowest first"),
    "off the ladder": ('["free", "pro"]', '["free"]', "[plans.pro]", "plans.pro: is not among the tiers"),
    "hidden tier": ("trial_days = 14", "listed = false", "listed", "among catalog.tiers"),
    "listed is no flag": ("trial_days = 14", "listed = 1", "listed", "must be true or false"),
    "bad default": ('"free"\nt', '"gratis"\nt', "default_plan", "'gratis', which is none of the tiers: free, pro"),
    "default costs": ('"free"\nt', '"pro"\nt', 'price_usd_per_month = "29', "must be 0: every new organization"),
    "unknown key": ("seats = 1", "seat = 1", "seat =", "plans.free.seat: is not known here; there are name"),
    "unknown table": ("[meters.exports]", "[metres.exports]", "[metres", "metres: is not known here"),
    "missing key": ("seats = 1\n", "", "[plans.free]", "plans.free: has no seats; add it"),
    "half a seat": ("seats = 1", "seats = 1.5", "seats", "whole numbers"),
    "long trial": ("trial_days = 14", "trial_days = 367", "trial_days", "more than 366"),
    "nameless": ('"Free"', '" "', 'name = " "', "must be a text of 1 to 100"),
    "feature is no flag": ("api_access = true", 'api_access = "yes"', "api_access", "must be true or false"),
    "feature's name": ("api_access = true", "Api = true", "Api", "cannot be a feature's name"),
    "limits are no table": ("[plans.free.limits]", "[[plans.free.limits]]", "[[plans", "must be a table"),
    "plan's id": ("[plans.staff]", "[plans.Staff]", "[plans.Staff]", "cannot be a plan's id"),
    "duplicate key": ("seats = 1", "seats = 1\nseats = 2", "seats = 2", "plans.free.seats: stands there twice"),
    "duplicate table": ("[plans.pro]", "[plans.free]", "[plans.free]", "stands there twice"),
    "not TOML": ("seats = 1", "seats = ", "seats =", "not valid TOML: Invalid value"),
    "meter built in": ("[meters.exports]", "[meters.debates]", "[meters.debates]", "is built in already"),
    "meter of a provider": ('"active:people"]', '"calls:people"]', '[meters."calls', "is built in already"),
    "no quantity": ('quantity = "seconds"\n', "", "[meters.longest]", "say of what it is the max: debates"),
    "needless quantity": ('"unique_users"', '"count"\nquantity = "tokens"', "quantity", "not looked at by count"),
    "unknown quantity": ('"seconds"', '"minutes"', "quantity", "must be one of debates"),
    "unknown aggregation": ('"unique_users"', '"average"', 'aggregation = "average"', "must be one of sum, count"),
    "event type": ('"export"', '""', "event_type", "must be a text"),
    "meter's name": ("[meters.exports]", "[meters.Exports]", "[meters.Exports]", "cannot be a meter's name"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_a_bad_catalog_is_refused_with_line_and_key(what: str):
    old, new, key, message = CHANGES[what]
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    with pytest.raises(CatalogError) as refused:
        parse(text, "ours.toml")
    said = str(refused.value)
    number = line_of(text, key)
    if what == "duplicate table":
        number = text.splitlines().index(key, number) + 1
    assert said.startswith(f"ours.toml, line {number}, "), said
    assert message in said


def test_a_file_that_ends_too_early():
    with pytest.raises(CatalogError, match=r"^x, line 1: not valid TOML: Expected ']' at the end of a table"):
        parse("[catalog", "x")
    with pytest.raises(CatalogError, match=r"^x, line 1, the file: has no catalog; add it$"):
        parse("", "x")


def test_an_inline_table_is_named_by_the_line_that_it_is_on():
    text = GOOD.replace("[plans.pro.features]\napi_access = true", "features = { api_access = 1 }")
    with pytest.raises(CatalogError, match=r"line 21, plans\.pro\.features\.api_access: must be true or false"):
        parse(text, "ours.toml")


@pytest.mark.parametrize("name", CATALOGS)
def test_the_catalogs_that_come_with_it_are_good(name: str):
    assert read_catalog(name).name == name


def test_the_example_in_the_readme_is_a_good_one():
    readme = (Path(__file__).parents[2] / "services/billing/README.md").read_text()
    (text,) = re.findall(r"```toml\n(.*?)```", readme, re.DOTALL)
    catalog = parse(text, "README.md")
    assert [plan.plan for plan in catalog.plans] == ["free", "team", "staff"]
    assert set(catalog.meters) == {"exports"}


def test_files_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(CatalogError, match=r"nothing\.toml cannot be read .*; choose aragora or alwrity, or a file's"):
        read_catalog(str(tmp_path / "nothing.toml"))
    with pytest.raises(CatalogError, match="cannot be read"):
        read_catalog(str(tmp_path))
    latin = tmp_path / "latin.toml"
    latin.write_bytes(GOOD.replace("Free", "Frée").encode("latin-1"))
    with pytest.raises(CatalogError, match="is not UTF-8"):
        read_catalog(str(latin))


def test_a_bad_catalog_stops_the_service_and_names_the_variable(tmp_path: Path, monkeypatch):
    file = tmp_path / "ours.toml"
    file.write_text(GOOD)
    monkeypatch.setenv("DATABASE_URL", "postgresql://")
    monkeypatch.setenv("ARAGORA_CATALOG", str(file))
    assert Settings().catalog == str(file)
    file.write_text(GOOD.replace("debates = 10", "debates = -1"))
    with pytest.raises(ValidationError, match=r"(?s)ARAGORA_CATALOG.*line 12, plans\.free\.limits\.debates: is -1"):
        Settings()
