"""From the bytes of a bus message to usage events. Pure.

A message is decoded as a whole; only when something in it is wrong are its events looked at one by one, so that a bad
event costs the good ones beside it nothing but time.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from aragora.contracts.usage import EARLIEST, MAX_AHEAD, ORG_ID, UsageRecorded, refusal

_batch = msgspec.json.Decoder(list[UsageRecorded])
_one = msgspec.json.Decoder(UsageRecorded)
_raw_events = msgspec.json.Decoder(list[msgspec.Raw])
_subject = msgspec.json.Decoder(dict[str, msgspec.Raw])
_named_field = re.compile(r"Object (missing required|contains unknown) field `(?P<name>[^`]*)`")
_at_path = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")

NATIVE_NAMES = {"subject": "org_id", "time": "occurred_at"}
"""Envelope attributes, by the name that a publisher of native events knows them under."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A usage event that cannot be recorded: what came, and why not."""

    payload: bytes
    field: str | None
    reason: str
    org_id: str | None = None


def read_message(body: bytes, now: datetime) -> tuple[list[UsageRecorded], list[Refused]]:
    """The usage events of one bus message (a CloudEvents JSON batch, or a single event), and what must be refused."""
    try:
        body.decode()
        events = _batch.decode(body) if _is_list(body) else [_one.decode(body)]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _read_one_by_one(body, now)
    # An escape may stand for a control character, which neither an id nor Postgres may hold: look closely.
    suspicious = b"\\" in body or b"\x7f" in body
    latest = now + MAX_AHEAD
    for event in events:
        usage = event.data
        if (
            suspicious
            or usage.metadata
            or usage.cost_usd is not None
            or usage.seconds is not None
            or not EARLIEST <= event.time <= latest
            or not ORG_ID.match(event.subject)
        ) and refusal(event, now):
            return _read_one_by_one(body, now)
    return events, []


def _read_one_by_one(body: bytes, now: datetime) -> tuple[list[UsageRecorded], list[Refused]]:
    try:
        body.decode()
        payloads = [bytes(raw) for raw in _raw_events.decode(body)] if _is_list(body) else [body]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return [], [Refused(body, None, f"the message is not a JSON batch of events: {explain(error)[1]}")]
    good: list[UsageRecorded] = []
    refused: list[Refused] = []
    for payload in payloads:
        try:
            event = _one.decode(payload)
        except (msgspec.MsgspecError, RecursionError) as error:
            refused.append(_refused(payload, *explain(error), org_id=_org_of(payload)))
            continue
        why = refusal(event, now)
        if why:
            refused.append(_refused(payload, *why, org_id=event.subject))
        else:
            good.append(event)
    return good, refused


def _is_list(body: bytes) -> bool:
    return body.lstrip()[:1] == b"["


def without_repeats(events: Sequence[UsageRecorded]) -> tuple[list[UsageRecorded], list[Refused]]:
    """Each (organization, id) once: the first one to come wins.

    A repeat that differs in nothing but its timestamp is a retry and falls away. A repeat with other content is a
    publisher's mistake, and is refused.
    """
    first: dict[tuple[str, str], UsageRecorded] = {}
    refused: list[Refused] = []
    for event in events:
        known = first.setdefault((event.subject, event.id), event)
        if known is not event and known.data != event.data:
            reason = "the same id came twice in one batch with different content; the first one was recorded"
            refused.append(_refused(msgspec.json.encode(event), "id", reason, org_id=event.subject))
    return list(first.values()), refused


def explain(error: Exception) -> tuple[str | None, str]:
    """The (field, message) of a decoding error, the field under the name that publishers know."""
    if isinstance(error, RecursionError):
        return None, "is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return None, f"is not valid UTF-8 (byte {error.start})"
    message = str(error)
    found = _at_path.search(message)
    if found:
        message = message[: found.start()]
    if named := _named_field.match(message):
        name = named["name"]
    else:
        name = re.sub(r"^\[(\.\.\.|\d+)\]\.?", "", found["path"]).removeprefix("data.") if found else ""
    return NATIVE_NAMES.get(name, name) or None, message


def _refused(payload: bytes, field: str | None, reason: str, org_id: str | None) -> Refused:
    return Refused(payload, field, reason, org_id if org_id and ORG_ID.match(org_id) else None)


def _org_of(payload: bytes) -> str | None:
    try:
        return msgspec.json.decode(_subject.decode(payload)["subject"], type=str)
    except (msgspec.MsgspecError, RecursionError, KeyError):
        return None
