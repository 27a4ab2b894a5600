"""What tests and demonstrations tell the simulator, as JSON under /simulator: time, trouble, cards, buttons pressed."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from standalone.stripe_simulator import cards, catalogue, checkout, collection, payments
from standalone.stripe_simulator.faults import Fault
from standalone.stripe_simulator.problems import StripeProblem, invalid
from standalone.stripe_simulator.shapes import Thing
from standalone.stripe_simulator.state import Simulator
from standalone.stripe_simulator.world import World


def charges_per_invoice(world: World) -> dict[str, int]:
    """How often each invoice was charged with success: never more than once, or somebody pays twice."""
    count: Counter[str] = Counter()
    for payment in world.table("invoice_payment").values():
        charges = world.where("charge", payment_intent=payment["payment"]["payment_intent"], paid=True)
        count[payment["invoice"]] += len(charges)
    return dict(count)


def live_subscriptions(world: World) -> dict[str, int]:
    """How many subscriptions each customer has that are not over."""
    live = (one for one in world.table("subscription").values() if one["ended_at"] is None)
    return dict(Counter(one["customer"] for one in live))


def _state(simulator: Simulator, _told: Thing) -> Thing:
    world = simulator.world
    return {
        "now": world.time_of(),
        "stopped": world.clock.stopped_at is not None,
        "requests": dict(simulator.calls.counts),
        "charges_per_invoice": charges_per_invoice(world),
        "live_subscriptions": live_subscriptions(world),
        "objects": {name: len(table) for name, table in world.tables.items()},
        "rules": asdict(world.rules),
        "webhooks": asdict(simulator.deliveries.mode) | {"waiting": len(simulator.deliveries.waiting)},
        "faults": [asdict(fault) for fault in simulator.faults.ordered],
    }


def _clock(simulator: Simulator, told: Thing) -> Thing:
    world = simulator.world
    if "stop" in told:
        world.clock.stop() if told["stop"] else world.clock.run()
    if "advance_seconds" in told or "to" in told:
        world.advance(told.get("to", world.clock.now() + told.get("advance_seconds", 0)))
    return {"now": world.time_of()}


def _set(thing: Any, told: Thing) -> None:
    known = {one.name for one in fields(thing)}
    if told.keys() - known:
        raise invalid(f"Not one of {', '.join(sorted(known))}.", min(told.keys() - known))
    for name, value in told.items():
        setattr(thing, name, tuple(value) if isinstance(value, list) else value)


def _rules(simulator: Simulator, told: Thing) -> Thing:
    _set(simulator.world.rules, told)
    return asdict(simulator.world.rules)


def _webhooks(simulator: Simulator, told: Thing) -> Thing:
    _set(simulator.deliveries.mode, told)
    simulator.deliveries.changed()
    return asdict(simulator.deliveries.mode)


def _faults(simulator: Simulator, told: Thing) -> Thing:
    fault = Fault()
    _set(fault, told)
    simulator.faults.ordered.append(fault)
    return asdict(fault)


def _no_faults(simulator: Simulator, _told: Thing) -> Thing:
    simulator.faults.ordered.clear()
    return {}


def behave(world: World, behaviour: str, *, customer: str | None = None, payment_method: str | None = None) -> int:
    """From now on the card, or every card of the customer, does that. Returns how many cards."""
    if behaviour not in cards.BEHAVIOURS:
        raise invalid(f"Not one of {', '.join(cards.BEHAVIOURS)}.", "behaviour")
    chosen = world.where("payment_method", **({"id": payment_method} if payment_method else {"customer": customer}))
    for method in chosen:
        world.behaviours[method["id"]] = behaviour
    return len(chosen)


def _cards(simulator: Simulator, told: Thing) -> Thing:
    return {"cards": behave(simulator.world, **told)}


def _prices(simulator: Simulator, told: Thing) -> Thing:
    interval = told.get("interval", "month")
    return catalogue.put_price(simulator.world, told["id"], told["name"], told["unit_amount"], interval)


def _pay_checkout(simulator: Simulator, told: Thing) -> Thing:
    card = cards.card_named(told.get("card", "pm_card_visa"))
    return checkout.complete(simulator.world, told["id"], card, told.get("email"), told.get("name"))


def _pay_invoice(simulator: Simulator, told: Thing) -> Thing:
    world = simulator.world
    invoice = world.get("invoice", told["id"])
    return pay_in_person(world, invoice, told.get("card"))


def pay_in_person(world: World, invoice: Thing, card: str | None = None) -> Thing:
    """Pay an open invoice with its cardholder present, who authenticates; another card is kept for later too."""
    if invoice["status"] != "open":
        raise invalid(f"The invoice is {invoice['status']}.")
    method = None
    if card:
        method = checkout.portal_card(world, invoice["customer"], cards.card_named(card))
    refusal = collection.collect(world, invoice, method, confirmed=True, by_hand=True)
    if refusal:
        raise payments.refused(refusal, payments.intent_of(world, payments.default_payment(world, invoice)))
    return invoice


def _portal(simulator: Simulator, told: Thing) -> Thing:
    press = {"cancel": checkout.portal_cancel, "resume": checkout.portal_resume}[told["press"]]
    return press(simulator.world, told["subscription"])


def _dispute(simulator: Simulator, told: Thing) -> Thing:
    return payments.open_dispute(simulator.world, told["charge"], told.get("reason", "fraudulent"))


def _close_dispute(simulator: Simulator, told: Thing) -> Thing:
    return payments.close_dispute(simulator.world, told["id"], told["status"])


def _served(deed: Callable[[Simulator, Thing], Thing]) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        told = await request.json() if await request.body() else {}
        request.app.state.simulator.world.by_hand()
        try:
            return JSONResponse(deed(request.app.state.simulator, request.path_params | told))
        except StripeProblem as problem:
            return JSONResponse(problem.body(), problem.status)
        except (KeyError, TypeError) as wrong:
            return JSONResponse(invalid(f"Missing or unknown: {wrong}").body(), 400)

    return endpoint


async def _deliver(request: Request) -> Response:
    return JSONResponse({"taken": await request.app.state.simulator.deliveries.deliver()})


routes = [
    Route("/simulator", _served(_state)),
    Route("/simulator/clock", _served(_clock), methods=["POST"]),
    Route("/simulator/rules", _served(_rules), methods=["POST"]),
    Route("/simulator/webhooks", _served(_webhooks), methods=["POST"]),
    Route("/simulator/webhooks/deliver", _deliver, methods=["POST"]),
    Route("/simulator/faults", _served(_faults), methods=["POST"]),
    Route("/simulator/faults", _served(_no_faults), methods=["DELETE"]),
    Route("/simulator/cards", _served(_cards), methods=["POST"]),
    Route("/simulator/prices", _served(_prices), methods=["POST"]),
    Route("/simulator/checkout/{id}/pay", _served(_pay_checkout), methods=["POST"]),
    Route("/simulator/invoices/{id}/pay", _served(_pay_invoice), methods=["POST"]),
    Route("/simulator/portal/{press}", _served(_portal), methods=["POST"]),
    Route("/simulator/disputes", _served(_dispute), methods=["POST"]),
    Route("/simulator/disputes/{id}/close", _served(_close_dispute), methods=["POST"]),
]
