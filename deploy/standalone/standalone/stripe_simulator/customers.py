"""Customers, their credit balance, and Stripe's test clocks."""

import stripe

from standalone.stripe_simulator import cards
from standalone.stripe_simulator.clock import DAY
from standalone.stripe_simulator.fields import store
from standalone.stripe_simulator.problems import invalid
from standalone.stripe_simulator.shapes import Thing
from standalone.stripe_simulator.world import World

_ELSEWHERE = ("payment_method", "invoice_settings", "balance", "test_clock", "tax_id_data", "validate")


def create(world: World, params: Thing) -> Thing:
    """POST /v1/customers."""
    test_clock = params.get("test_clock")
    if test_clock:
        world.alive("test_helpers.test_clock", test_clock, "test_clock")
    customer = world.new(
        stripe.Customer,
        "cus",
        balance=0,
        delinquent=False,
        invoice_settings={
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        next_invoice_sequence=1,
        preferred_locales=[],
        tax_exempt="none",
        test_clock=test_clock,
    )
    customer["created"] = world.time_of(customer)
    customer["invoice_prefix"] = f"SIM{len(world.table('customer')):05d}"
    if "balance" in params:
        _adjust(world, customer, params["balance"], "initial")
    if params.get("payment_method"):
        cards.attach(world, params["payment_method"], customer)
    _settings(world, customer, params)
    store(customer, {k: v for k, v in params.items() if k not in _ELSEWHERE}, stripe.Customer)
    world.emit("customer.created", customer)
    return customer


def update(world: World, params: Thing, customer: str) -> Thing:
    """POST /v1/customers/{id}."""
    thing = world.alive("customer", customer)
    with world.changing(thing, "customer.updated"):
        _settings(world, thing, params)
        if "balance" in params and params["balance"] != thing["balance"]:
            _adjust(world, thing, params["balance"] - thing["balance"], "adjustment")
        store(thing, {k: v for k, v in params.items() if k not in _ELSEWHERE}, stripe.Customer)
    return thing


def _settings(world: World, customer: Thing, params: Thing) -> None:
    given = params.get("invoice_settings") or {}
    method_id = given.get("default_payment_method")
    if method_id:
        if method_id in cards.BY_ID:  # Stripe's shared ids stand for the card that was just attached by that id
            own = world.where("payment_method", customer=customer["id"])
        else:
            own = world.where("payment_method", customer=customer["id"], id=method_id)
        if not own:
            raise invalid(
                "The customer does not have a payment method with that ID: it must be attached first.",
                "invoice_settings[default_payment_method]",
            )
        method = own[-1]
        given = given | {"default_payment_method": method["id"]}
    known = {k: v or None for k, v in given.items() if k in customer["invoice_settings"]}
    customer["invoice_settings"] = customer["invoice_settings"] | known


def _adjust(world: World, customer: Thing, amount: int, kind: str, **more: str | None) -> Thing:
    customer["balance"] += amount
    customer["currency"] = "usd"
    return world.new(
        stripe.CustomerBalanceTransaction,
        "cbtxn",
        amount=amount,
        created=world.time_of(customer),
        currency="usd",
        customer=customer["id"],
        ending_balance=customer["balance"],
        type=kind,
        **more,
    )


def change_balance(world: World, customer: Thing, amount: int, kind: str, invoice: str | None = None) -> Thing:
    """Add to the balance (positive: the customer owes more; negative: credit), with an entry that says why."""
    with world.changing(customer, "customer.updated"):
        return _adjust(world, customer, amount, kind, invoice=invoice)


def create_balance_transaction(world: World, params: Thing, customer: str) -> Thing:
    """POST /v1/customers/{id}/balance_transactions."""
    thing = world.alive("customer", customer)
    entry = change_balance(world, thing, params["amount"], "adjustment")
    rest = {k: v for k, v in params.items() if k not in {"amount", "currency"}}
    store(entry, rest, stripe.CustomerBalanceTransaction)
    return entry


def emptied(customer: Thing) -> Thing:
    """What is left of a deleted customer."""
    return {"id": customer["id"], "object": "customer", "deleted": True}


# Test clocks


def create_test_clock(world: World, params: Thing) -> Thing:
    """POST /v1/test_helpers/test_clocks."""
    clock = world.new(
        stripe.test_helpers.TestClock,
        "clock",
        created=world.time_of(),
        deletes_after=world.time_of() + 30 * DAY,
        frozen_time=params["frozen_time"],
        name=params.get("name"),
        status="ready",
        status_details={},
    )
    world.emit("test_helpers.test_clock.created", clock)
    return clock


def advance_test_clock(world: World, params: Thing, test_clock: str) -> Thing:
    """POST …/advance: everything happens before the answer, where Stripe takes a while."""
    clock = world.alive("test_helpers.test_clock", test_clock)
    to = params["frozen_time"]
    if to <= clock["frozen_time"]:
        raise invalid("The frozen time must be after the current frozen time.", "frozen_time")
    clock |= {"status": "advancing", "status_details": {"advancing": {"target_frozen_time": to}}}
    world.emit("test_helpers.test_clock.advancing", clock)
    world.advance_test_clock(clock, to)
    clock |= {"status": "ready", "status_details": {}}
    world.emit("test_helpers.test_clock.ready", clock)
    return clock
