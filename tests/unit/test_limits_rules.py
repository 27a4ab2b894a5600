"""What an operation will take of each limit, and whether there is that much left."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aragora.contracts.limits import Operation
from aragora.contracts.plans import Overage, built_in_meter
from metering.limits import Account, Demand, Limit, demands_of, resets_at, standings
from metering.operations import InvalidOperation, quantities_of, refuse_invalid
from metering.reading import percent_of


def limit(meter: str, amount: int | str | None = 10, per: str = "organization", **more: Any) -> Limit:
    """A limit on a built-in meter, or with an aggregation of its own."""
    found: dict[str, Any] = {"aggregation": "sum", "quantity": None, "event_type": None, "providers": None}
    if not more:
        built_in = built_in_meter(meter)
        found |= {"quantity": built_in.quantity, "providers": built_in.providers}
    return Limit(meter=meter, per=per, amount=None if amount is None else Decimal(amount), **(found | more))


def operation(**fields: Any) -> Operation:
    return msgspec.convert(fields, Operation)


def asked(one: Limit, *operations: Operation, cost: Decimal | None = None, user: str | None = "ann") -> Any:
    """The (amount, wants more) that the operations ask of a limit; None: nothing."""
    found = demands_of(operations, [cost] * len(operations), [one], user)
    return (found[0].amount, found[0].wants_more) if found else None


CALL = {"provider": "openai"}


@pytest.mark.parametrize(
    ("meter", "fields", "expected"),
    [
        ("api_calls", CALL, (1, False)),
        ("api_calls", CALL | {"requests": 7}, (7, False)),
        ("api_calls", {"event_type": "api_call"}, (1, False)),
        ("api_calls", {"event_type": "debate"}, None),
        ("calls:openai", CALL, (1, False)),
        ("calls:openai", {"provider": "OpenAI"}, (1, False)),
        ("calls:openai", {"provider": "gemini"}, None),
        ("calls:openai", {"event_type": "api_call"}, None),
        ("calls:gemini", {"provider": "google"}, (1, False)),
        ("debates", {"event_type": "debate"}, (1, False)),
        ("debates", CALL | {"event_type": "debate"}, (1, False)),
        ("debates", CALL, None),
        ("tokens", CALL | {"tokens": 5}, (5, False)),
        ("tokens", CALL | {"tokens_in": 2, "tokens_out": 3}, (5, False)),
        ("tokens", CALL | {"tokens_in": 2}, (2, True)),
        ("tokens", CALL | {"tokens_out": 3}, (3, True)),
        ("tokens", CALL, (0, True)),
        ("tokens", {"event_type": "debate"}, (0, True)),
        ("tokens", {"event_type": "export"}, None),
        ("images", CALL | {"images": 3}, (3, False)),
        ("images", CALL, None),
        ("cost_usd", CALL, (0, True)),
        ("cost_usd", {"meter": "cost_usd", "amount": "0.5"}, (Decimal("0.5"), False)),
        ("tokens", {"meter": "tokens", "amount": 5}, (5, False)),
        ("api_calls", {"meter": "tokens", "amount": 5}, None),
        ("calls:gemini", {"meter": "calls:google", "amount": 2}, (2, False)),
        ("calls:gemini", {"meter": "tokens:google", "amount": 2}, None),
        ("calls:gemini", {"meter": "calls:openai", "amount": 2}, None),
    ],
)
def test_what_an_operation_asks_of_a_meter(meter: str, fields: dict[str, Any], expected: Any):
    assert asked(limit(meter), operation(**fields)) == expected


@pytest.mark.parametrize(
    ("aggregation", "quantity", "expected"), [("sum", "seconds", 7), ("max", "seconds", 5), ("count", None, 2)]
)
def test_operations_of_one_request_add_up_as_the_meter_does(aggregation: str, quantity: str | None, expected: int):
    render = limit("render", aggregation=aggregation, quantity=quantity, event_type="render")
    others = operation(event_type="export", seconds="9")
    several = [operation(event_type="render", seconds=seconds) for seconds in ("2", "5")]
    assert asked(render, *several, others) == (expected, False)
    assert asked(render, others) is None


def test_a_cost_that_is_known_is_asked_of_the_cost_limit():
    assert asked(limit("cost_usd"), operation(**CALL), operation(**CALL), cost=Decimal("0.1")) == (
        Decimal("0.2"),
        False,
    )


def test_only_a_person_has_limits_of_her_own():
    for one in (limit("api_calls", per="user"), limit("people", aggregation="unique_users")):
        assert asked(one, operation(**CALL)) == (1, False)
        assert asked(one, operation(**CALL), user=None) is None


def test_unlimited_is_not_asked():
    assert asked(limit("api_calls", None), operation(**CALL)) is None


@pytest.mark.parametrize(
    ("amount", "used", "held", "asks", "more", "fits"),
    [
        (10, 0, 0, 10, False, True), (10, 0, 0, 11, False, False), (10, 4, 5, 1, False, True),
        (10, 4, 5, 2, False, False), (10, 4, 6, 0, True, False), (10, 4, 5, 0, True, True), (10, 4, 5, 1, True, False),
        (10, 12, 0, 1, False, False), (0, 0, 0, 1, False, False), (0, 0, 0, 0, True, False),
    ],
)  # fmt: skip
def test_a_sum_fits_if_there_is_that_much_left(amount: int, used: int, held: int, asks: int, *, more: bool, fits: bool):
    one = limit("tokens", amount)
    account = Account([one], used={("tokens", ""): Decimal(used)}, held={("tokens", ""): Decimal(held)})
    (found,) = standings(account, [Demand(one, "ann", Decimal(asks), more)])
    assert found.fits == fits
    assert found.would_fit_later == (not fits and used + asks <= amount and held > 0)


@pytest.mark.parametrize(
    ("asks", "more", "fits"), [(5, False, True), (6, False, False), (5, True, False), (0, True, True)]
)
def test_a_maximum_looks_at_the_request_alone(asks: int, *, more: bool, fits: bool):
    one = limit("largest", 5, aggregation="max", quantity="tokens")
    account = Account([one], used={("largest", ""): Decimal(9)})
    demand = Demand(one, "ann", Decimal(asks), more)
    assert [found.fits for found in standings(account, [demand])] == [fits]
    assert account.hold([demand]) == {}


def test_unique_users_hold_a_place_for_each_person_once():
    one = limit("people", 3, aggregation="unique_users")
    account = Account([one], used={("people", ""): Decimal(1)}, counted={"people": {"ann"}})

    def fits(user: str) -> bool:
        return standings(account, [Demand(one, user, Decimal(1))])[0].fits

    for user in ("ann", "bob", "bob", "cy"):
        assert fits(user)
        assert account.hold([Demand(one, user, Decimal(1))]) == {("people", user): 1}
    assert not fits("dan")
    account.add({("people", "bob"): Decimal(1)}, -1)
    assert not fits("dan")
    account.add({("people", "bob"): Decimal(1)}, -1)
    assert fits("dan")


@pytest.mark.parametrize("aggregation", ["sum", "count", "max", "unique_users"])
def test_a_limit_with_an_overage_price_is_held_and_refuses_nobody(aggregation: str):
    price = Overage(price_usd=Decimal("0.10"))
    one = limit("exports", 0, aggregation=aggregation, quantity="debates", overage=price)
    account = Account([one])
    for user in ("ann", "bob"):
        demands = [Demand(one, user, Decimal(7), wants_more=True)]
        (found,) = standings(account, demands)
        assert (found.fits, found.would_fit_later) == (True, False)
        account.hold(demands)
    held = {"sum": 14, "count": 14, "max": 0, "unique_users": 2}[aggregation]
    assert sum(account.held.values()) == held
    assert not standings(account, [Demand(replace(one, overage=None), "cy", Decimal(7))])[0].fits


amounts = st.integers(0, 10).map(Decimal)


@given(st.lists(st.tuples(amounts, st.booleans()), max_size=8), amounts)
def test_what_is_admitted_one_after_another_never_exceeds_the_limit(asks: list[Any], allowed: Decimal):
    one = limit("tokens", str(allowed))
    account = Account([one])
    held = []
    for amount, more in asks:
        demand = Demand(one, "", amount, more)
        if standings(account, [demand])[0].fits:
            held.append(account.hold([demand]))
        assert account.held.get(("tokens", ""), 0) <= allowed
    for each in held:
        account.add(each, -1)
    assert not any(account.held.values())


def test_the_cost_is_the_callers_or_unknown():
    assert quantities_of(operation(**CALL), None)["cost_usd"] is None
    assert quantities_of(operation(**CALL), Decimal(2))["cost_usd"] == 2


def test_a_meter_must_be_built_in_or_declared():
    custom = [operation(meter="exports", amount=1)]
    refuse_invalid(custom, {"exports"})
    with pytest.raises(InvalidOperation, match="not a meter; built in are debates") as refused:
        refuse_invalid([operation(**CALL), *custom], ())
    assert (refused.value.index, refused.value.field) == (1, "meter")


def test_percent_rounds_down_so_that_a_hundred_means_reached():
    assert percent_of(Decimal("99.99999"), Decimal(100)) == Decimal("99.99")
    assert [percent_of(Decimal(used), Decimal(0)) for used in (0, 1)] == [0, 100]
    assert percent_of(Decimal(1), None) is None


def test_a_month_ends_at_the_first_of_the_next():
    assert resets_at(datetime(2026, 12, 31, 23, 59, 59, 999999, UTC)) == datetime(2027, 1, 1, tzinfo=UTC)
    assert resets_at(datetime(2028, 2, 1, tzinfo=UTC)) == datetime(2028, 3, 1, tzinfo=UTC)
