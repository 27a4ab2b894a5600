"""How parameters become fields: metadata is merged, an empty string unsets, and nothing is silently ignored."""

from collections.abc import Iterable
from typing import Any

from standalone.stripe_simulator.problems import unsupported
from standalone.stripe_simulator.shapes import Thing, fields_of


def store(thing: Thing, params: Thing, kind: type, *, also: Iterable[str] = ()) -> None:
    """Put the parameters that are fields of the object into it. Others that mean something are refused.

    `also` names parameters that may be given and leave no trace here.
    """
    for name, value in params.items():
        if name == "metadata":
            merge_metadata(thing, value)
        elif name in fields_of(kind):
            thing[name] = None if value == "" else _joined(thing.get(name), value)
        elif name not in {"expand", *also}:
            raise unsupported(f"`{name}` here", name)


def _joined(before: Any, value: Any) -> Any:
    if not isinstance(before, dict) or not isinstance(value, dict):
        return value
    return before | {name: None if one == "" else one for name, one in value.items()}


def merge_metadata(thing: Thing, given: Any) -> None:
    """Stripe's way: keys are added and replaced, an empty value unsets its key, `''` for the whole unsets all."""
    before = thing.get("metadata") or {}
    thing["metadata"] = {} if given == "" else {k: v for k, v in (before | given).items() if v != ""}
