"""Reading: one object, or a page of them; newest first, filtered, with what `expand` asks for."""

from collections.abc import Callable, Iterable
from typing import Any

from standalone.stripe_simulator import checkout, payments
from standalone.stripe_simulator.problems import invalid, missing
from standalone.stripe_simulator.shapes import Thing, copied, listed
from standalone.stripe_simulator.world import World

_PAGING = {"limit", "starting_after", "ending_before", "expand", "created", "types", "type", "status"}
_LIVE = {"incomplete", "trialing", "active", "past_due", "unpaid", "paused"}
ELSEWHERE: dict[str, dict[str, Callable[[Thing], Any]]] = {
    "invoice": {"subscription": lambda thing: _details(thing).get("subscription")},
    "subscription": {"price": lambda thing: [item["price"]["id"] for item in thing["items"]["data"]]},
    "invoice_payment": {"payment": lambda thing: thing["payment"]["payment_intent"]},
    "invoiceitem": {"pending": lambda thing: thing["invoice"] is None},
    "price": {"lookup_keys": lambda thing: thing["lookup_key"]},
}
"""List parameters that are not a field of the object, and what they are compared with."""


def _details(invoice: Thing) -> Thing:
    details: Thing = (invoice["parent"] or {}).get("subscription_details") or {}
    return details


def page(world: World, object_name: str, params: Thing, url: str, things: Iterable[Thing] | None = None) -> Thing:
    """A page of a list: `limit` (10, at most 100), after or before an id."""
    newest_first = list(things) if things is not None else list(reversed(world.table(object_name).values()))
    found = [thing for thing in newest_first if not thing.get("deleted") and _matches(object_name, thing, params)]
    limit = params.get("limit", 10)
    if not 1 <= limit <= 100:
        raise invalid("This value must be between 1 and 100 (inclusive).", "limit", "parameter_invalid_integer")
    ids = [thing["id"] for thing in found]
    after, before = params.get("starting_after"), params.get("ending_before")
    for param, given in (("starting_after", after), ("ending_before", before)):
        if given is not None and given not in ids:
            raise missing(object_name, given, param)
    if before is not None:
        until = ids.index(before)
        chosen, more = found[max(until - limit, 0) : until], until > limit
    else:
        begin = ids.index(after) + 1 if after is not None else 0
        chosen, more = found[begin : begin + limit], len(found) > begin + limit
    return listed(url, [copied(thing) for thing in chosen]) | {"has_more": more}


def _matches(object_name: str, thing: Thing, params: Thing) -> bool:
    status = params.get("status")
    if object_name == "subscription" and status in (None, "ended"):
        wanted = {"canceled", "incomplete_expired"} if status else _LIVE
        if thing["status"] not in wanted:
            return False
    elif status not in (None, "all") and thing["status"] != status:
        return False
    return (
        _within(thing.get("created", 0), params.get("created"))
        and _of_type(thing, params)
        and all(_equal(object_name, thing, name, one) for name, one in params.items() if name not in _PAGING)
    )


def _equal(object_name: str, thing: Thing, name: str, wanted: Any) -> bool:
    special = ELSEWHERE.get(object_name, {}).get(name)
    held = special(thing) if special else thing.get(name)
    if isinstance(wanted, list):
        return held in wanted
    if isinstance(held, list):
        return wanted in held
    if isinstance(wanted, dict) and not isinstance(held, dict):
        return _within(held, wanted)
    if isinstance(wanted, dict):
        return held is not None and all(held.get(k) == v for k, v in wanted.items())
    return bool(held == wanted)


def _within(moment: int | None, wanted: int | Thing | None) -> bool:
    if wanted is None or moment is None:
        return wanted is None
    if isinstance(wanted, int):
        return moment == wanted
    least: int = max(wanted.get("gte", 0), wanted.get("gt", -1) + 1)
    most: int = min(wanted.get("lte", 1 << 62), wanted.get("lt", 1 << 62) - 1)
    return least <= moment <= most


def _of_type(thing: Thing, params: Thing) -> bool:
    if thing["object"] == "event" and "type" in params:
        start, star, _ = params["type"].partition("*")
        if not (thing["type"].startswith(start) if star else thing["type"] == start):
            return False
    elif "type" in params and thing.get("type") != params["type"]:
        return False
    return "types" not in params or thing["type"] in params["types"]


def expanded(world: World, answer: Thing, paths: Iterable[str]) -> Thing:
    """The answer with objects in place of the ids that the paths name (`data.customer`, `latest_invoice.payments`)."""
    for path in paths:
        if path.count(".") > 3:
            raise invalid("You cannot expand more than 4 levels of a property.", "expand")
        _expand(world, answer, path.split("."), path)
    return answer


def _expand(world: World, place: Any, parts: list[str], path: str) -> None:
    if isinstance(place, list):
        for one in place:
            _expand(world, one, parts, path)
        return
    if place is None:
        return
    name, rest = parts[0], parts[1:]
    held = _included(world, place, name) if isinstance(place, dict) and place.get(name) is None else place.get(name)
    if held is None and name not in place:
        raise invalid(f"This property cannot be expanded ({name}).", "expand")
    if isinstance(held, str):
        found = world.find(held)
        held = copied(found) if found else held
    elif isinstance(held, list):
        held = [copied(found) if isinstance(one, str) and (found := world.find(one)) else one for one in held]
    place[name] = held
    if rest and held is not None:
        _expand(world, held, rest, path)


def _included(world: World, thing: Thing, name: str) -> Any:
    included: Any = None
    match thing.get("object"), name:
        case "invoice", "payments":
            included = payments.payments_list(world, thing["id"])
        case "invoice", "confirmation_secret" if thing.get("status") == "open":
            intent = payments.intent_of(world, payments.default_payment(world, thing))
            included = {"client_secret": intent["client_secret"], "type": "payment_intent"}
        case "checkout.session", "line_items":
            included = checkout.line_items(world, thing["id"])
        case "customer", "subscriptions":
            own = [one for one in world.where("subscription", customer=thing["id"]) if one["status"] in _LIVE]
            included = listed(f"/v1/customers/{thing['id']}/subscriptions", own[::-1])
        case "charge", "refunds":
            included = listed(f"/v1/charges/{thing['id']}/refunds", world.where("refund", charge=thing["id"]))
    return copied(included) if included else None
