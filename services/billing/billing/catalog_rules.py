"""What a plan and a meter may say, in a catalog file or in an operator's request. Pure."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any, get_args

from aragora.contracts.plans import (
    MAX_LIMIT,
    METER_NAME,
    Aggregation,
    Limit,
    Meter,
    Overage,
    Plan,
    Quantity,
    UnknownMeter,
    built_in_meter,
    names_of_provider,
)
from billing.catalog_lines import Key

PLAN_ID = re.compile(r"[a-z][a-z0-9_-]{0,62}\Z")
MAX_NAME = 100
MAX_PRICE = Decimal(10) ** 7
MAX_TRIAL_DAYS = 366
MAX_DECIMALS = 6
UNLIMITED = "unlimited"

_FEATURE = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")
_AMOUNT = re.compile(r"-?\d+(\.\d+)?\Z", re.ASCII)
_PLAN_KEYS = (
    "name", "price_usd_per_month", "seats", "trial_days", "listed", "features", "limits", "limits_per_user", "overage",
)  # fmt: skip
_OVERAGE_KEYS = ("price_usd", "per")
_METER_KEYS = ("aggregation", "quantity", "event_type", "provider")
_FRACTIONAL = ("cost_usd", "seconds")
"""Quantities that come in parts. All others are counted, and their limits are whole numbers."""


class Fault(ValueError):
    """What is wrong in a catalog or a plan, and the key where it is. The message says what to do."""

    def __init__(self, key: Key, message: str) -> None:
        super().__init__(message)
        self.key = key
        self.message = message


def read_plan(
    plan: str, table: Mapping[str, Any], meters: Mapping[str, Meter], *, rank: int, is_default: bool, at: Key = ()
) -> Plan:
    """The plan in a table, as version 1: who publishes it gives it its number.

    Args:
        plan: its id.
        table: what it says, as TOML or JSON. Fractional numbers are decimals, "unlimited" and null mean the same.
        meters: the custom ones that its limits may name.
        rank: its place on the ladder.
        is_default: whether every new organization gets it.
        at: the key of the table, for faults.

    Raises:
        Fault: see there.
    """
    if not PLAN_ID.match(plan):
        raise Fault(at, f"{plan!r} cannot be a plan's id; use lower-case letters, digits, '_' and '-', a letter first")
    known_keys(table, _PLAN_KEYS, at)
    price = _amount(required(table, "price_usd_per_month", at), (*at, "price_usd_per_month"), MAX_PRICE)
    if price != round(price, 2):
        raise Fault((*at, "price_usd_per_month"), "has more than two decimals; a price is in whole cents")
    listed = table.get("listed", True)
    if not isinstance(listed, bool):
        raise Fault((*at, "listed"), "must be true or false")
    if is_default and price > 0:
        raise Fault((*at, "price_usd_per_month"), "must be 0: every new organization gets this plan")
    if is_default and not listed:
        raise Fault((*at, "listed"), "must be true: every new organization gets this plan")
    trial_days = _whole(table.get("trial_days", 0), (*at, "trial_days"), MAX_TRIAL_DAYS)
    shared = _limits(table.get("limits", {}), meters, (*at, "limits"), "organization")
    own = _limits(table.get("limits_per_user", {}), meters, (*at, "limits_per_user"), "user")
    included = {meter.name: limit for meter, limit in shared}
    overages = _overages(table.get("overage", {}), included, (*at, "overage"))
    return Plan(
        plan=plan,
        version=1,
        name=_name(required(table, "name", at), (*at, "name")),
        rank=rank,
        price_usd_per_month=price,
        seats=_unless_unlimited(required(table, "seats", at), (*at, "seats")),
        features=_features(table.get("features", {}), (*at, "features")),
        limits=(
            *(Limit(meter=meter, limit=limit, overage=overages.get(meter.name)) for meter, limit in shared),
            *(Limit(meter=meter, limit=limit, per="user") for meter, limit in own),
        ),
        trial_days=trial_days,
        listed=listed,
        is_default=is_default,
    )


def read_meter(name: str, table: Mapping[str, Any], at: Key) -> Meter:
    """A custom meter. Raises `Fault` if it is not one, or takes the name of a built-in."""
    known_keys(table, _METER_KEYS, at)
    if not METER_NAME.match(name):
        raise Fault(at, "cannot be a meter's name; use lower-case letters, digits and '_', a letter first")
    with suppress(UnknownMeter):
        built_in_meter(name)
        raise Fault(at, "is built in already; choose another name")
    aggregation = _one_of(table.get("aggregation", "sum"), get_args(Aggregation), (*at, "aggregation"))
    quantity = table.get("quantity")
    if aggregation in ("sum", "max"):
        if quantity is None:
            raise Fault(at, f"has no quantity; say of what it is the {aggregation}: {', '.join(get_args(Quantity))}")
        _one_of(quantity, get_args(Quantity), (*at, "quantity"))
    elif quantity is not None:
        raise Fault((*at, "quantity"), f"is not looked at by {aggregation}; take it out")
    event_type, provider = table.get("event_type"), table.get("provider")
    if event_type is not None:
        _name(event_type, (*at, "event_type"))
    return Meter(
        name=name,
        aggregation=aggregation,
        quantity=quantity,
        event_type=event_type,
        providers=None if provider is None else names_of_provider(_name(provider, (*at, "provider"))),
    )


def table_at(value: object, at: Key) -> dict[str, Any]:
    """The value, if it is a table."""
    if not isinstance(value, dict):
        raise Fault(at, "must be a table")
    return value


def required(table: Mapping[str, Any], name: str, at: Key) -> Any:
    """The value of a key that must be there."""
    if name not in table:
        raise Fault(at, f"has no {name}; add it")
    return table[name]


def known_keys(table: Mapping[str, Any], known: Iterable[str], at: Key) -> None:
    """Raises `Fault` for a key that means nothing here: it is misspelt, or in the wrong table."""
    for name in table:
        if name not in known:
            raise Fault((*at, name), f"is not known here; there are {', '.join(known)}")


def _limits(value: object, meters: Mapping[str, Meter], at: Key, per: str) -> list[tuple[Meter, Decimal | None]]:
    found: list[tuple[Meter, Decimal | None]] = []
    for name, limit in sorted(table_at(value, at).items()):
        key = (*at, name)
        try:
            meter = meters.get(name) or built_in_meter(name)
        except UnknownMeter as error:
            raise Fault(key, str(error)) from error
        if meter.aggregation == "unique_users" and per == "user":
            raise Fault(key, "counts people, and one person is one; move it to the limits of the organization")
        counted = meter.aggregation in ("count", "unique_users") or meter.quantity not in _FRACTIONAL
        if limit is None or limit == UNLIMITED:
            found.append((meter, None))
        else:
            found.append((meter, Decimal(_whole(limit, key)) if counted else _amount(limit, key)))
    return found


def _overages(value: object, included: Mapping[str, Decimal | None], at: Key) -> dict[str, Overage]:
    found = {}
    for meter, said in sorted(table_at(value, at).items()):
        key = (*at, meter)
        if meter not in included:
            raise Fault(key, "has a price, but the plan has no limit on it; say how much is included, 0 for nothing")
        if included[meter] is None:
            raise Fault(key, "has a price, but is unlimited, so that nothing goes beyond; set a limit, or take it out")
        table, price_at = ({"price_usd": said}, key) if not isinstance(said, dict) else (said, (*key, "price_usd"))
        known_keys(table, _OVERAGE_KEYS, key)
        price = _amount(required(table, "price_usd", key), price_at, MAX_PRICE)
        if price == 0:
            raise Fault(price_at, f'is 0, so that nothing is ever charged; write "{UNLIMITED}" as the limit instead')
        per = _whole(table.get("per", 1), (*key, "per"))
        if not _divides_evenly(per):
            raise Fault((*key, "per"), f"is {per}, by which a price has no exact share; use 1, 10, 1000, 1000000, …")
        found[meter] = Overage(price_usd=price, per=Decimal(per))
    return found


def _divides_evenly(per: int) -> bool:
    # Only twos and fives: then every price divided by it ends.
    for factor in (2, 5):
        while per and per % factor == 0:
            per //= factor
    return per == 1


def _features(value: object, at: Key) -> dict[str, bool]:
    features = table_at(value, at)
    for name, granted in features.items():
        if not _FEATURE.match(name):
            raise Fault((*at, name), "cannot be a feature's name; use lower-case letters, digits and '_'")
        if not isinstance(granted, bool):
            raise Fault((*at, name), "must be true or false")
    return features


def _unless_unlimited(value: object, at: Key) -> int | None:
    return None if value is None or value == UNLIMITED else _whole(value, at)


def _whole(value: object, at: Key, largest: Decimal | int = MAX_LIMIT) -> int:
    number = _amount(value, at, largest)
    if number != int(number):
        raise Fault(at, f"is {value}, but this is counted in whole numbers")
    return int(number)


def _amount(value: object, at: Key, largest: Decimal | int = MAX_LIMIT) -> Decimal:
    if isinstance(value, str) and _AMOUNT.match(value):
        value = Decimal(value)
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not Decimal(value).is_finite():
        raise Fault(at, f'must be a number of at least 0, or "{UNLIMITED}" where it is a limit or seats')
    if value < 0:
        raise Fault(at, f'is {value}, below 0; write 0 for none and "{UNLIMITED}" for no limit')
    if value > largest:
        raise Fault(at, f'is {value}, more than {largest:f}; is the unit right? For no limit write "{UNLIMITED}"')
    amount = abs(Decimal(value))  # of -0 too
    if amount != round(amount, MAX_DECIMALS):
        raise Fault(at, f"has more than {MAX_DECIMALS} decimals; round it")
    return amount


def _name(value: object, at: Key) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_NAME or not value.isprintable():
        raise Fault(at, f"must be a text of 1 to {MAX_NAME} printable characters")
    return value


def _one_of(value: object, choices: tuple[Any, ...], at: Key) -> Any:
    if value not in choices:
        raise Fault(at, f"must be one of {', '.join(choices)}")
    return value
