"""Operations: what somebody says they are about to do, and how much of what that will use. Pure."""

from collections.abc import Container, Mapping, Sequence
from decimal import Decimal
from typing import TypeAlias

from aragora.contracts.limits import Operation
from aragora.contracts.plans import UnknownMeter, built_in_meter
from aragora.contracts.usage import AMOUNT, MAX_COUNT
from metering.projections import is_api_call, is_debate

Quantities: TypeAlias = Mapping[str, Decimal | None]
"""What an operation will use, by quantity; None where it will use some, and nobody knows how much."""

MAX_COST_USD = Decimal(10) ** 9


class InvalidOperation(ValueError):
    """An operation cannot be understood. `index` counts from 0, `field` is the JSON name, `message` says what to do."""

    def __init__(self, index: int, field: str, message: str) -> None:
        super().__init__(f"operation {index}: {field} {message}")
        self.index = index
        self.field = field
        self.message = message


def refuse_invalid(operations: Sequence[Operation], declared: Container[str]) -> None:
    """What the types do not forbid.

    Args:
        operations: as they were asked for.
        declared: the meters of the catalog, beyond the built-in ones, that an operation may name.

    Raises:
        InvalidOperation: an operation names a meter that there is not, or an amount that cannot be.
    """
    for index, operation in enumerate(operations):
        _refuse_invalid(index, operation, declared)


def _refuse_invalid(index: int, o: Operation, declared: Container[str]) -> None:
    for name in ("seconds", "cost_usd"):
        value = getattr(o, name)
        if value is not None and (not AMOUNT.match(value) or not 0 < Decimal(value) <= MAX_COST_USD):
            raise InvalidOperation(
                index, name, f'must be a decimal in a string, above 0 and up to {MAX_COST_USD:,}: "0.05"'
            )
    if o.meter is None:
        if o.amount is not None:
            raise InvalidOperation(index, "meter", "must be named beside an amount")
        described = (o.event_type, o.provider, o.requests, o.tokens, o.tokens_in, o.tokens_out, o.images, o.searches,
                     o.pages, o.seconds, o.cost_usd)  # fmt: skip
        if all(value is None for value in described):
            raise InvalidOperation(index, "event_type", "or provider is missing: say what is about to be done")
        if o.tokens is not None and (o.tokens_in is not None or o.tokens_out is not None):
            raise InvalidOperation(
                index, "tokens", "are in and out together: give either them or tokens_in and tokens_out"
            )
        return
    if any(getattr(o, name) is not None for name in Operation.__struct_fields__ if name not in ("meter", "amount")):
        raise InvalidOperation(
            index, "meter", "stands alone with its amount; put what else is done into a second operation"
        )
    if o.meter not in declared:
        try:
            built_in_meter(o.meter)
        except UnknownMeter as error:
            raise InvalidOperation(index, "meter", str(error)) from error
    if o.amount is None:
        raise InvalidOperation(index, "amount", "is missing: say how much of the meter")
    if isinstance(o.amount, str):
        if o.meter != "cost_usd":
            raise InvalidOperation(index, "amount", f"must be an integer from 1 to {MAX_COUNT}")
        if not AMOUNT.match(o.amount) or not 0 < Decimal(o.amount) <= MAX_COST_USD:
            raise InvalidOperation(
                index, "amount", f'must be a decimal in a string, above 0 and up to {MAX_COST_USD:,}: "0.05"'
            )


def quantities_of(operation: Operation, cost_usd: Decimal | None) -> Quantities:
    """What an operation will use. `cost_usd` is the caller's or the price book's estimate; None: not known."""
    o = operation
    found: dict[str, Decimal | None] = {}
    is_call = is_api_call(o.event_type, o.provider)
    if is_debate(o.event_type):
        found["debates"] = Decimal(1)
    if is_call:
        found["api_calls"] = Decimal(1 if o.requests is None else o.requests)
    tokens = o.tokens
    if tokens is None and o.tokens_in is not None and o.tokens_out is not None:
        tokens = o.tokens_in + o.tokens_out
    for name, count in (
        ("requests", o.requests),
        ("tokens", tokens),
        ("tokens_in", o.tokens_in),
        ("tokens_out", o.tokens_out),
        ("images", o.images),
        ("searches", o.searches),
        ("pages", o.pages),
    ):
        if count is not None:
            found[name] = Decimal(count)
        elif name.startswith("tokens") and (is_call or is_debate(o.event_type)):
            found[name] = None
    if o.seconds is not None:
        found["seconds"] = Decimal(o.seconds)
    found["cost_usd"] = cost_usd
    return found


def known_tokens(operation: Operation) -> Decimal:
    """The tokens of a call of which only those of one direction are known, or none."""
    return Decimal((operation.tokens_in or 0) + (operation.tokens_out or 0))
