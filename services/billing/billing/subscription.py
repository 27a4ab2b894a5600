"""A subscription as it stands, and what events make of it. Pure."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events import (
    EntitlementsChanged,
    SubscriptionCancelled,
    SubscriptionChanged,
    SubscriptionResumed,
    SubscriptionStarted,
)


@dataclass(frozen=True, slots=True)
class Sold:
    """A version of a plan."""

    plan: str
    version: int


@dataclass(frozen=True, slots=True)
class Pending:
    """What follows at the end of the period: another plan; after a cancellation (None) the default plan."""

    at: datetime
    sold: Sold | None


@dataclass(frozen=True, slots=True)
class Subscription:
    """What an organization has. Before it has a plan, `sold` is None."""

    sold: Sold | None = None
    trial_ends_at: datetime | None = None
    comped: bool = False
    """Free of charge, by an operator's decision."""
    comp_until: datetime | None = None
    """When the comp ends; None: by decision only."""
    beneath: Sold | None = None
    """What comes back after a trial or comp that ends by itself; None: the default plan."""
    beneath_is_comped: bool = False
    pending: Pending | None = None
    paid_by: str | None = None
    """Stripe's subscription that pays for it."""
    entitled: Sold | None = None
    """What `EntitlementsChanged` said last."""
    revision: int = 0
    """Its revision."""

    @property
    def ends_at(self) -> datetime | None:
        """When a trial or comp ends by itself."""
        return self.trial_ends_at or self.comp_until

    @property
    def due_at(self) -> datetime | None:
        """When something happens by itself next."""
        moments = [one for one in (self.ends_at, self.pending and self.pending.at) if one]
        return min(moments, default=None)

    @property
    def is_plain(self) -> bool:
        """Neither trial nor comp, and nothing pending."""
        return self.trial_ends_at is None and not self.comped and self.pending is None


def period_of(now: datetime) -> tuple[datetime, datetime]:
    """The billing period: the calendar month in UTC, its end excluded."""
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return start, (start + timedelta(days=32)).replace(day=1)


def period_end(state: Subscription, now: datetime) -> datetime:
    """When the plan in force ends, if it is cancelled: with its trial or comp, else with the billing period."""
    return state.ends_at or period_of(now)[1]


def evolve(state: Subscription, event: DomainEvent) -> Subscription:
    """The subscription after an event."""
    match event:
        case SubscriptionStarted():
            return replace(state, sold=Sold(event.plan, event.plan_version))
        case SubscriptionChanged(at_period_end=True):
            return replace(state, pending=Pending(event.effective_at, Sold(event.plan, event.plan_version)))
        case SubscriptionChanged(reason="version_moved"):
            return replace(state, sold=Sold(event.plan, event.plan_version))
        case SubscriptionChanged():
            return _changed(state, event)
        case SubscriptionCancelled(at_period_end=True):
            return replace(state, pending=Pending(event.ends_at, None))
        case SubscriptionResumed():
            return replace(state, pending=None)
        case EntitlementsChanged():
            return replace(state, entitled=Sold(event.plan, event.plan_version), revision=event.revision)
    return state  # a cancellation with effect at once: the change to the default plan follows it


def _changed(state: Subscription, event: SubscriptionChanged) -> Subscription:
    pays_on = event.reason == "period_ended" and state.pending is not None and state.pending.sold is not None
    comped = event.reason == "comp" or (event.reason in ("trial_ended", "comp_ended") and state.beneath_is_comped)
    beneath, beneath_is_comped = None, False
    if event.trial_ends_at or event.comp_until:
        # What ends by itself comes to lie on what does not.
        lasting = state.ends_at is None
        beneath = state.sold if lasting else state.beneath
        beneath_is_comped = state.comped if lasting else state.beneath_is_comped
    return replace(
        state,
        sold=Sold(event.plan, event.plan_version),
        trial_ends_at=event.trial_ends_at,
        comped=comped,
        comp_until=event.comp_until,
        beneath=beneath,
        beneath_is_comped=beneath_is_comped,
        pending=None,
        paid_by=state.paid_by if pays_on else event.payment_reference,
    )
