"""What limits must do, said once more in the plainest way: keep every event, and add up anew whenever somebody asks.

It shares no code with metering. A month is text, a limit is what the plan says, a reservation remembers what was asked,
and everything else (used, held, whether it fits, which thresholds are reached) is computed from those.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from aragora.contracts.plans import Limit, Meter

Operation = dict[str, Any]
Usage = dict[str, Any]
Key = tuple[str, str, str]
"""Month, meter and person; '' for the organization's limit."""
NONE = Decimal(0)
GPT_4O_USD = Decimal("0.0000025"), Decimal("0.00001")
"""Per token in and out (openai.com/api/pricing, as the documented table has it)."""
FORGOTTEN_AFTER = timedelta(days=1)


def month_of(moment: datetime) -> str:
    return f"{moment:%Y-%m}"


def first_counted(now: datetime) -> str:
    return month_of(now.replace(day=1) - timedelta(days=1))


def price(fields: dict[str, Any]) -> Decimal | None:
    if "cost_usd" in fields:
        return Decimal(fields["cost_usd"])
    if fields.get("model") == "gpt-4o" and {"tokens_in", "tokens_out"} <= fields.keys():
        return Decimal(fields["tokens_in"] * GPT_4O_USD[0] + fields["tokens_out"] * GPT_4O_USD[1])
    return None


def concerns(meter: Meter, fields: dict[str, Any]) -> bool:
    of_type = meter.event_type is None or meter.event_type == fields.get("event_type")
    return of_type and (meter.providers is None or (fields.get("provider") or "").lower() in meter.providers)


def amount_in(meter: Meter, usage: Usage) -> Decimal:
    """What one usage event adds to a sum, or shows to a maximum."""
    is_call = usage.get("provider") is not None or usage["event_type"] == "api_call"
    amounts = {
        "debates": int(usage["event_type"] == "debate"),
        "api_calls": usage.get("requests", 1) if is_call else 0,
        "tokens": usage.get("tokens_in", 0) + usage.get("tokens_out", 0),
        "cost_usd": price(usage) or 0,
    }
    quantity = str(meter.quantity)
    return Decimal(amounts[quantity] if quantity in amounts else usage.get(quantity, 0))


def is_named(meter: Meter, name: str) -> bool:
    """Whether a meter goes by this name: gemini's is google's too."""
    kind, _, provider = name.partition(":")
    return name == meter.name or (meter.name.partition(":")[0] == kind and provider in (meter.providers or ()))


def asked_of(meter: Meter, operation: Operation) -> tuple[Decimal, bool] | None:
    """What an operation will take of a meter, and whether it takes more that nobody knows. None: it has none of it."""
    if "meter" in operation:
        return (Decimal(operation["amount"]), False) if is_named(meter, operation["meter"]) else None
    if not concerns(meter, operation):
        return None
    if meter.aggregation in ("count", "unique_users"):
        return Decimal(1), False
    is_call = "provider" in operation or operation.get("event_type") == "api_call"
    is_debate = operation.get("event_type") == "debate"
    if meter.quantity == "cost_usd":
        cost = price(operation)
        return (NONE, True) if cost is None else (cost, False)
    if meter.quantity == "debates":
        return (Decimal(1), False) if is_debate else None
    if meter.quantity == "api_calls":
        return (Decimal(operation.get("requests", 1)), False) if is_call else None
    if meter.quantity == "tokens":
        known = [operation[name] for name in ("tokens", "tokens_in", "tokens_out") if name in operation]
        complete = "tokens" in operation or len(known) == 2
        return (Decimal(sum(known)), not complete) if complete or is_call or is_debate else None
    quantity = str(meter.quantity)
    return (Decimal(operation[quantity]), False) if quantity in operation else None


def reached(used: Decimal, amount: Decimal | None) -> int:
    if amount is None or used == 0:
        return 0
    return max(percent for percent in (0, 80, 90, 100) if used * 100 >= amount * percent)


@dataclass
class Reservation:
    id: str
    operations: list[Operation]
    user_id: str | None
    month: str
    expires_at: datetime
    state: str = "open"
    ended_at: datetime | None = None

    def end(self, state: str, now: datetime) -> None:
        self.state, self.ended_at = state, now


