"""From an HTTP body to usage events, in each of the forms that people send. Pure.

A batch is accepted whole or refused whole; a refusal names every wrong event (up to `MAX_ERRORS`) by index and field.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar
from urllib.parse import unquote

import msgspec

from aragora.contracts.usage import (
    USAGE_RECORDED,
    FieldError,
    InvalidUsage,
    Usage,
    UsageEvent,
    UsageRecorded,
    refusal,
)
from metering.intake import NATIVE_NAMES, explain

MAX_EVENTS = 10_000
MAX_ERRORS = 100

JSON = "application/json"
NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")
CLOUDEVENT = "application/cloudevents+json"
CLOUDEVENT_BATCH = "application/cloudevents-batch+json"
CONTENT_TYPES = (JSON, *NDJSON, CLOUDEVENT, CLOUDEVENT_BATCH)

_USAGE_FIELDS = Usage.__struct_fields__
_ENVELOPE_NAMES = {native: envelope for envelope, native in NATIVE_NAMES.items()}


class StrictUsage(Usage, kw_only=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """`Usage` as producers must send it: without unknown fields."""


class StrictUsageRecorded(UsageRecorded, kw_only=True, gc=False, omit_defaults=True):
    """The bus form as producers must send it. Extension attributes of the envelope are CloudEvents' own right."""

    data: StrictUsage


_native = msgspec.json.Decoder(UsageEvent)
_natives = msgspec.json.Decoder(list[UsageEvent])
_cloudevent = msgspec.json.Decoder(StrictUsageRecorded)
_cloudevents = msgspec.json.Decoder(list[StrictUsageRecorded])
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_Event = TypeVar("_Event", UsageEvent, StrictUsageRecorded)


