"""The rules of limits: what an operation would use, and whether there is that much left. Pure.

An *account* is what is known of one organization at one moment: its limits, what is used of them and what is held. An
operation becomes a *demand* on each limit that its usage event will be counted against; a request is admitted if every
demand fits, and then all of them are held at once.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TypeAlias

from aragora.billing.rating import EXACT
from aragora.contracts.limits import Operation
from aragora.contracts.plans import Overage, UnknownMeter, built_in_meter
from metering.operations import Quantities, known_tokens, quantities_of

Key: TypeAlias = tuple[str, str]
"""A meter, and the person whose limit it is; '' for the organization's."""

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit as it is enforced. `amount` None: unlimited. 0: none.

    With `overage` it is what is included: it is counted and held like any other, and refuses nobody.
    """

    meter: str
    per: str
    amount: Decimal | None
    aggregation: str
    quantity: str | None
    event_type: str | None
    providers: tuple[str, ...] | None
    overage: Overage | None = None

    def concerns(self, event_type: str | None, provider: str | None) -> bool:
        """Whether usage of this type and provider is counted against it. The fold's SQL asks the same."""
        if self.event_type is not None and self.event_type != event_type:
            return False
        return self.providers is None or (provider is not None and provider.lower() in self.providers)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a request asks of one limit."""

    limit: Limit
    user_id: str
    amount: Decimal = ZERO
    wants_more: bool = False
    """Beyond `amount` it will use some that nobody knows yet: there must be something left for it."""

    @property
    def key(self) -> Key:
        """Where it is counted."""
        return self.limit.meter, self.user_id if self.limit.per == "user" else ""


@dataclass(slots=True)
class Account:
    """What is used and held of an organization's limits in a month.

    For meters of unique users, `counted` has those of the people in question who are counted already, and `waiting`
    everybody who is not, and for whom something is held.
    """

    limits: Sequence[Limit]
    used: dict[Key, Decimal] = field(default_factory=dict)
    held: dict[Key, Decimal] = field(default_factory=dict)
    counted: dict[str, set[str]] = field(default_factory=dict)
    waiting: dict[str, set[str]] = field(default_factory=dict)

    def hold(self, demands: Sequence[Demand]) -> dict[Key, Decimal]:
        """Hold what these demand, so that what comes next is decided after it; what was added, by key.

        A maximum holds nothing; a meter of unique users holds the user's place.
        """
        holds: dict[Key, Decimal] = {}
        for demand in demands:
            meter = demand.limit.meter
            if demand.limit.aggregation == "unique_users":
                holds[meter, demand.user_id] = Decimal(1)
                if demand.user_id not in self.counted.get(meter, ()):
                    self.waiting.setdefault(meter, set()).add(demand.user_id)
            elif demand.limit.aggregation != "max" and demand.amount:
                holds[demand.key] = demand.amount
        self.add(holds, 1)
        return holds

    def add(self, holds: Mapping[Key, Decimal], times: int) -> None:
        """Add holds to what is held, or with -1 take them away."""
        for (meter, user), amount in holds.items():
            held = self.held[meter, user] = EXACT.add(
                self.held.get((meter, user), ZERO), EXACT.multiply(Decimal(times), amount)
            )
            if held <= 0:
                self.waiting.get(meter, set()).discard(user)


@dataclass(frozen=True, slots=True)
class Standing:
    """One limit of a request, as it stands before the request: what was asked, and whether that fits."""

    demand: Demand
    used: Decimal
    held: Decimal
    fits: bool

    @property
    def would_fit_later(self) -> bool:
        """Whether it is only short of what others hold and may give back."""
        amount = self.demand.limit.amount
        return (
            not self.fits
            and amount is not None
            and EXACT.add(self.used, self.demand.amount) <= amount
            and self.held > 0
        )


def demands_of(
    operations: Sequence[Operation],
    costs_usd: Sequence[Decimal | None],
    limits: Sequence[Limit],
    user_id: str | None,
) -> list[Demand]:
    """What these operations ask of these limits, in the limits' order; unlimited ones are not asked.

    Args:
        operations: what is about to be done.
        costs_usd: what each will cost, as far as it is known.
        limits: the organization's.
        user_id: for whom; without one, nobody's own limits are asked.
    """
    described = [
        (operation, quantities_of(operation, cost_usd))
        for operation, cost_usd in zip(operations, costs_usd, strict=True)
    ]
    demands = []
    for limit in limits:
        if limit.amount is None or (limit.per == "user" and not user_id):
            continue
        amount, asked, wants_more = ZERO, False, False
        for operation, quantities in described:
            found = _asked_of(limit, operation, quantities)
            if found is None:
                continue
            asked = True
            known, more = found
            wants_more = wants_more or more
            amount = max(amount, known) if limit.aggregation in ("max", "unique_users") else EXACT.add(amount, known)
        if asked and not (limit.aggregation == "unique_users" and not user_id):
            demands.append(Demand(limit, user_id or "", amount, wants_more))
    return demands


def _asked_of(limit: Limit, operation: Operation, quantities: Quantities) -> tuple[Decimal, bool] | None:
    if operation.meter is not None:
        return (Decimal(operation.amount or 0), False) if _is_meter(limit, operation.meter) else None
    if not limit.concerns(operation.event_type, operation.provider):
        return None
    if limit.aggregation in ("count", "unique_users"):
        return Decimal(1), False
    if limit.quantity is None or limit.quantity not in quantities:
        return None
    amount = quantities[limit.quantity]
    if amount is None:
        return (known_tokens(operation) if limit.quantity == "tokens" else ZERO), True
    return amount, False


def _is_meter(limit: Limit, name: str) -> bool:
    """Whether the limit is on the meter of this name, under any of its provider's names."""
    if name == limit.meter:
        return True
    if ":" not in name or ":" not in limit.meter or limit.event_type is not None:
        return False
    with suppress(UnknownMeter):
        meter = built_in_meter(name)
        return (meter.aggregation, meter.quantity, meter.providers) == (
            limit.aggregation, limit.quantity, limit.providers
        )  # fmt: skip
    return False


def standings(account: Account, demands: Sequence[Demand]) -> list[Standing]:
    """Each demand beside what is used and held of its limit, in order."""
    return [_standing(account, demand) for demand in demands]


def _standing(account: Account, demand: Demand) -> Standing:
    used, held = account.used.get(demand.key, ZERO), account.held.get(demand.key, ZERO)
    limit = demand.limit
    allowed, is_soft = limit.amount, limit.overage is not None
    if allowed is None:
        return Standing(demand, used, held, fits=True)
    if limit.aggregation == "max":
        left = allowed - demand.amount
        return Standing(demand, used, ZERO, fits=is_soft or left > 0 or (left == 0 and not demand.wants_more))
    if limit.aggregation == "unique_users":
        waiting = account.waiting.get(limit.meter, set())
        known = demand.user_id in waiting or demand.user_id in account.counted.get(limit.meter, ())
        return Standing(demand, used, Decimal(len(waiting)), fits=is_soft or known or used + len(waiting) < allowed)
    left = EXACT.subtract(allowed, EXACT.add(EXACT.add(used, held), demand.amount))
    return Standing(demand, used, held, fits=is_soft or left > 0 or (left == 0 and not demand.wants_more))


def resets_at(now: datetime) -> datetime:
    """The first moment of the next calendar month. `now` must be in UTC."""
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return first.replace(year=first.year + 1, month=1) if first.month == 12 else first.replace(month=first.month + 1)
