"""Whatever is asked of a subscription, in whatever order: what always holds."""

from contextlib import suppress
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from unit.test_billing_domain import NOW, PLANS

from aragora.contracts.envelope import DomainEvent, restore
from aragora.contracts.events import EntitlementsChanged
from billing.commands import (
    Assign,
    Cancel,
    Change,
    Command,
    Comp,
    Enroll,
    Move,
    Paid,
    Reflect,
    Refused,
    Resume,
    Settle,
    Trial,
)
from billing.domain import decide
from billing.projections import status_of, subscription_row
from billing.subscription import Sold, Subscription, evolve

_PLAN = st.sampled_from(["free", "pro", "max", "light", "staff"])
_MOMENTS = st.integers(-2, 90).map(lambda days: NOW + timedelta(days=days))
_PAID = st.builds(
    lambda reference, plan, follows, at: Paid(
        reference, plan, ends_at=at if follows is None else None, next_plan=follows, next_at=at if follows else None
    ),
    st.sampled_from(["sub_1", "sub_2"]),
    st.sampled_from(["pro", "max"]),
    st.none() | st.sampled_from(["pro", "max"]),
    st.none() | st.integers(200, 300).map(lambda days: NOW + timedelta(days=days)),
)
_COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.just(Enroll()),
    st.just(Settle()),
    st.just(Resume()),
    st.just(Move()),
    st.builds(Assign, _PLAN),
    st.builds(Change, _PLAN, st.booleans(), st.booleans()),
    st.builds(Cancel, st.booleans()),
    st.builds(Trial, _PLAN, st.none() | st.integers(1, 60)),
    st.builds(Comp, _PLAN, st.none() | _MOMENTS),
    st.builds(Reflect, st.none() | _PAID, st.booleans()),
)
_STEPS = st.lists(st.tuples(_COMMANDS, st.integers(0, 20)), max_size=15)


@given(_STEPS)
def test_what_always_holds(steps: list[tuple[Command, int]]):
    state, log, now = Subscription(), list[DomainEvent](), NOW
    told: list[EntitlementsChanged] = []
    for command, days in steps:
        now += timedelta(days=days)
        before = state
        with suppress(Refused):
            events = decide(state, command, PLANS, now)
            for event in events:
                state = evolve(state, event)
            log += events
            new = [event for event in events if isinstance(event, EntitlementsChanged)]
            told += new
            # Said once, last, and exactly if the plan in force is another one.
            assert new == (events[-1:] if state.sold != before.sold else [])
            assert state.entitled == state.sold
            # Nothing that was due is left, and asking again brings nothing.
            assert state.due_at is None or state.due_at > now
            assert decide(state, Settle(), PLANS, now) == []
            if not isinstance(command, Move | Comp | Trial | Change):
                assert not _again(state, command, now)
            # What Stripe says is so, whatever there was before, and nobody else decides on it meanwhile.
            if isinstance(command, Reflect):
                paid = command.paid
                assert state.paid_by == (paid.reference if paid else None)
                assert paid is None or (state.sold is not None and state.sold.plan == paid.plan)
                assert paid is None or (state.pending is None) == (paid.ends_at is None and paid.next_at is None)
            elif not isinstance(command, Move | Settle | Enroll):
                assert state.paid_by is None
            # People get nothing that costs anything by asking for it.
            if isinstance(command, Change) and not command.by_operator:
                wanted = state.pending.sold if command.at_period_end and state.pending else state.sold
                assert wanted is not None
                assert PLANS.version(wanted.plan, wanted.version).price_usd_per_month == 0
    assert [event.revision for event in told] == list(range(1, len(told) + 1))
    replayed = Subscription()
    for event in log:
        replayed = evolve(replayed, restore(event.type_name, event.model_dump(mode="json")))
    assert replayed == state
    if state.sold is not None:
        assert PLANS.version(state.sold.plan, state.sold.version).plan == state.sold.plan
        assert (state.trial_ends_at is None) or not state.comped
        assert state.comp_until is None or state.comped
        assert status_of(state) in {"active", "trialing", "comped", "canceling"}
        assert subscription_row("org", state)[0] == "org"


def _again(state: Subscription, command: Command, now: object) -> list[DomainEvent]:
    try:
        return decide(state, command, PLANS, now)  # type: ignore[arg-type]  # a moment
    except Refused:
        return []


@given(_STEPS)
def test_in_the_end_only_what_lasts_is_left(steps: list[tuple[Command, int]]):
    state, now = Subscription(), NOW
    for command, days in [*steps, (Enroll(), 0)]:
        now += timedelta(days=days)
        with suppress(Refused):
            for event in decide(state, command, PLANS, now):
                state = evolve(state, event)
    for event in decide(state, Settle(), PLANS, now + timedelta(days=40_000)):
        state = evolve(state, event)
    lasting = Subscription(
        sold=state.sold, entitled=state.sold, revision=state.revision, comped=state.comped, paid_by=state.paid_by
    )
    assert state == lasting
    assert isinstance(state.sold, Sold)
