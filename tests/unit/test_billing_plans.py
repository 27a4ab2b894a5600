"""When a new version of a plan is published, and who may undo what."""

from decimal import Decimal

import pytest

from aragora.contracts.events import PlanPublished
from aragora.contracts.plans import Limit, Plan, built_in_meter
from billing import plans
from billing.plans import History, PlanInUse, Plans, UnknownPlan

DEBATES = built_in_meter("debates")


def plan(debates: int, **more: object) -> Plan:
    limit = Limit(meter=DEBATES, limit=Decimal(debates))
    said = {"plan": "free", "version": 1, "name": "Free", "rank": 0, "price_usd_per_month": "0", "seats": 1}
    return Plan.model_validate(said | {"features": {}, "limits": (limit,), "is_default": True} | more)


def published(history: History, *steps: tuple[str, Plan | None]) -> tuple[History, list[int]]:
    """The history after these, and the versions that were published."""
    versions = []
    for who, wanted in steps:
        if wanted is None:
            events = plans.withdraw_from_catalog(history) if who == "catalog" else plans.retire(history)
        else:
            decide = plans.publish_from_catalog if who == "catalog" else plans.publish_by_operator
            events = decide(history, wanted)
        for event in events:
            assert isinstance(event, PlanPublished)
            assert event.source == who
            versions.append(event.plan.version)
            history = plans.evolve(history, event)
    return history, versions


def test_a_restart_publishes_nothing_new():
    history, versions = published(History(), ("catalog", plan(10)), ("catalog", plan(10)))
    assert versions == [1]
    same = plan(10, price_usd_per_month="0.00")
    assert plans.publish_from_catalog(history, same) == []


def test_a_changed_catalog_publishes_one_version():
    _, versions = published(History(), ("catalog", plan(10)), ("catalog", plan(20)), ("catalog", plan(20)))
    assert versions == [1, 2]


def test_a_restart_does_not_revert_an_operators_version():
    history, versions = published(
        History(), ("catalog", plan(10)), ("operator", plan(15)), ("operator", plan(15)), ("catalog", plan(10))
    )
    assert versions == [1, 2]
    assert history.latest == plan(15, version=2)
    history, versions = published(history, ("catalog", plan(20)))
    assert versions == [3]
    assert history.latest == plan(20, version=3)


def test_a_plan_that_left_the_catalog_is_retired_and_may_return():
    first = plan(10, is_default=False)
    history, versions = published(History(), ("catalog", first), ("catalog", None), ("catalog", None))
    assert versions == [1, 2]
    assert history.latest == plan(10, version=2, listed=False, is_default=False)
    assert published(history, ("catalog", first))[1] == [3]
    assert published(History(), ("catalog", None))[1] == []
    own, _ = published(History(), ("operator", first))
    assert published(own, ("catalog", None))[1] == []


def test_the_default_plan_cannot_be_retired():
    history, _ = published(History(), ("catalog", plan(10)))
    with pytest.raises(PlanInUse, match="every new organization gets"):
        plans.retire(history)
    history, versions = published(history, ("operator", plan(10, is_default=False)), ("operator", None))
    assert versions == [2, 3]
    assert plans.retire(history) == []


def test_what_is_announced_is_what_was_said():
    history, _ = published(History(), ("catalog", plan(10)), ("operator", plan(15)))
    (again,) = plans.announce(history)
    assert again == PlanPublished(plan=plan(15, version=2), source="operator")
    assert plans.evolve(history, again) == history
    assert plans.announce(History()) == []


def test_all_plans():
    known = Plans([
        plan(10), plan(20, version=2),
        plan(1, plan="pro", rank=1, is_default=False), plan(1, plan="old", rank=2, is_default=False, listed=False),
    ])  # fmt: skip
    assert [(one.plan, one.version) for one in known.listed] == [("free", 2), ("pro", 1)]
    assert (known.default.version, known.next_rank, known.ids) == (2, 3, ["free", "old", "pro"])
    assert known.version("free", 1) == plan(10)
    with pytest.raises(UnknownPlan, match="'free' has no version 3; the current one is 2"):
        known.version("free", 3)
    with pytest.raises(UnknownPlan, match="run `billing migrate`"):
        _ = Plans([]).default
