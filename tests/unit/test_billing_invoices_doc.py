"""The worked example in docs/invoices.md is what the code does."""

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

from aragora.contracts.plans import Plan
from billing.catalog import parse
from billing.charges import charges_for, described
from billing.manual_invoice import drawn_up, plan_lines, set_terms
from billing.plans import Plans
from billing.stretches import Stretch
from billing.subscription import Sold

PAGE = (Path(__file__).parents[2] / "docs/invoices.md").read_text()
EXAMPLE = PAGE.partition("## A worked example")[2].partition("\n## ")[0]
ROWS = re.findall(r"^\| (.+?) \| (.*?) \|? ?([\d.]+) \|$", EXAMPLE, re.MULTILINE)


def amount_of(line: str) -> Decimal:
    (found,) = [Decimal(amount) for name, _, amount in ROWS if name.strip("*") == line]
    return found


def plans() -> list[Plan]:
    (text,) = re.findall(r"```toml\n(.*?)```", EXAMPLE, re.DOTALL)
    return list(parse(text, "invoices.md").plans)


def test_the_worked_example():
    free, team = plans()
    at = [datetime(2026, month, day, tzinfo=UTC) for month, day in ((10, 1), (10, 11), (11, 1), (11, 5))]
    had = [Stretch(at[0], at[1], Sold("free", 1)), Stretch(at[1], at[2], Sold("team", 1))]
    terms = set_terms(None, date(2026, 10, 1), 30, "{}")
    lines = plan_lines(had, terms, "2026-10", Plans([free, team]))
    charges = charges_for(team, {"debates": Decimal(123), "tokens": Decimal(5_120_344)}, {})
    said = {line.description: line.amount for line in lines}
    said |= {described(one, "Team", "2026-10"): one.amount_usd for one in charges}
    assert len(said) == 3
    assert {line: amount_of(line) for line in said} == said
    invoice = drawn_up("inv", "ARA-2026-000001", lines, Decimal("20.00"), terms, "2026-10", at[3])
    total = sum(said.values())
    assert amount_of("Total") == total
    assert amount_of("Credited") == invoice.credited
    assert amount_of("Due") == total - invoice.credited

    before = {one.meter: one.amount_usd for one in charges}
    (late,) = charges_for(team, {"debates": Decimal(125), "tokens": Decimal(5_120_344)}, before)
    assert amount_of(described(late, "Team", "2026-10")) == late.amount_usd
    assert len(ROWS) == 7


def test_the_figures_in_between():
    assert "= 196.4516…" in EXAMPLE
    assert "= 8.240688" in EXAMPLE
    assert Decimal(290) * 1_814_400 / 2_678_400 - Decimal("196.4516") < Decimal("0.0001")
    assert Decimal(4_120_344) * 2 / 1_000_000 == Decimal("8.240688")
