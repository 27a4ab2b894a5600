"""What may be done with a subscription, one outcome at a time."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events import (
    EntitlementsChanged,
    SubscriptionCancelled,
    SubscriptionChanged,
    SubscriptionResumed,
    SubscriptionStarted,
)
from aragora.contracts.plans import Plan
from billing import commands
from billing.commands import Assign, Cancel, Change, Command, Comp, Enroll, Move, Resume, Settle, Trial
from billing.domain import decide
from billing.plans import Plans, UnknownPlan
from billing.projections import status_of
from billing.subscription import Pending, Sold, Subscription, evolve, period_of

NOW = datetime(2026, 12, 15, 12, tzinfo=UTC)
MONTH_END = datetime(2027, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def plan(name: str, version: int = 1, price: str = "0", **more: Any) -> Plan:
    given = {"rank": 0, "seats": None, "features": {}, "limits": ()} | more
    return Plan(plan=name, version=version, name=name.title(), price_usd_per_month=Decimal(price), **given)


PLANS = Plans([
    plan("free", is_default=True),
    plan("pro", 1, "29"),
    plan("pro", 2, "39", trial_days=14),
    plan("max", 1, "99"),
    plan("light"),
    plan("staff", listed=False),
])  # fmt: skip


def after(*steps: tuple[Command, datetime], plans: Plans = PLANS) -> Subscription:
    """The subscription after these commands."""
    state = Subscription()
    for command, now in steps:
        for event in decide(state, command, plans, now):
            state = evolve(state, event)
    return state


FREE = after((Enroll(), NOW))
PRO = after((Assign("pro"), NOW))


def kinds(events: Sequence[DomainEvent]) -> list[str]:
    return [type(event).__name__.removeprefix("Subscription") for event in events]


def test_a_new_organization_gets_the_default_plan():
    started, entitled = decide(Subscription(), Enroll(), PLANS, NOW)
    assert started == SubscriptionStarted(plan="free", plan_version=1)
    assert isinstance(entitled, EntitlementsChanged)
    assert (entitled.plan, entitled.plan_version, entitled.plan_name, entitled.revision) == ("free", 1, "Free", 1)
    assert decide(FREE, Enroll(), PLANS, NOW) == []
    assert decide(PRO, Enroll(), PLANS, NOW) == []


def test_an_operator_gives_a_plan():
    assert kinds(decide(Subscription(), Assign("pro"), PLANS, NOW)) == ["Started", "EntitlementsChanged"]
    changed, entitled = decide(FREE, Assign("pro"), PLANS, NOW)
    assert changed == SubscriptionChanged(
        from_plan="free", from_version=1, plan="pro", plan_version=2, effective_at=NOW, reason="operator"
    )
    assert isinstance(entitled, EntitlementsChanged)
    assert (entitled.plan_version, entitled.revision) == (2, 2)
    assert decide(PRO, Assign("pro"), PLANS, NOW) == []


def test_people_may_choose_what_costs_nothing():
    changed, entitled = decide(FREE, Change("light"), PLANS, NOW)
    assert isinstance(changed, SubscriptionChanged)
    assert (changed.plan, changed.reason) == ("light", "chosen")
    assert kinds([entitled]) == ["EntitlementsChanged"]
    for at_period_end in (False, True):
        with pytest.raises(commands.PaymentNeeded, match="Pro costs USD 39 a month: it begins with a checkout"):
            decide(FREE, Change("pro", at_period_end), PLANS, NOW)
    with pytest.raises(commands.PlanNotOffered):
        decide(FREE, Change("staff"), PLANS, NOW)
    assert decide(FREE, Change("staff", by_operator=True), PLANS, NOW)
    with pytest.raises(commands.AlreadyOnPlan):
        decide(FREE, Change("free"), PLANS, NOW)


def test_a_change_at_the_end_of_the_period():
    (changed,) = decide(PRO, Change("light", at_period_end=True), PLANS, NOW)
    assert isinstance(changed, SubscriptionChanged)
    assert (changed.effective_at, changed.at_period_end) == (MONTH_END, True)
    state = evolve(PRO, changed)
    assert (state.sold, state.pending, state.due_at) == (PRO.sold, Pending(MONTH_END, Sold("light", 1)), MONTH_END)
    assert decide(state, Change("light", at_period_end=True), PLANS, NOW) == []
    assert decide(state, Settle(), PLANS, MONTH_END - DAY) == []
    ended, entitled = decide(state, Settle(), PLANS, MONTH_END + DAY)
    assert isinstance(ended, SubscriptionChanged)
    assert (ended.plan, ended.effective_at, ended.reason) == ("light", MONTH_END, "period_ended")
    assert isinstance(entitled, EntitlementsChanged)


def test_cancel_now():
    cancelled, changed, entitled = decide(PRO, Cancel(at_period_end=False), PLANS, NOW)
    assert cancelled == SubscriptionCancelled(plan="pro", plan_version=2, ends_at=NOW, at_period_end=False)
    assert isinstance(changed, SubscriptionChanged)
    assert (changed.plan, changed.reason) == ("free", "cancelled")
    assert isinstance(entitled, EntitlementsChanged)


def test_cancel_at_the_end_and_resume():
    (cancelled,) = decide(PRO, Cancel(), PLANS, NOW)
    assert isinstance(cancelled, SubscriptionCancelled)
    assert cancelled.ends_at == MONTH_END
    state = evolve(PRO, cancelled)
    assert (status_of(state), state.sold) == ("canceling", Sold("pro", 2))
    assert decide(state, Cancel(), PLANS, NOW) == []
    assert kinds(decide(state, Settle(), PLANS, MONTH_END)) == ["Changed", "EntitlementsChanged"]
    (resumed,) = decide(state, Resume(), PLANS, NOW)
    assert resumed == SubscriptionResumed(plan="pro", plan_version=2)
    assert evolve(state, resumed) == PRO
    with pytest.raises(commands.NothingToResume):
        decide(PRO, Resume(), PLANS, NOW)
    with pytest.raises(commands.NothingToCancel):
        decide(FREE, Cancel(), PLANS, NOW)


def test_a_trial_ends_with_what_there_was_before():
    state = after((Assign("pro"), NOW), (Trial("max", 10), NOW))
    assert (status_of(state), state.sold, state.trial_ends_at) == ("trialing", Sold("max", 1), NOW + 10 * DAY)
    ended, entitled = decide(state, Settle(), PLANS, NOW + 11 * DAY)
    assert isinstance(ended, SubscriptionChanged)
    assert (ended.plan, ended.plan_version, ended.reason) == ("pro", 2, "trial_ended")
    assert ended.effective_at == NOW + 10 * DAY
    assert isinstance(entitled, EntitlementsChanged)
    assert after((Trial("pro"), NOW)).trial_ends_at == NOW + 14 * DAY  # the plan says so
    assert after((Trial("pro"), NOW), (Settle(), NOW + 14 * DAY)).sold == Sold("free", 1)


def test_a_trial_that_is_cancelled_runs_out_and_the_default_plan_follows():
    state = after((Assign("pro"), NOW), (Trial("max", 40), NOW), (Cancel(), NOW))
    assert state.pending == Pending(NOW + 40 * DAY, None)
    assert after((Assign("pro"), NOW), (Trial("max", 40), NOW), (Cancel(), NOW), (Settle(), NOW + 40 * DAY)) == (
        Subscription(sold=Sold("free", 1), entitled=Sold("free", 1), revision=3)
    )


def test_trials_that_make_no_sense():
    with pytest.raises(commands.InvalidPeriod, match="say for how many days"):
        decide(FREE, Trial("max"), PLANS, NOW)
    with pytest.raises(commands.AlreadyOnPlan):
        decide(PRO, Trial("pro"), PLANS, NOW)


def test_a_comp_is_until_a_moment_or_until_further_notice():
    state = after((Assign("pro"), NOW), (Comp("max", NOW + DAY), NOW))
    assert (status_of(state), state.comp_until, state.beneath) == ("comped", NOW + DAY, Sold("pro", 2))
    state = after((Assign("pro"), NOW), (Comp("max", NOW + DAY), NOW), (Settle(), NOW + DAY))
    assert (status_of(state), state.sold, state.due_at) == ("active", Sold("pro", 2), None)
    state = after((Comp("max"), NOW), (Settle(), NOW + 10_000 * DAY))
    assert (status_of(state), state.sold, state.due_at) == ("comped", Sold("max", 1), None)
    # What is comped until further notice is so again after a trial of more.
    state = after((Comp("pro"), NOW), (Trial("max", 3), NOW), (Settle(), NOW + 3 * DAY))
    assert (status_of(state), state.sold) == ("comped", Sold("pro", 2))
    for until in (NOW, NOW - DAY, NOW + 40_000 * DAY):
        with pytest.raises(commands.InvalidPeriod, match="in the future"):
            decide(FREE, Comp("max", until), PLANS, NOW)


def test_the_same_plan_as_a_comp_entitles_to_nothing_new():
    assert kinds(decide(PRO, Comp("pro"), PLANS, NOW)) == ["Changed"]


def test_a_subscription_keeps_its_version_until_it_is_moved():
    old = after((Assign("pro"), NOW), plans=Plans([PLANS.version("free", 1), PLANS.version("pro", 1)]))
    assert old.sold == Sold("pro", 1)
    assert decide(old, Settle(), PLANS, NOW) == []
    assert after_all(old, Trial("max", 1), Settle(), days=2).sold == Sold("pro", 1)
    assert after_all(old, Comp("pro")).sold == Sold("pro", 1)
    moved, entitled = decide(old, Move(), PLANS, NOW)
    assert isinstance(moved, SubscriptionChanged)
    assert (moved.plan_version, moved.reason) == (2, "version_moved")
    assert isinstance(entitled, EntitlementsChanged)
    assert (entitled.plan_version, entitled.revision) == (2, 2)
    with pytest.raises(commands.AlreadyOnPlan, match="version 2, the current one"):
        decide(PRO, Move(), PLANS, NOW)


def after_all(state: Subscription, *given: Command, days: int = 0) -> Subscription:
    for number, command in enumerate(given):
        for event in decide(state, command, PLANS, NOW + number * days * DAY):
            state = evolve(state, event)
    return state


def test_moving_a_trial_leaves_it_a_trial():
    plans = Plans([PLANS.version("free", 1), PLANS.version("pro", 1)])
    old = after((Trial("pro", 5), NOW), plans=plans)
    moved = after_all(old, Move())
    assert (moved.sold, moved.trial_ends_at, moved.beneath) == (Sold("pro", 2), NOW + 5 * DAY, Sold("free", 1))


def test_what_is_due_is_done_before_a_command():
    state = after((Trial("max", 3), NOW))
    changed, *_ = decide(state, Trial("max", 3), PLANS, NOW + 5 * DAY)
    assert isinstance(changed, SubscriptionChanged)
    assert changed.reason == "trial_ended"
    assert kinds(decide(state, Assign("max"), PLANS, NOW + 5 * DAY)) == ["Changed", "Changed"]  # entitled to it before


def test_without_a_subscription_there_is_nothing_to_change():
    for command in (Change("light"), Cancel(), Resume(), Move()):
        with pytest.raises(commands.NotSubscribed, match="an operator starts one"):
            decide(Subscription(), command, PLANS, NOW)
    assert decide(Subscription(), Settle(), PLANS, NOW) == []


def test_a_plan_that_there_is_not():
    for command in (Assign("gold"), Change("gold"), Trial("gold", 1), Comp("gold")):
        with pytest.raises(UnknownPlan, match="no plan is called 'gold'; there are free, light, max, pro, staff"):
            decide(FREE, command, PLANS, NOW)


def test_the_billing_period_is_the_calendar_month():
    assert period_of(NOW) == (datetime(2026, 12, 1, tzinfo=UTC), MONTH_END)
    last = datetime(2028, 2, 29, 23, 59, 59, 999999, tzinfo=UTC)
    assert period_of(last) == (datetime(2028, 2, 1, tzinfo=UTC), datetime(2028, 3, 1, tzinfo=UTC))
