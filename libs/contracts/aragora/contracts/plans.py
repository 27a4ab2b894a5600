"""What a plan grants: features, and limits on meters per calendar month.

A *meter* adds up usage over a calendar month (UTC). These are built in:

* `debates`, `api_calls`, `tokens` (in + out), `images`, `searches`, `cost_usd`;
* `calls:<provider>` and `tokens:<provider>`, the same for one provider only.

Further ones are declared in the plan catalog, as a `Meter`.
"""

import re
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

METER_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}(:[a-z0-9][a-z0-9_.-]{0,62})?\Z")
MAX_LIMIT = Decimal(10) ** 15
"""The largest limit accepted: more is a mistake of units, and unlimited is written as null."""

Quantity = Literal[
    "debates", "api_calls", "tokens", "tokens_in", "tokens_out", "requests", "images", "searches", "pages", "seconds",
    "cost_usd",
]  # fmt: skip
Aggregation = Literal["sum", "count", "unique_users", "max"]

_SUMS: dict[str, Quantity] = {
    "debates": "debates",
    "api_calls": "api_calls",
    "tokens": "tokens",
    "images": "images",
    "searches": "searches",
    "cost_usd": "cost_usd",
}
_BY_PROVIDER: dict[str, Quantity] = {"calls": "api_calls", "tokens": "tokens"}
_OTHER_NAMES = {
    "gemini": ("google", "google-gemini"),
    "metaphor": ("exa",),
    "stability": ("stability-ai", "stability_ai", "stabilityai"),
}
"""Providers that publishers know under several names. A meter counts all of them, whichever it is named after."""


class UnknownMeter(ValueError):
    """Neither a built-in meter nor one that the plan catalog declares. The message lists what there is."""


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Meter(_Value):
    """How a meter adds up usage events. `quantity` is what `sum` and `max` look at; the filters are optional."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}(:[a-z0-9][a-z0-9_.-]{0,62})?$")]
    aggregation: Aggregation = "sum"
    quantity: Quantity | None = None
    event_type: str | None = None
    """Only events of this type."""
    providers: tuple[str, ...] | None = None
    """Only events of a provider with one of these names, in lower case."""


class Overage(_Value):
    """What usage beyond a limit costs: `price_usd` for each `per` of the meter, and a part of that for a part."""

    price_usd: Annotated[Decimal, Field(ge=0, le=MAX_LIMIT, allow_inf_nan=False)]
    per: Annotated[Decimal, Field(gt=0, le=MAX_LIMIT, allow_inf_nan=False)] = Decimal(1)


class Limit(_Value):
    """How much of a meter a month allows. `limit` null: unlimited. 0: none."""

    meter: Meter
    limit: Annotated[Decimal, Field(ge=0, le=MAX_LIMIT, allow_inf_nan=False)] | None
    per: Literal["organization", "user"] = "organization"
    """Whether all of the organization share it, or every person has as much."""
    overage: Overage | None = None
    """With a price, `limit` is what the plan includes: nobody is refused there, and what goes beyond is charged."""


class Plan(_Value):
    """One version of a plan, as it is sold. A subscription keeps the version that it was sold."""

    plan: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
    version: Annotated[int, Field(ge=1)]
    name: str
    rank: Annotated[int, Field(ge=0)]
    """Its place on the ladder of tiers, from 0; what an upgrade is has a higher one."""
    price_usd_per_month: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
    seats: Annotated[int, Field(ge=0)] | None
    """People whom the organization may have. null: unlimited."""
    features: dict[str, bool]
    limits: tuple[Limit, ...]
    trial_days: Annotated[int, Field(ge=0)] = 0
    listed: bool = True
    """Whether people may choose it. An unlisted plan is given by an operator only."""
    is_default: bool = False
    """Whether every new organization gets it."""


def built_in_meter(name: str) -> Meter:
    """The built-in meter of this name.

    Raises:
        UnknownMeter: there is none.
    """
    if name in _SUMS:
        return Meter(name=name, quantity=_SUMS[name])
    kind, _, provider = name.partition(":")
    if provider and kind in _BY_PROVIDER and METER_NAME.match(name):
        return Meter(name=name, quantity=_BY_PROVIDER[kind], providers=names_of_provider(provider))
    known = ", ".join([*_SUMS, *(f"{kind}:<provider>" for kind in _BY_PROVIDER)])
    raise UnknownMeter(f"{name!r} is not a meter; built in are {known}, and the catalog may declare others")


def names_of_provider(provider: str) -> tuple[str, ...]:
    """Every name, in lower case, under which usage of this provider may come."""
    lower = provider.lower()
    for name, others in _OTHER_NAMES.items():
        if lower == name or lower in others:
            return (name, *others)
    return (lower,)
