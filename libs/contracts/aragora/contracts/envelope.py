"""How a domain event travels: a CloudEvents 1.0 envelope in structured JSON mode, around an event with a version.

Producers refuse unknown fields, consumers ignore them. A changed meaning is a new version: the class moves to the new
`type_name` and an `@upcaster` for the old one turns its fields into the next version's, so that readers only ever see
the latest.
"""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from aragora.contracts.ids import new_id

_TYPE = re.compile(r"aragora\.(?P<service>[a-z]+)\.(?P<event>[A-Z][A-Za-z]+)\.v(?P<version>[1-9][0-9]*)\Z")
_ORG_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")

Fields = dict[str, Any]
"""The JSON object that an event is in its envelope or in the store."""

_events: dict[str, type["DomainEvent"]] = {}
_upcasters: dict[str, Callable[[Fields], Fields]] = {}


class UnknownEventType(LookupError):
    """No event of this type, and no upcaster from it, is known here. Is this program older than the publisher?"""


class DomainEvent(BaseModel):
    """A fact with rules behind it. A subclass names its type: `type_name = "aragora.metering.LimitReached.v1"`.

    Decimals and moments are strings in JSON. Who it concerns and when it occurred is said by the envelope.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type_name: ClassVar[str]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        name = cls.__dict__.get("type_name")
        if name is None:
            return  # a shared set of fields, not an event
        if _parts(name)["event"] != cls.__name__:
            raise TypeError(f"{cls.__name__} calls itself {name!r}; the class and the event have one name")
        if name in _events:
            raise TypeError(f"two events are of type {name!r}; give the newer one the next version")
        _events[name] = cls


class Envelope(BaseModel):
    """CloudEvents 1.0 with the two tracing extensions. `subject` is the organization's id, `time` when it occurred."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    specversion: Literal["1.0"] = "1.0"
    id: str = Field(min_length=1, max_length=128)
    source: str = Field(min_length=1)
    type: str
    subject: str
    time: AwareDatetime
    datacontenttype: Literal["application/json"] = "application/json"
    correlationid: str
    causationid: str | None = None
    data: Fields

    def to_json(self) -> bytes:
        """The structured JSON form, `application/cloudevents+json`."""
        return self.model_dump_json(exclude_none=True).encode()


def upcaster(old_type: str) -> Callable[[Callable[[Fields], Fields]], Callable[[Fields], Fields]]:
    """Registers a function that turns the fields of `old_type` into those of the next version. Upcasters chain."""
    _parts(old_type)

    def register(function: Callable[[Fields], Fields]) -> Callable[[Fields], Fields]:
        if old_type in _upcasters:
            raise TypeError(f"two upcasters take {old_type!r}")
        _upcasters[old_type] = function
        return function

    return register


def event_types() -> dict[str, type[DomainEvent]]:
    """Every event that is known here, by type. Old versions that have an upcaster are not among them."""
    return dict(_events)


def envelope(
    event: DomainEvent,
    *,
    org_id: str,
    occurred_at: datetime,
    correlation_id: str,
    causation_id: str | None = None,
    event_id: UUID | None = None,
) -> Envelope:
    """Puts an event into its envelope. `event_id` defaults to a new UUIDv7."""
    return Envelope(
        id=str(event_id or new_id()),
        source=source_of(event.type_name),
        type=event.type_name,
        subject=org_id,
        time=occurred_at,
        correlationid=correlation_id,
        causationid=causation_id,
        data=event.model_dump(mode="json"),
    )


def decode(envelope_json: bytes | str) -> tuple[Envelope, DomainEvent]:
    """The envelope and the event in it, in its latest version. Unknown attributes and fields are ignored.

    Raises:
        UnknownEventType: see there.
        pydantic.ValidationError: not an envelope, or the fields are not those of the event.
    """
    outer = Envelope.model_validate_json(envelope_json)
    return outer, restore(outer.type, outer.data)


def restore(type_name: str, fields: Fields) -> DomainEvent:
    """The event, in its latest version, of which these are the fields. Raises as `decode` does."""
    found = type_name
    while found not in _events and found in _upcasters:
        fields = _upcasters[found](fields)
        parts = _parts(found)
        found = f"aragora.{parts['service']}.{parts['event']}.v{int(parts['version']) + 1}"
    if found not in _events:
        raise UnknownEventType(f"{type_name!r} is not known here; is this program older than the publisher?")
    return _events[found].model_validate(fields, extra="ignore")


def subject_for(type_name: str, org_id: str) -> str:
    """The bus subject of an event: `events.<service>.<EventType>.<org_id>`, the same for every version.

    Raises:
        ValueError: the type is not `aragora.<service>.<EventType>.v<n>`, or the organization's id cannot be part of a
            subject.
    """
    if not _ORG_ID.match(org_id):
        raise ValueError(f"{org_id!r} cannot be part of a subject; use 1 to 64 letters, digits, '_' or '-'")
    parts = _parts(type_name)
    return f"events.{parts['service']}.{parts['event']}.{org_id}"


def source_of(type_name: str) -> str:
    """The CloudEvents `source`: the service that owns the type, such as `/aragora/metering`."""
    return f"/aragora/{_parts(type_name)['service']}"


def _parts(type_name: str) -> dict[str, str]:
    match = _TYPE.match(type_name)
    if match is None:
        raise ValueError(f"{type_name!r} is not an event type; write aragora.<service>.<EventType>.v<n>")
    return match.groupdict()
