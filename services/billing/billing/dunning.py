"""Dunning: what follows when somebody does not pay. A process with deadlines. Pure.

It begins with the first failure of the oldest invoice that is owed for a plan, reminds on certain days, and ends when
that invoice is paid, or nothing is owed any more; or when the grace period runs out: then the default plan follows.
Everything counts from a moment that the invoice itself has, so that it does not matter when billing hears of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events import (
    GracePeriodExpired,
    PaymentFailed,
    PaymentRecovered,
    PaymentReminderDue,
    PaymentWaived,
)

REMINDER_DAYS = (0, 3, 5, 7)
"""Whole days after the first failure on which people are reminded; and on the last day before the plan ends."""
ONE_DAY = timedelta(days=1)

Fate = Literal["paid", "voided", "uncollectible", "cancelled"]


@dataclass(frozen=True, slots=True)
class Owed:
    """An invoice for a plan that is not paid, although it was tried, or although it is due."""

    invoice_id: str
    amount: Decimal
    currency: str
    attempts: int
    since: datetime
    """The first failure."""


@dataclass(frozen=True, slots=True)
class Dunning:
    """Where an organization's dunning stands. Without an invoice there is none."""

    invoice_id: str | None = None
    amount: Decimal = Decimal(0)
    currency: str = ""
    attempt: int = 0
    started_at: datetime | None = None
    ends_at: datetime | None = None
    """When the grace period runs out."""
    reminded: frozenset[int] = frozenset()
    expired_at: datetime | None = None

    @property
    def due_at(self) -> datetime | None:
        """When something is to be done next, if nobody pays."""
        if self.started_at is None or self.ends_at is None or self.expired_at is not None:
            return None
        days = [day for day in reminder_days(self.ends_at - self.started_at) if day not in self.reminded]
        return min([self.started_at + min(days) * ONE_DAY, self.ends_at]) if days else self.ends_at


def reminder_days(grace: timedelta) -> list[int]:
    """The days of a grace period on which people are reminded, the last of them a day before it runs out."""
    last = max(0, grace.days - 1)
    return [*(day for day in REMINDER_DAYS if day < last), last]


def evolve(state: Dunning, event: DomainEvent) -> Dunning:
    """Where it stands after an event."""
    match event:
        case PaymentFailed():
            begun = state if state.invoice_id == event.invoice_id else Dunning(event.invoice_id)
            return replace(
                begun, amount=event.amount, currency=event.currency, attempt=event.attempt,
                started_at=event.failed_at, ends_at=event.grace_ends_at,
            )  # fmt: skip
        case PaymentReminderDue():
            return replace(state, reminded=state.reminded | {event.day})
        case GracePeriodExpired():
            return replace(state, expired_at=event.expired_at)
        case PaymentRecovered() | PaymentWaived():
            return Dunning()
    return state


def decide(
    state: Dunning, owed: Owed | None, fate: Fate | None, grace: timedelta, now: datetime
) -> Sequence[DomainEvent]:
    """What follows from what is owed now, and from the time.

    Args:
        state: where it stood.
        owed: the oldest invoice that is owed for a plan in force, or for one that was.
        fate: what became of the invoice of `state`, if it is not owed any more.
        grace: how long a grace period is, if one begins.
        now: in UTC.
    """
    events: list[DomainEvent] = []

    def then(*new: DomainEvent) -> None:
        nonlocal state
        for event in new:
            events.append(event)
            state = evolve(state, event)

    if state.invoice_id is not None and (owed is None or owed.invoice_id != state.invoice_id):
        then(_ended(state.invoice_id, fate or "cancelled", now))
    if owed is not None and (state.invoice_id is None or owed.attempts > state.attempt):
        then(
            PaymentFailed(
                invoice_id=owed.invoice_id,
                attempt=max(1, owed.attempts),
                amount=owed.amount,
                currency=owed.currency,
                failed_at=owed.since,
                grace_ends_at=state.ends_at or owed.since + grace,
            )
        )
    while state.due_at is not None and state.due_at <= now:
        then(_due(state, state.due_at))
    return events


def _ended(invoice_id: str, fate: Fate, now: datetime) -> DomainEvent:
    if fate == "paid":
        return PaymentRecovered(invoice_id=invoice_id, recovered_at=now)
    return PaymentWaived(invoice_id=invoice_id, reason=fate)


def _due(state: Dunning, at: datetime) -> DomainEvent:
    if state.invoice_id is None or state.started_at is None or state.ends_at is None:
        raise ValueError("nothing is due where no grace period runs")
    if at == state.ends_at:
        return GracePeriodExpired(invoice_id=state.invoice_id, expired_at=at)
    days = reminder_days(state.ends_at - state.started_at)
    day = min(one for one in days if one not in state.reminded)
    return PaymentReminderDue(
        invoice_id=state.invoice_id,
        day=day,
        is_last=day == days[-1],
        due_at=at,
        amount=state.amount,
        currency=state.currency,
        grace_ends_at=state.ends_at,
    )