@dataclass
class Organization:
    """One organization: what it may do, did and holds, and what was said about it."""

    revision: int = 0
    limits: list[Limit] = field(default_factory=list)
    log: dict[str, tuple[datetime, Usage]] = field(default_factory=dict)
    reservations: dict[str, Reservation] = field(default_factory=dict)
    keys: dict[str, tuple[Any, str]] = field(default_factory=dict)
    reached: dict[Key, int] = field(default_factory=dict)
    said: defaultdict[Key, list[tuple[int, Decimal, Decimal]]] = field(default_factory=lambda: defaultdict(list))
    expired: list[str] = field(default_factory=list)

    def enforced(self) -> list[Limit]:
        return [one for one in self.limits if one.limit is not None]

    def users_of(self, limit: Limit) -> set[str]:
        found = {str(usage.get("user_id") or "") for _, usage in self.log.values()}
        return found - {""} if limit.per == "user" else {""}

    def used(self, limit: Limit, month: str, user: str = "") -> Decimal:
        meter = limit.meter
        mine = [
            usage for moment, usage in self.log.values()
            if month_of(moment) == month and concerns(meter, usage) and user in ("", usage.get("user_id"))
        ]  # fmt: skip
        if meter.aggregation == "count":
            return Decimal(len(mine))
        if meter.aggregation == "unique_users":
            return Decimal(len({usage["user_id"] for usage in mine if usage.get("user_id")}))
        amounts = [amount_in(meter, usage) for usage in mine]
        return max(amounts, default=NONE) if meter.aggregation == "max" else sum(amounts, NONE)

    def standing(self, now: datetime) -> dict[Key, Decimal]:
        """What is used of each limit, where it is anything."""
        months = {month_of(moment) for moment, _ in self.log.values() if month_of(moment) >= first_counted(now)}
        found = {
            (month, limit.meter.name, user): self.used(limit, month, user)
            for limit in self.enforced() for month in months for user in self.users_of(limit)
        }  # fmt: skip
        return {key: used for key, used in found.items() if used}

    def held(self) -> dict[Key, Decimal]:
        """What is held of each limit, where it is anything; of a meter of unique users, by person."""
        found: defaultdict[Key, Decimal] = defaultdict(Decimal)
        for one in self.reservations.values():
            if one.state != "open":
                continue
            for limit, (amount, _) in self.demands(one.operations, one.user_id):
                if limit.meter.aggregation == "unique_users":
                    found[one.month, limit.meter.name, one.user_id or ""] += 1
                elif limit.meter.aggregation != "max":
                    found[one.month, limit.meter.name, (one.user_id or "") if limit.per == "user" else ""] += amount
        return {key: amount for key, amount in found.items() if amount}

    def demands(self, operations: list[Operation], user: str | None) -> list[tuple[Limit, tuple[Decimal, bool]]]:
        found = []
        for limit in self.enforced():
            if not user and (limit.per == "user" or limit.meter.aggregation == "unique_users"):
                continue
            parts = [part for part in (asked_of(limit.meter, one) for one in operations) if part is not None]
            if parts:
                amounts = [amount for amount, _ in parts]
                at_most = limit.meter.aggregation in ("max", "unique_users")
                total = max(amounts) if at_most else sum(amounts, NONE)
                found.append((limit, (total, any(more for _, more in parts))))
        return found

    def short_of(self, operations: list[Operation], user: str | None, now: datetime) -> Limit | None:
        """The first limit that these operations do not fit into. One with an overage price never refuses."""
        month, held = month_of(now), self.held()
        for limit, (amount, more) in self.demands(operations, user):
            if limit.overage is not None:
                continue
            who, name = (user or "") if limit.per == "user" else "", limit.meter.name
            allowed = limit.limit or NONE
            if limit.meter.aggregation == "unique_users":
                mine = [usage for moment, usage in self.log.values() if month_of(moment) == month]
                counted = {one["user_id"] for one in mine if one.get("user_id") and concerns(limit.meter, one)}
                waiting = {person for at, meter, person in held if (at, meter) == (month, name)}
                fits = user in counted | waiting or len(counted | waiting) < allowed
            else:
                taken = NONE
                if limit.meter.aggregation != "max":
                    taken = self.used(limit, month, who) + held.get((month, name, who), NONE)
                left = allowed - taken - amount
                fits = left > 0 or (left == 0 and not more)
            if not fits:
                return limit
        return None

    # What happens.

    def entitle(self, revision: int, limits: list[Limit], now: datetime) -> None:
        if revision < self.revision:
            return
        self.revision, self.limits = revision, limits
        standing = self.standing(now)
        amounts = {(one.meter.name, one.per == "user"): one.limit for one in limits}
        for key in self.reached.keys() | standing.keys():
            month, meter, user = key
            stands = reached(standing.get(key, NONE), amounts.get((meter, bool(user))))
            if month < month_of(now) or stands < self.reached.get(key, 0):
                self.reached[key] = stands
        self._say(now)

    def record(self, events: list[tuple[str, datetime, Usage]], now: datetime) -> None:
        for event_id, moment, usage in events:
            if event_id in self.log:
                continue
            self.log[event_id] = moment, usage
            named = self.reservations.get(usage.get("reservation_id", ""))
            if named is not None and named.state == "open":
                named.end("settled", now)
        self._say(now)

    def _say(self, now: datetime) -> None:
        amounts = {(one.meter.name, one.per == "user"): one.limit for one in self.enforced()}
        for key, used in self.standing(now).items():
            amount = amounts[key[1], bool(key[2])] or NONE
            before = self.reached.get(key, 0)
            for percent in (80, 90, 100):
                if before < percent <= reached(used, amount):
                    self.said[key].append((percent, used, amount))
                    self.reached[key] = percent

    def expire(self, now: datetime) -> None:
        for one in self.reservations.values():
            if one.state == "open" and one.expires_at <= now:
                one.end("expired", now)
                self.expired.append(one.id)

    def forget(self, now: datetime) -> None:
        ended = [one.id for one in self.reservations.values() if one.ended_at and one.ended_at < now - FORGOTTEN_AFTER]
        for one in ended:
            del self.reservations[one]
        self.keys = {key: asked for key, asked in self.keys.items() if asked[1] not in ended}
