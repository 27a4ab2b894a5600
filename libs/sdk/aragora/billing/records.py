"""Reading back, field by field, what `to_dict` made."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

_Value = TypeVar("_Value")


def read_field(record: Mapping[str, Any], name: str, kind: type[_Value], default: _Value | None = None) -> _Value:
    """The field of that name, or the default if it is absent and there is one.

    Raises:
        ValueError: it is missing, or not of that kind; the message names the field, and never shows its value.
    """
    value = record.get(name, default)
    if value is None:
        raise ValueError(f"{name} is missing")
    # True is an int in Python, and nobody's count.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name} must be {kind.__name__}, not {type(value).__name__}")
    return value


def read_optional(record: Mapping[str, Any], name: str) -> str | None:
    """The text in the field of that name; None if it is absent or None. Raises as `read_field` does."""
    return None if record.get(name) is None else read_field(record, name, str)


def read_moment(record: Mapping[str, Any], name: str) -> datetime:
    """The moment in the field of that name, in ISO 8601 with an offset; now, if it is absent. Raises as above."""
    text = read_optional(record, name)
    if text is None:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{name} must be a moment in ISO 8601, such as 2025-01-31T09:00:00+00:00") from None
    if moment.tzinfo is None:
        raise ValueError(f"{name} must say its offset from UTC, as in 2025-01-31T09:00:00+00:00")
    return moment
