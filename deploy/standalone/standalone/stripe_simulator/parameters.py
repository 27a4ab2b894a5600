"""Requests as Stripe reads them: nested form fields, checked against the parameters that the SDK's types declare.

`stripe.params.*` are TypedDicts generated from Stripe's own specification. A name they do not have, a value of another
type, a missing requirement: each is refused with Stripe's words.
"""

import re
import types
import typing
from decimal import Decimal, InvalidOperation
from functools import cache
from itertools import pairwise
from typing import Any, Literal
from urllib.parse import parse_qsl

import stripe
from stripe import RequestOptions, StripeContext

from standalone.stripe_simulator.problems import StripeProblem, invalid
from standalone.stripe_simulator.shapes import Thing

_OPTIONS = frozenset(RequestOptions.__annotations__)
_PART = re.compile(r"\[([^\[\]]*)\]")


def decoded(text: str) -> Thing:
    """The form or query string as nested dicts; lists stay dicts by index until their type is known.

    `a[b]=1&c[0][d]=2&e[]=3` is `{"a": {"b": "1"}, "c": {"0": {"d": "2"}}, "e": {"0": "3"}}`.
    """
    params: Thing = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        head, bracket, rest = name.partition("[")
        path = [head, *_PART.findall(bracket + rest)]
        place = params
        for part, following in pairwise(path):
            place = _enter(place, part, name)
            if following == "":
                path[-1] = str(len(place))
        if path[-1] in place and isinstance(place[path[-1]], dict):
            raise invalid(f"Invalid request: {name} is both a value and an object.", head)
        place[path[-1]] = value
    return params


def _enter(place: Thing, part: str, name: str) -> Thing:
    inner = place.setdefault(part, {})
    if not isinstance(inner, dict):
        raise invalid(f"Invalid request: {name} is both a value and an object.", name)
    return inner


def checked(params: Thing, kind: Any) -> Thing:
    """The parameters with their types, or StripeProblem 400. `kind` is a TypedDict of `stripe.params`."""
    read: Thing = _object(params, kind, "")
    return read


@cache
def _hints(kind: Any) -> dict[str, Any]:
    names = vars(typing) | vars(stripe) | {"StripeContext": StripeContext}
    hints = typing.get_type_hints(kind, localns=names)
    return {name: hint for name, hint in hints.items() if name not in _OPTIONS}


def _object(value: Any, kind: Any, path: str) -> Thing:
    if not isinstance(value, dict):
        raise invalid(f"Invalid object: {path}", path)
    hints = _hints(kind)
    for name in value:
        if name not in hints:
            where = _inside(path, name)
            raise invalid(f"Received unknown parameter: {where}", where, "parameter_unknown")
    for name in sorted(kind.__required_keys__ - _OPTIONS):
        if value.get(name) in (None, "", {}):
            where = _inside(path, name)
            raise invalid(f"Missing required param: {where}.", where, "parameter_missing")
    return {name: _typed(one, hints[name], _inside(path, name)) for name, one in value.items()}


def _inside(path: str, name: str) -> str:
    return f"{path}[{name}]" if path else name


def _typed(value: Any, hint: Any, path: str) -> Any:
    choices = _choices(hint)
    plain = [choice for choice in choices if typing.get_origin(choice) is not Literal]
    literals = [one for choice in choices if typing.get_origin(choice) is Literal for one in typing.get_args(choice)]
    if value in literals:
        return value
    named = [one for one in literals if one != ""]
    if named and str in plain:
        # The SDK's enumerations are open, for values of later versions; Stripe's own are not.
        plain.remove(str)
    problem: StripeProblem | None = None
    for choice in plain:
        try:
            return _one(value, choice, path)
        except StripeProblem as failed:
            if problem is None or failed.code:
                problem = failed
    if problem is not None and not named:
        raise problem
    raise invalid(f"Invalid {path}: must be one of {', '.join(map(str, named))}", path)


def _choices(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        return tuple(choice for one in typing.get_args(hint) for choice in _choices(one) if choice is not type(None))
    if typing.get_origin(hint) in {typing.NotRequired, typing.Required}:
        return _choices(typing.get_args(hint)[0])
    return (hint,)


def _one(value: Any, hint: Any, path: str) -> Any:
    if hasattr(hint, "__required_keys__"):  # a TypedDict, of typing or of typing_extensions
        return _object(value, hint, path)
    origin = typing.get_origin(hint)
    if origin is list:
        (element,) = typing.get_args(hint)
        if isinstance(value, dict) and all(key.isdecimal() for key in value):
            value = [value[key] for key in sorted(value, key=int)]
        if not isinstance(value, list):
            raise invalid("Invalid array", path)
        return [_typed(one, element, f"{path}[{index}]") for index, one in enumerate(value)]
    if origin is dict or hint is dict or (origin is not None and issubclass(origin, stripe.StripeObject)):
        if not isinstance(value, dict) or any(isinstance(one, dict | list) for one in value.values()):
            raise invalid("Invalid object", path)
        return value
    return _scalar(value, hint, path)


def _scalar(value: Any, hint: Any, path: str) -> Any:
    if isinstance(value, dict | list):
        raise invalid(f"Invalid {'string' if hint is str else 'value'}: {path} is not an object.", path)
    if hint is bool:
        if value not in (True, False, "true", "false"):
            raise invalid(f"Invalid boolean: {value}", path)
        return value in (True, "true")
    if hint is int:
        if isinstance(value, bool) or not re.fullmatch(r"-?\d{1,18}", str(value)):
            raise invalid(f"Invalid integer: {value}", path, "parameter_invalid_integer")
        return int(value)
    if hint in (Decimal, float):
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            number = Decimal("NaN")
        if not number.is_finite():
            raise invalid(f"Invalid decimal: {value}", path)
        return number
    if hint is str:
        if len(str(value)) > 5_000:
            raise invalid(f"Invalid string: {path} is longer than 5000 characters.", path)
        return str(value)
    raise invalid(f"The simulator cannot read {path}.", path)
