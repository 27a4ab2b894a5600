"""The plan catalog: from the text of a TOML file to plans and meters. Pure.

A file has a `[catalog]` table with its name, the ladder of `tiers` and the `default_plan`, a `[plans.<id>]` table for
every plan, and `[meters.<name>]` for meters of its own. A limit that is left out is unlimited, like "unlimited"; 0 is
none.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from aragora.contracts.plans import Meter, Plan
from billing.catalog_lines import Lines, written
from billing.catalog_rules import Fault, known_keys, read_meter, read_plan, required, table_at

_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)")


class CatalogError(ValueError):
    """The plan catalog cannot be used. The message names the file, the line and the key, and says what to do."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """What is sold. `plans` are in the order of the ladder, then those off it; all are of version 1."""

    name: str
    plans: tuple[Plan, ...]
    meters: Mapping[str, Meter]
    """The custom ones, by name."""


def parse(text: str, file: str) -> Catalog:
    """The catalog in a text; `file` is its name, for the message.

    Raises:
        CatalogError: see there.
    """
    lines = Lines(text)
    try:
        tables = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        found = _PLACE.search(str(error))
        line = int(found[1]) if found and found[1] else len(text.splitlines())
        key, what = written(lines.key_at(line)), _PLACE.sub("", str(error))
        twice = "overwrite" in what or "twice" in what
        said = "stands there twice; keep one" if twice else f"not valid TOML: {what}"
        raise CatalogError(f"{file}, line {line}{f', {key}' if key else ''}: {said}") from error
    try:
        return _read(tables)
    except Fault as fault:
        raise CatalogError(
            f"{file}, line {lines.line_of(fault.key)}, {written(fault.key) or 'the file'}: {fault.message}"
        ) from fault


def _read(tables: dict[str, Any]) -> Catalog:
    known_keys(tables, ("catalog", "plans", "meters"), ())
    head = table_at(required(tables, "catalog", ()), ("catalog",))
    known_keys(head, ("name", "default_plan", "tiers"), ("catalog",))
    plan_tables = table_at(required(tables, "plans", ()), ("plans",))
    tiers = _tiers(required(head, "tiers", ("catalog",)), plan_tables)
    meters = {
        name: read_meter(name, table_at(table, ("meters", name)), ("meters", name))
        for name, table in table_at(tables.get("meters", {}), ("meters",)).items()
    }
    default = required(head, "default_plan", ("catalog",))
    if default not in tiers:
        raise Fault(("catalog", "default_plan"), f"is {default!r}, which is none of the tiers: {', '.join(tiers)}")
    plans = []
    ladder = [*tiers, *(name for name in plan_tables if name not in tiers)]
    for rank, name in enumerate(ladder):
        at = ("plans", name)
        table = table_at(plan_tables[name], at)
        plan = read_plan(name, table, meters, rank=rank, is_default=name == default, at=at)
        if plan.listed and name not in tiers:
            raise Fault(at, "is not among the tiers; add it to catalog.tiers, or write listed = false")
        if not plan.listed and name in tiers:
            raise Fault((*at, "listed"), "is false for a plan among catalog.tiers; take it out there, or list it")
        plans.append(plan)
    name = head.get("name", "catalog")
    if not isinstance(name, str):
        raise Fault(("catalog", "name"), "must be a text")
    return Catalog(name, tuple(plans), meters)


def _tiers(value: object, plan_tables: Mapping[str, Any]) -> list[str]:
    at = ("catalog", "tiers")
    if not isinstance(value, list) or not value or not all(isinstance(tier, str) for tier in value):
        raise Fault(at, "must list the ids of the plans, the lowest first")
    for number, tier in enumerate(value):
        if tier in value[:number]:
            raise Fault(at, f"names {tier!r} twice; keep one")
        if tier not in plan_tables:
            raise Fault(at, f"names {tier!r}, but there is no [plans.{tier}]; write that table, or take the tier out")
    return value
