"""The shapes of answers about limits, over HTTP and on the bus. Amounts are exact decimals, as JSON numbers."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Struct

from aragora.billing.rating import EXACT
from aragora.contracts.plans import Overage
from metering.limits import ZERO, Standing


class OveragePrice(Struct, kw_only=True):
    """What is charged beyond a limit: `price_usd` for each `per` of the meter."""

    price_usd: Decimal
    per: Decimal


class LimitState(Struct, kw_only=True):
    """One limit that the request touches. `limit` null: unlimited; 0: none."""

    meter: str
    per: str
    """`organization`, or `user`: everybody has as much."""
    user_id: str | None
    limit: Decimal | None
    used: Decimal
    held: Decimal
    """By reservations: of others before the request, and once it is admitted with its own."""
    requested: Decimal
    remaining: Decimal | None
    overage: OveragePrice | None
    """With a price, the limit refuses nobody: it is what the plan includes, and more is charged."""
    allowed: bool


class Upgrade(Struct, kw_only=True):
    """The smallest plan that allows more. `limit` null: unlimited."""

    plan: str
    name: str
    limit: Decimal | None
    overage: OveragePrice | None
    """With a price, `limit` is what the plan includes, and more is charged."""
    price_usd_per_month: Decimal


class Checked(Struct, kw_only=True):
    """Whether all of the operations would be allowed now.

    `undecided`: nobody could tell, and the operator lets such through.
    """

    allowed: bool
    org_id: str
    plan: str | None
    resets_at: datetime | None
    limits: list[LimitState]
    message: str | None = None
    upgrade: Upgrade | None = None
    undecided: bool = False


class Reserved(Struct, kw_only=True):
    """A reservation. Name `reservation_id` in the usage event, release it, or let it expire.

    `undecided`: nobody could tell whether it fits, and the operator lets such through; then there is no reservation.
    """

    reservation_id: str | None
    org_id: str
    user_id: str | None
    state: str
    expires_at: datetime | None
    limits: list[LimitState]
    is_new: bool = False
    """Whether this request made it; otherwise it was there already."""
    undecided: bool = False


class Ended(Struct, kw_only=True):
    """A reservation that holds nothing any more."""

    reservation_id: str
    org_id: str
    state: str


class StoredReservation(Struct, kw_only=True):
    """A reservation, whatever became of it: `open`, `settled`, `released` or `expired`."""

    reservation_id: str
    org_id: str
    user_id: str | None
    state: str
    operations: msgspec.Raw
    reserved_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    settled_by: str | None
    """The id of the usage event that settled it."""


class Exceeded(Struct, kw_only=True):
    """429: a limit is short. Nothing is held. Problem details, with the documented `error` and `message`."""

    type: str = "about:blank"
    title: str = "Too Many Requests"
    status: int = 429
    detail: str
    errors: list[None] = []
    error: str = "Usage limit exceeded"
    message: str
    org_id: str
    meter: str
    per: str
    user_id: str | None
    used: Decimal
    held: Decimal
    limit: Decimal | None
    requested: Decimal
    resets_at: datetime
    retry_after_seconds: int
    """Until something may be given back: the next expiry of a reservation, or the end of the month."""
    upgrade: Upgrade | None
    limits: list[LimitState]


def stored_reservation(row: Any) -> StoredReservation:
    """From a row of `stored_reservation`."""
    return StoredReservation(**dict(row) | {"operations": msgspec.Raw(row["operations"].encode())})


def overage_price(overage: Overage | None) -> OveragePrice | None:
    """What is charged beyond a limit, as it is answered."""
    return None if overage is None else OveragePrice(price_usd=overage.price_usd, per=overage.per)


def states_of(standings: Sequence[Standing], *, with_own: bool = False) -> list[LimitState]:
    """Each limit of a request; `with_own`: after its demands are held."""
    return [_state(one, with_own) for one in standings]


def _state(standing: Standing, with_own: bool) -> LimitState:  # noqa: FBT001 - its one caller names it
    demand = standing.demand
    limit = demand.limit
    held = EXACT.add(standing.held, demand.amount if with_own and limit.aggregation in ("sum", "count") else ZERO)
    left = None if limit.amount is None else EXACT.subtract(limit.amount, EXACT.add(standing.used, held))
    return LimitState(
        meter=limit.meter,
        per=limit.per,
        user_id=demand.user_id if limit.per == "user" else None,
        limit=limit.amount,
        used=standing.used,
        held=held,
        requested=demand.amount,
        remaining=None if left is None else max(left, ZERO),
        overage=overage_price(limit.overage),
        allowed=standing.fits,
    )
