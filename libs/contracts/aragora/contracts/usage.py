"""The usage event: one metered fact about one organization, and the only event that is not a domain event.

It is declared once, as a msgspec struct rather than a pydantic model, because this type alone is decoded more than a
hundred thousand times a second (docs/decisions/0002). It travels in two forms that carry the same fields:

* `UsageEvent`, the *native* form that people post: a flat JSON object;
* `UsageRecorded`, the *bus* form: a CloudEvents 1.0 envelope whose `id`, `subject` and `time` are the event's id,
  organization and moment, and whose `data` is the rest (`Usage`).

Token counts are given **as the provider reports them**; rating knows each provider's convention (whether cached tokens
are inside or beside `tokens_in`, and whether reasoning tokens are inside or beside `tokens_out`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

USAGE_RECORDED: Literal["aragora.metering.UsageRecorded.v1"] = "aragora.metering.UsageRecorded.v1"
"""CloudEvents `type` of a usage event on the bus."""

MAX_COUNT = 2**53
"""The largest count accepted: the largest integer that every JSON implementation keeps exact."""
MAX_ID_LENGTH = 128
MAX_METADATA_BYTES = 8 * 1024
MAX_METADATA_DEPTH = 32
"""How deeply metadata may nest, so that whoever reads them later can."""
MAX_AHEAD = timedelta(hours=1)
"""How far in the future `occurred_at` may lie, to allow for clocks that disagree."""
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
"""An `occurred_at` before this is a mistake of units, not late usage."""

ORG_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
"""An organization id is part of bus subjects, so it holds no dot, space or wildcard."""
AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,18})?\Z")
"""A non-negative decimal written out: no sign, no exponent, at most 18 places."""
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_JSON_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"')

Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Name = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)]
Amount = Annotated[str, Meta(min_length=1, max_length=31, description='A decimal as a string, e.g. "0.00125"')]
Moment = Annotated[datetime, Meta(tz=True, description="RFC 3339 with an offset")]

Metadata = Annotated[msgspec.Raw | UnsetType, Meta(extra_json_schema={"type": "object"})]


class Usage(Struct, kw_only=True, gc=False, omit_defaults=True, forbid_unknown_fields=False):
    """What was used. Absent quantities mean "not measured"; absent token counts mean none.

    `requests` absent counts as one call. `cost_usd` is the publisher's own figure and then wins over the price book.
    """

    event_type: Name
    user_id: Name | None = None
    provider: Name | None = None
    model: Name | None = None
    tokens_in: Count = 0
    tokens_out: Count = 0
    tokens_cached: Count = 0
    """Input tokens read from the provider's prompt cache."""
    tokens_cache_write: Count = 0
    """Input tokens written to the provider's prompt cache (Anthropic)."""
    tokens_reasoning: Count = 0
    tokens_audio_in: Count = 0
    tokens_audio_out: Count = 0
    requests: Count | None = None
    searches: Count | None = None
    images: Count | None = None
    pages: Count | None = None
    seconds: Amount | None = None
    cost_usd: Amount | None = None
    reservation_id: Name | None = None
    endpoint: Annotated[str, Meta(max_length=512)] | None = None
    method: Annotated[str, Meta(max_length=16)] | None = None
    status: Annotated[int, Meta(ge=0, le=999)] | None = None
    response_time_ms: Count | None = None
    metadata: Metadata = UNSET
    """A free JSON object, kept as it came."""


class UsageEvent(Usage, kw_only=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """The native form. Unknown fields are refused, so that a misspelt one is not lost in silence."""

    id: Name
    org_id: Name
    occurred_at: Moment


class UsageRecorded(Struct, kw_only=True, gc=False, omit_defaults=True):
    """The bus form: CloudEvents 1.0, structured JSON. Unknown attributes and fields are ignored."""

    id: Name
    subject: Name
    """The organization's id."""
    time: Moment
    """When the usage occurred."""
    data: Usage
    type: Literal["aragora.metering.UsageRecorded.v1"]
    source: Annotated[str, Meta(max_length=512)]
    specversion: Literal["1.0"]
    datacontenttype: str | None = None
    correlationid: str | None = None


@dataclass(frozen=True, slots=True)
class FieldError:
    """Why one event of a batch is refused. `index` counts from 0; `field` is the JSON name."""

    index: int
    field: str
    message: str


class InvalidUsage(ValueError):
    """Usage that is refused. `errors` names every wrong event and field; mend these and send the batch again."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__(f"{len(errors)} of the events are invalid; the first: {errors[0].field}: {errors[0].message}")
        self.errors = tuple(errors)


def refusal(event: UsageRecorded, now: datetime) -> tuple[str, str] | None:
    """The (native field, message) for which this event must be refused, beyond what its types say; None if it is fine.

    The rule is the same at the edge, in the SDK and in the worker.
    """
    data = event.data
    if not ORG_ID.match(event.subject):
        return "org_id", "must be 1 to 64 letters, digits, '_' or '-'"
    if event.time > now + MAX_AHEAD:
        return "occurred_at", "lies more than 1 hour in the future; check the publisher's clock"
    if event.time < EARLIEST:
        return "occurred_at", "lies before the year 2000; is it in the right unit?"
    for field, amount in (("cost_usd", data.cost_usd), ("seconds", data.seconds)):
        if amount is not None and not AMOUNT.match(amount):
            return field, 'must be a non-negative decimal in a string, such as "0.00125", with at most 18 places'
    for field, text in (
        ("id", event.id),
        ("event_type", data.event_type),
        ("user_id", data.user_id),
        ("provider", data.provider),
        ("model", data.model),
        ("reservation_id", data.reservation_id),
        ("endpoint", data.endpoint),
        ("method", data.method),
    ):
        if text is not None and _CONTROL.search(text):
            return field, "must not contain control characters"
    if data.metadata is not UNSET:
        metadata = bytes(data.metadata)
        if not metadata.lstrip().startswith(b"{"):
            return "metadata", "must be a JSON object"
        if len(metadata) > MAX_METADATA_BYTES:
            return "metadata", f"must not exceed {MAX_METADATA_BYTES} bytes"
        if _depth_of(metadata) > MAX_METADATA_DEPTH:
            return "metadata", f"must not be nested more than {MAX_METADATA_DEPTH} levels deep"
    return None


def _depth_of(json_text: bytes) -> int:
    """How deeply valid JSON is nested; 0 if too few brackets open for it to matter."""
    if json_text.count(b"{") + json_text.count(b"[") <= MAX_METADATA_DEPTH:
        return 0
    depth = deepest = 0
    for byte in _JSON_TEXT.sub(b"", json_text):
        depth += (byte in b"{[") - (byte in b"}]")
        deepest = max(deepest, depth)
    return deepest


def amount(text: str) -> Decimal:
    """The decimal that an `Amount` writes out, exactly.

    Raises:
        ValueError: the text is not a plain non-negative decimal.
    """
    if not AMOUNT.match(text):
        raise ValueError(f"not a plain non-negative decimal: {text!r}")
    return Decimal(text)