class UnreadableBody(Exception):
    """The body as a whole cannot be taken: HTTP status and what to do."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class OthersUsage(InvalidUsage):
    """Some events are of an organization that is not the caller's. Send each with its own organization's key."""


def read_body(
    body: bytes, headers: Mapping[str, str], *, source: str, now: datetime, only_org: str | None = None
) -> list[UsageRecorded]:
    """The events in a request.

    Args:
        body: what was posted.
        headers: of the request, names in lower case: `content-type`, and `ce-*` in CloudEvents' binary mode.
        source: the CloudEvents `source` given to events that name none.
        now: what "in the future" is measured against.
        only_org: the one organization whose usage the caller may record; None: any.

    Raises:
        UnreadableBody: wrong content type, not UTF-8, not JSON, nested too deeply, empty, or too many events.
        InvalidUsage: some events are wrong; all of them are named.
        OthersUsage: some events are of another organization than `only_org`; all of them are named.
    """
    is_binary = "ce-specversion" in headers
    # CloudEvents lets binary mode leave it out, and its own SDK does; our data is JSON.
    content_type = headers.get("content-type", JSON if is_binary else "").partition(";")[0].strip().lower()
    is_cloudevent = is_binary or content_type in (CLOUDEVENT, CLOUDEVENT_BATCH)
    if content_type not in CONTENT_TYPES or (is_binary and content_type != JSON):
        raise UnreadableBody(415, f"Content-Type must be one of {', '.join(CONTENT_TYPES)}.")
    try:
        body.decode()
        if is_binary:
            events: list[UsageRecorded] = list(_read_binary(body, headers))
        elif is_cloudevent:
            events = list(_read_json(body, _cloudevents, _cloudevent, is_list=content_type == CLOUDEVENT_BATCH))
        elif content_type == JSON:
            natives = _read_json(body, _natives, _native, is_list=body.lstrip()[:1] == b"[")
            events = [_recorded(native, source) for native in natives]
        else:
            lines = [line for line in body.splitlines() if line.strip()]
            events = [_recorded(native, source) for native in _read_each(lines, _native)]
    except UnicodeDecodeError as error:
        raise UnreadableBody(400, f"The body is not valid UTF-8 (byte {error.start}).") from error
    except RecursionError as error:
        raise UnreadableBody(400, "The body is nested too deeply.") from error
    except InvalidUsage as error:
        raise (InvalidUsage([_renamed(each) for each in error.errors]) if is_cloudevent else error) from error.__cause__
    if not events:
        raise UnreadableBody(422, "The batch is empty; send at least one event.")
    if len(events) > MAX_EVENTS:
        raise UnreadableBody(413, f"The batch has {len(events)} events; send at most {MAX_EVENTS} at a time.")
    errors = _errors_in(events, now)
    if errors:
        raise InvalidUsage([_renamed(error) for error in errors] if is_cloudevent else errors)
    if only_org is not None:
        message = f"is not {only_org}, the organization of your key"
        field = "subject" if is_cloudevent else "org_id"
        others = [FieldError(index, field, message) for index, each in enumerate(events) if each.subject != only_org]
        if others:
            raise OthersUsage(others[:MAX_ERRORS])
    return events


def _read_json(
    body: bytes, whole: msgspec.json.Decoder[list[_Event]], one: msgspec.json.Decoder[_Event], *, is_list: bool
) -> list[_Event]:
    if not is_list:
        return _read_each([body], one)
    try:
        return whole.decode(body)
    except msgspec.ValidationError:
        try:
            texts = _raws.decode(body)
        except msgspec.ValidationError as error:
            raise UnreadableBody(422, "A batch is a JSON array of events.") from error
        except msgspec.DecodeError as error:
            raise UnreadableBody(400, f"The body is not valid JSON: {error}.") from error
        return _read_each(texts, one)
    except msgspec.DecodeError as error:
        raise UnreadableBody(400, f"The body is not valid JSON: {error}.") from error


def _read_each(texts: Sequence[bytes | msgspec.Raw], one: msgspec.json.Decoder[_Event]) -> list[_Event]:
    events: list[_Event] = []
    errors: list[FieldError] = []
    for index, text in enumerate(texts):
        try:
            events.append(one.decode(text))
        except msgspec.ValidationError as error:
            field, message = explain(error)
            errors.append(FieldError(index, field or "event", message))
        except msgspec.DecodeError as error:
            raise UnreadableBody(400, f"Event {index} is not valid JSON: {error}.") from error
    if errors:
        raise InvalidUsage(errors[:MAX_ERRORS])
    return events


def _read_binary(body: bytes, headers: Mapping[str, str]) -> list[StrictUsageRecorded]:
    # CloudEvents 1.0, HTTP binding, section 3.1: attributes are percent-encoded headers, the body is the data.
    envelope = {name[3:]: unquote(value) for name, value in headers.items() if name.startswith("ce-")}
    try:
        data = msgspec.json.decode(body, type=msgspec.Raw) if body else msgspec.Raw(b"{}")
    except msgspec.DecodeError as error:
        raise UnreadableBody(400, f"The body is not valid JSON: {error}.") from error
    return _read_each([msgspec.json.encode({**envelope, "data": data})], _cloudevent)


def _recorded(native: UsageEvent, source: str) -> UsageRecorded:
    return UsageRecorded(
        id=native.id,
        subject=native.org_id,
        time=native.occurred_at,
        type=USAGE_RECORDED,
        source=source,
        specversion="1.0",
        data=Usage(**{field: getattr(native, field) for field in _USAGE_FIELDS}),
    )


def _errors_in(events: Sequence[UsageRecorded], now: datetime) -> list[FieldError]:
    first: dict[tuple[str, str], tuple[int, UsageRecorded]] = {}
    errors: list[FieldError] = []
    for index, event in enumerate(events):
        why = refusal(event, now)
        if why:
            errors.append(FieldError(index, *why))
        known_index, known = first.setdefault((event.subject, event.id), (index, event))
        if known is not event and known.data != event.data:
            message = f"is the id of event {known_index} too, with different content; give each event its own id"
            errors.append(FieldError(index, "id", message))
    return errors[:MAX_ERRORS]


def _renamed(error: FieldError) -> FieldError:
    return replace(error, field=_ENVELOPE_NAMES.get(error.field, error.field))
