"""What may become of a reservation. Pure: told the time and the new id; changes are collected for whoever writes them.

    open ──usage names it──▶ settled
      │ ╲──released──▶ released
      ╰────time is up──▶ expired

Nothing leads back, and nothing is held by a reservation that has ended.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import ClassVar

import msgspec

from aragora.contracts.limits import CheckLimits, Extend, Release, Reserve
from metering.limits import Account, Demand, Key, Standing, demands_of, standings


class Refusal(Exception):
    """A question that is not answered with yes. `status` is the HTTP status; the message says what to do."""

    status: ClassVar[int]


class UnknownOrganization(Refusal):
    """Nobody has said what this organization may do."""

    status = 404


class UnknownReservation(Refusal):
    """No reservation of this organization has this id, or it ended more than a day ago."""

    status = 404


class ReservationEnded(Refusal):
    """The reservation was settled, released or has expired: it holds nothing, and nothing can be done with it."""

    status = 409


class KeyReused(Refusal):
    """The idempotency key belongs to a reservation of something else."""

    status = 409


class LimitExceeded(Refusal):
    """A limit is short; nothing is held. `standings`: every limit of the request; `short`: the first that is short."""

    status = 429

    def __init__(self, found: Sequence[Standing]) -> None:
        self.standings = found
        self.short = next(one for one in found if not one.fits)
        super().__init__(f"the limit on {self.short.demand.limit.meter} is reached")


@dataclass(frozen=True, slots=True)
class Plan:
    """Which plan an organization has."""

    plan: str
    version: int
    name: str


@dataclass(slots=True)
class Reservation:
    """A reservation as it is stored, and as it stands after what was decided since."""

    id: str
    state: str
    user_id: str | None
    month: str
    holds: dict[Key, Decimal]
    expires_at: datetime
    idempotency_key: str | None = None
    digest: bytes | None = None
    operations: bytes = b""


@dataclass(slots=True)
class Ledger:
    """What is known of one organization while a batch is decided, and what the batch has changed."""

    org_id: str
    plan: Plan
    account: Account
    month: str
    by_id: dict[str, Reservation] = field(default_factory=dict)
    by_key: dict[str, Reservation] = field(default_factory=dict)
    opened: list[Reservation] = field(default_factory=list)
    released: list[Reservation] = field(default_factory=list)
    extended: list[Reservation] = field(default_factory=list)

    def know(self, reservation: Reservation) -> None:
        """A reservation that somebody may ask for."""
        known = self.by_id.setdefault(reservation.id, reservation)
        if known.idempotency_key is not None:
            self.by_key[known.idempotency_key] = known


Costs = Sequence[Decimal | None]
"""What each operation will cost, as far as it is known."""


def check(ledger: Ledger, question: CheckLimits, costs_usd: Costs) -> list[Standing]:
    """Every limit that the operations touch, and whether they fit."""
    return standings(ledger.account, _demands(ledger, question, costs_usd))


def reserve(
    ledger: Ledger, question: Reserve, costs_usd: Costs, now: datetime, new_id: str
) -> tuple[Reservation, list[Standing], bool]:
    """The reservation, the limits it touches as they were before, and whether it was there already.

    Raises:
        KeyReused, ReservationEnded, LimitExceeded: see there. Nothing is held.
    """
    digest = digest_of(question) if question.idempotency_key is not None else None
    known = None if question.idempotency_key is None else ledger.by_key.get(question.idempotency_key)
    if known is not None:
        if known.digest != digest:
            raise KeyReused(
                "This idempotency key was used for another request; send the same body again, or use a new key."
            )
        _refuse_ended(known, now, "use a new idempotency key for a new operation")
        return known, standings(ledger.account, _demands(ledger, question, costs_usd)), True
    demands = _demands(ledger, question, costs_usd)
    found = standings(ledger.account, demands)
    if not all(one.fits for one in found):
        raise LimitExceeded(found)
    reservation = Reservation(
        id=new_id,
        state="open",
        user_id=question.user_id,
        month=ledger.month,
        holds=ledger.account.hold(demands),
        expires_at=now + timedelta(seconds=question.ttl_seconds),
        idempotency_key=question.idempotency_key,
        digest=digest,
        operations=msgspec.json.encode(question.operations),
    )
    ledger.know(reservation)
    ledger.opened.append(reservation)
    return reservation, found, False


def release(ledger: Ledger, question: Release, now: datetime) -> Reservation:
    """The reservation, released now or before.

    Raises:
        UnknownReservation, ReservationEnded: see there.
    """
    reservation = _find(ledger, question.reservation_id)
    if reservation.state != "released":
        _refuse_ended(reservation, now, "there is nothing to release")
        reservation.state = "released"
        if reservation.month == ledger.month:
            ledger.account.add(reservation.holds, -1)
        ledger.released.append(reservation)
    return reservation


def extend(ledger: Ledger, question: Extend, now: datetime) -> Reservation:
    """The reservation with its new end: `ttl_seconds` from now, be that later or earlier than before.

    Raises:
        UnknownReservation, ReservationEnded: see there.
    """
    reservation = _find(ledger, question.reservation_id)
    _refuse_ended(reservation, now, "reserve anew")
    reservation.expires_at = now + timedelta(seconds=question.ttl_seconds)
    ledger.extended.append(reservation)
    return reservation


def digest_of(question: Reserve) -> bytes:
    """What two requests must have in common to be the same under one idempotency key."""
    same = [question.user_id, question.ttl_seconds, question.operations]
    return hashlib.sha256(msgspec.json.encode(same)).digest()


def _demands(ledger: Ledger, question: CheckLimits | Reserve, costs_usd: Costs) -> list[Demand]:
    return demands_of(question.operations, costs_usd, ledger.account.limits, question.user_id)


def _find(ledger: Ledger, reservation_id: str) -> Reservation:
    found = ledger.by_id.get(reservation_id)
    if found is None:
        raise UnknownReservation(
            f"The organization has no reservation {reservation_id}; one that ended is forgotten after a day."
        )
    return found


def _refuse_ended(reservation: Reservation, now: datetime, advice: str) -> None:
    state = "expired" if reservation.state == "open" and reservation.expires_at <= now else reservation.state
    if state != "open":
        raise ReservationEnded(f"Reservation {reservation.id} is {state}; {advice}.")
