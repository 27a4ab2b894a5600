"""A plan that somebody pays for: it begins, changes, ends and is taken back as Stripe says."""

from datetime import timedelta

import pytest
from unit.test_billing_domain import DAY, FREE, MONTH_END, NOW, PLANS, PRO, after, kinds

from aragora.contracts.events import SubscriptionChanged
from billing.commands import (
    Assign,
    Cancel,
    Change,
    Command,
    Comp,
    Enroll,
    Move,
    Paid,
    PaidThroughStripe,
    Reflect,
    Resume,
    Settle,
    Trial,
)
from billing.domain import decide
from billing.subscription import Pending, Sold, Subscription, evolve

PAYS = Reflect(Paid("sub_1", "pro"))
PAID = after((Enroll(), NOW), (PAYS, NOW))


def then(state: Subscription, command: Command, days: int = 0) -> Subscription:
    for event in decide(state, command, PLANS, NOW + days * DAY):
        state = evolve(state, event)
    return state


def test_who_pays_gets_the_plan_and_the_same_again_changes_nothing():
    events = decide(FREE, PAYS, PLANS, NOW)
    assert kinds(events) == ["Changed", "EntitlementsChanged"]
    assert isinstance(events[0], SubscriptionChanged)
    assert (events[0].reason, events[0].payment_reference) == ("paid", "sub_1")
    assert (PAID.sold, PAID.paid_by) == (Sold("pro", 2), "sub_1")
    assert decide(PAID, PAYS, PLANS, NOW + 40 * DAY) == []


def test_a_subscription_that_was_sold_an_old_version_keeps_it():
    assert then(after((Assign("pro"), NOW)), PAYS).sold == PRO.sold


@pytest.mark.parametrize(
    "before", [Trial("max", 5), Comp("max", NOW + 5 * DAY), Comp("pro"), Assign("light")], ids=repr
)
def test_payment_takes_the_place_of_whatever_there_was(before: Command):
    state = then(after((Enroll(), NOW), (before, NOW)), PAYS)
    assert (state.sold, state.paid_by, state.is_plain) == (Sold("pro", 2), "sub_1", True)
    assert then(state, Settle(), days=30) == state
    assert then(state, Reflect(None)).sold == FREE.sold


def test_nobody_pays_any_more():
    events = decide(PAID, Reflect(None), PLANS, NOW)
    assert isinstance(events[0], SubscriptionChanged)
    assert (events[0].plan, events[0].reason) == ("free", "payment_ended")
    assert then(PAID, Reflect(None)).paid_by is None
    assert decide(FREE, Reflect(None), PLANS, NOW) == []
    assert decide(PRO, Reflect(None), PLANS, NOW) == []  # an operator gave it


def test_a_grace_period_that_ran_out_ends_what_an_operator_gave_too():
    for state in (PAID, PRO):
        changed = decide(state, Reflect(None, unpaid=True), PLANS, NOW)[0]
        assert isinstance(changed, SubscriptionChanged)
        assert (changed.plan, changed.reason) == ("free", "unpaid")
    assert decide(FREE, Reflect(None, unpaid=True), PLANS, NOW) == []


def test_a_cancellation_at_stripe_is_pending_until_its_moment_and_may_be_taken_back():
    ends = Paid("sub_1", "pro", ends_at=MONTH_END)
    canceling = then(PAID, Reflect(ends))
    assert canceling.pending == Pending(MONTH_END, None)
    assert decide(canceling, Reflect(ends), PLANS, NOW + DAY) == []
    assert then(canceling, PAYS) == PAID
    ended = then(canceling, Settle(), days=20)
    assert (ended.sold, ended.paid_by, ended.pending) == (FREE.sold, None, None)


def test_a_plan_that_is_kept_gives_way_in_time_and_the_payment_goes_on():
    kept = Paid("sub_1", "pro", next_plan="max", next_at=MONTH_END)
    waiting = then(PAID, Reflect(kept))
    assert (waiting.sold, waiting.pending) == (Sold("pro", 2), Pending(MONTH_END, Sold("max", 1)))
    later = then(waiting, Settle(), days=20)
    assert (later.sold, later.paid_by) == (Sold("max", 1), "sub_1")
    assert decide(later, Reflect(Paid("sub_1", "max")), PLANS, NOW + 20 * DAY) == []


def test_another_subscription_takes_over():
    other = then(PAID, Reflect(Paid("sub_2", "pro")))
    assert (other.sold, other.paid_by) == (PAID.sold, "sub_2")


@pytest.mark.parametrize(
    "command",
    [Assign("max"), Change("max", by_operator=True), Change("free"), Cancel(), Cancel(at_period_end=False), Resume(),
     Trial("max", 3), Comp("max")],
)  # fmt: skip
def test_while_somebody_pays_everything_else_is_refused(command: Command):
    with pytest.raises(PaidThroughStripe, match="cancel that first"):
        decide(PAID, command, PLANS, NOW)


def test_the_version_may_be_moved_while_somebody_pays():
    old = then(after((Assign("pro"), NOW)), PAYS)
    state = Subscription(sold=Sold("pro", 1), entitled=Sold("pro", 1), revision=1, paid_by="sub_1")
    moved = then(state, Move())
    assert (moved.sold, moved.paid_by) == (Sold("pro", 2), "sub_1")
    assert old.paid_by == "sub_1"


def test_an_unknown_organization_gets_a_subscription_by_paying():
    assert kinds(decide(Subscription(), PAYS, PLANS, NOW + timedelta(0))) == [
        "Started",
        "Changed",
        "EntitlementsChanged",
    ]
