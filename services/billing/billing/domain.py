"""A subscription: which plan an organization has, and what follows when. Pure.

`decide` is told the time, and does first what is due by then: a trial or a comp that has ended, a change that was put
off to the end of the period. It ends with `EntitlementsChanged` if, and only if, the plan in force is another one, or
another version, than that announced last.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events import (
    EntitlementsChanged,
    SubscriptionCancelled,
    SubscriptionChanged,
    SubscriptionResumed,
    SubscriptionStarted,
)
from aragora.contracts.plans import Plan
from billing.commands import (
    AlreadyOnPlan,
    Assign,
    Cancel,
    Change,
    Command,
    Comp,
    Enroll,
    InvalidPeriod,
    Move,
    NothingToCancel,
    NothingToResume,
    NotSubscribed,
    PaidThroughStripe,
    PaymentNeeded,
    PlanNotOffered,
    Reflect,
    Resume,
    Settle,
    Trial,
)
from billing.plans import Plans
from billing.subscription import Pending, Sold, Subscription, evolve, period_end

MAX_COMP = timedelta(days=36525)


def decide(state: Subscription, command: Command, plans: Plans, now: datetime) -> list[DomainEvent]:
    """What a command brings about, after what is due by `now`. Both in UTC.

    Raises:
        Refused: it may not be. The kinds are in `commands`.
        UnknownPlan: it names none that there is.
    """
    events: list[DomainEvent] = []

    def then(*new: DomainEvent) -> None:
        nonlocal state
        for event in new:
            events.append(event)
            state = evolve(state, event)

    while state.due_at is not None and state.due_at <= now:
        then(_due(state, plans))
    if state.sold is None and isinstance(command, Enroll | Assign | Trial | Comp | Reflect):
        first = plans.current(command.plan) if isinstance(command, Assign) else plans.default
        then(SubscriptionStarted(plan=first.plan, plan_version=first.version))
    then(*_decide(state, command, plans, now))
    if state.sold is not None and state.sold != state.entitled:
        then(entitlements(plans.version(state.sold.plan, state.sold.version), state.revision + 1))
    return events


def entitlements(plan: Plan, revision: int) -> EntitlementsChanged:
    """All that a version of a plan grants."""
    return EntitlementsChanged(
        revision=revision,
        plan=plan.plan,
        plan_version=plan.version,
        plan_name=plan.name,
        features=plan.features,
        seats=plan.seats,
        limits=plan.limits,
    )


def _due(state: Subscription, plans: Plans) -> SubscriptionChanged:
    """What happens by itself at `state.due_at`. What is pending goes before a trial that ends with it."""
    default = Sold(plans.default.plan, plans.default.version)
    if state.pending is not None and state.pending.at == state.due_at:
        return _change(state, state.pending.sold or default, state.pending.at, reason="period_ended")
    reason = "trial_ended" if state.trial_ends_at else "comp_ended"
    return _change(state, state.beneath or default, state.due_at, reason=reason)


def _decide(state: Subscription, command: Command, plans: Plans, now: datetime) -> Sequence[DomainEvent]:
    if isinstance(command, Enroll | Settle):
        return []
    if state.sold is None:
        raise NotSubscribed("The organization has no subscription; an operator starts one with PUT.")
    if state.paid_by is not None and not isinstance(command, Move | Reflect):
        raise PaidThroughStripe("The plan is paid for through Stripe: cancel that first; the default plan follows.")
    match command:
        case Reflect():
            return _reflect(state, command, plans, now)
        case Assign():
            return [] if state.is_plain and state.sold.plan == command.plan else _to(state, command.plan, plans, now)
        case Change():
            return _choose(state, command, plans, now)
        case Cancel():
            return _cancel(state, command, plans, now)
        case Resume():
            if state.pending is None:
                raise NothingToResume("Nothing is pending: no cancellation and no change can be taken back.")
            return [SubscriptionResumed(plan=state.sold.plan, plan_version=state.sold.version)]
        case Move():
            current = plans.current(state.sold.plan)
            if current.version == state.sold.version:
                raise AlreadyOnPlan(f"The subscription has version {current.version}, the current one, already.")
            moved = Sold(current.plan, current.version)
            ends = {"trial_ends_at": state.trial_ends_at, "comp_until": state.comp_until}
            return [_change(state, moved, now, reason="version_moved", **ends)]
        case Trial():
            return _try(state, command, plans, now)
        case Comp():
            if command.until is not None and not now < command.until <= now + MAX_COMP:
                raise InvalidPeriod("until", "must be in the future, by no more than a hundred years")
            return _to(state, command.plan, plans, now, reason="comp", comp_until=command.until)


def _reflect(state: Subscription, command: Reflect, plans: Plans, now: datetime) -> Sequence[DomainEvent]:
    paid = command.paid
    if paid is None:
        default = Sold(plans.default.plan, plans.default.version)
        if state.paid_by is None and (not command.unpaid or state.sold == default):
            return []
        return [_change(state, default, now, reason="unpaid" if command.unpaid else "payment_ended")]
    events: list[DomainEvent] = []
    wanted = _kept_or_current(state, paid.plan, plans)
    if state.paid_by != paid.reference or state.sold != wanted:
        events.append(_change(state, wanted, now, reason="paid", payment_reference=paid.reference))
        state = evolve(state, events[0])
    follows = None
    if paid.ends_at is not None:
        follows = Pending(paid.ends_at, None)
    elif paid.next_plan is not None and paid.next_at is not None:
        follows = Pending(paid.next_at, Sold(paid.next_plan, plans.current(paid.next_plan).version))
    if follows is None:
        resumed = SubscriptionResumed(plan=wanted.plan, plan_version=wanted.version)
        return [*events, resumed] if state.pending is not None else events
    if state.pending == follows:
        return events
    if follows.sold is not None:
        then = _change(state, follows.sold, follows.at, reason="chosen", at_period_end=True)
        return [*events, then]
    ends = SubscriptionCancelled(plan=wanted.plan, plan_version=wanted.version, ends_at=follows.at, at_period_end=True)
    return [*events, ends]


def _choose(state: Subscription, command: Change, plans: Plans, now: datetime) -> Sequence[DomainEvent]:
    plan = plans.current(command.plan)
    if not command.by_operator:
        if not plan.listed:
            raise PlanNotOffered(f"{plan.name} is not offered; GET /api/subscription/plans lists what is.")
        if plan.price_usd_per_month > 0:
            raise PaymentNeeded(
                f"{plan.name} costs USD {plan.price_usd_per_month} a month: it begins with a checkout (POST "
                "/api/billing/checkout), or an operator's decision, and not by asking."
            )
    if state.sold is not None and state.sold.plan == plan.plan and state.is_plain:
        raise AlreadyOnPlan(f"The organization has {plan.name} already.")
    reason = "operator" if command.by_operator else "chosen"
    if not command.at_period_end:
        return _to(state, plan.plan, plans, now, reason=reason)
    wanted = _kept_or_current(state, plan.plan, plans)
    if state.pending is not None and state.pending.sold == wanted:
        return []
    return [_change(state, wanted, period_end(state, now), reason=reason, at_period_end=True)]


def _cancel(state: Subscription, command: Cancel, plans: Plans, now: datetime) -> Sequence[DomainEvent]:
    default, sold = plans.default, state.sold
    if sold is None or (sold.plan == default.plan and state.is_plain):
        raise NothingToCancel(f"The organization has {default.name}, which is what follows a cancellation.")
    if command.at_period_end:
        if state.pending is not None and state.pending.sold is None:
            return []
        ends_at = period_end(state, now)
    else:
        ends_at = now
    cancelled = SubscriptionCancelled(
        plan=sold.plan, plan_version=sold.version, ends_at=ends_at, at_period_end=command.at_period_end
    )
    return [cancelled] if command.at_period_end else [cancelled, *_to(state, default.plan, plans, now, "cancelled")]


def _try(state: Subscription, command: Trial, plans: Plans, now: datetime) -> Sequence[DomainEvent]:
    plan = plans.current(command.plan)
    days = plan.trial_days if command.days is None else command.days
    if days == 0:
        raise InvalidPeriod("days", f"{plan.name} has no trial of its own; say for how many days")
    if state.sold is not None and state.sold.plan == plan.plan and state.trial_ends_at is None:
        raise AlreadyOnPlan(f"The organization has {plan.name} already, and not for trial.")
    return _to(state, plan.plan, plans, now, trial_ends_at=now + timedelta(days=days))


def _to(
    state: Subscription,
    plan: str,
    plans: Plans,
    now: datetime,
    reason: str = "operator",
    *,
    trial_ends_at: datetime | None = None,
    comp_until: datetime | None = None,
) -> list[DomainEvent]:
    """To a plan, now."""
    wanted = _kept_or_current(state, plan, plans)
    return [_change(state, wanted, now, reason=reason, trial_ends_at=trial_ends_at, comp_until=comp_until)]


def _kept_or_current(state: Subscription, plan: str, plans: Plans) -> Sold:
    if state.sold is not None and state.sold.plan == plan:
        return state.sold
    return Sold(plan, plans.current(plan).version)


def _change(state: Subscription, to: Sold, effective_at: datetime | None, **more: object) -> SubscriptionChanged:
    said = {"plan": to.plan, "plan_version": to.version, "effective_at": effective_at, **more}
    if state.sold is not None:
        said |= {"from_plan": state.sold.plan, "from_version": state.sold.version}
    return SubscriptionChanged.model_validate(said)
