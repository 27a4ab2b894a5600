"""Usage tracking: record what was used, durably and at once; read what it came to.

tracker = UsageTracker("usage.db")
tracker.record_event(org_id="org_123", event_type=UsageEventType.DEBATE, provider="anthropic",
                     model="claude-sonnet-4", tokens_in=1500, tokens_out=800)
"""

import atexit
import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack
from uuid import UUID

import msgspec

from aragora.billing.client import NotAuthorized, PlatformClient, PlatformUnavailable, RequestRefused
from aragora.billing.costs import UnknownPriceError, calculate_token_cost
from aragora.billing.delivery import Delivery
from aragora.billing.spool import Spool, SpoolUnavailable
from aragora.contracts.ids import new_id
from aragora.contracts.usage import USAGE_RECORDED, FieldError, InvalidUsage, UsageEvent, UsageRecorded, refusal

__all__ = [
    "InvalidUsage",
    "NotAuthorized",
    "PlatformUnavailable",
    "RefusedEvent",
    "RequestRefused",
    "SpoolUnavailable",
    "UnknownPriceError",
    "UsageEvent",
    "UsageEventType",
    "UsageTracker",
    "calculate_token_cost",
]

_SUMMARY_FLUSH_SECONDS = 5.0
# msgspec learns a type when it is used first, and crashes the interpreter if several threads are the first.
msgspec.json.Decoder(UsageEvent)
_FIELD = re.compile(r"(?:`\$\.|unknown field `|required field `)(\w+)")


class UsageEventType(StrEnum):
    """The event types that monthly totals count by name. Any other name, as a plain string, is recorded as well."""

    DEBATE = "debate"
    API_CALL = "api_call"


class MoreUsage(TypedDict, total=False):
    """The less common fields of `UsageEvent`, under the same names and with the same meaning.

    Amounts are exact: a `Decimal`, or a string such as "0.00125"; never a float.
    """

    tokens_cached: int
    tokens_cache_write: int
    tokens_reasoning: int
    tokens_audio_in: int
    tokens_audio_out: int
    requests: int | None
    searches: int | None
    images: int | None
    pages: int | None
    seconds: Decimal | str | int | None
    cost_usd: Decimal | str | int | None
    reservation_id: str | None
    endpoint: str | None
    method: str | None
    status: int | None
    response_time_ms: int | None


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """An event that the platform refused, and why.

    `event` holds the fields as they were sent; `field` is empty if the event as a whole is meant.
    """

    event: dict[str, Any]
    field: str
    reason: str
    refused_at: datetime


class UsageTracker:
    """Records usage in a local file and delivers it to the platform in the background, each event exactly once.

    Share one tracker between threads; several processes may use one file. Leave it with `close`, a `with` block or the
    end of the program; what is undelivered then stays in the file and is delivered by whoever opens it next.

    Args:
        path: the spool file; a relative one lies under `ARAGORA_DATA_DIR` (by default `.data`). On a local disk.
        base_url: where the platform is; by default `ARAGORA_URL`, else `http://127.0.0.1:8000`.
        api_key: by default `ARAGORA_API_KEY`.

    Raises:
        SpoolUnavailable: the file cannot be opened.
        ValueError: `base_url` is not an http or https URL.
    """

    def __init__(
        self, path: str | Path = "usage.db", *, base_url: str | None = None, api_key: str | None = None
    ) -> None:
        file = Path(os.environ.get("ARAGORA_DATA_DIR") or ".data", path).absolute()
        self._address = (base_url, api_key)
        self._client = PlatformClient(base_url, api_key)
        self._spool = Spool(file, in_forked_child=self._begin_anew)
        self._delivery = Delivery(self._spool, self._client)
        _open_trackers.add(self)
        try:
            if self._spool.first_position():
                self._delivery.wake()
        except SpoolUnavailable:
            self.close(0)
            raise

    def record_event(
        self,
        *,
        org_id: str,
        event_type: UsageEventType | str,
        user_id: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        tokens_in: int = 0,
        tokens_out: int = 0,
        metadata: Mapping[str, Any] | None = None,
        occurred_at: datetime | None = None,
        event_id: str | UUID | None = None,
        **more: Unpack[MoreUsage],
    ) -> UsageEvent:
        """Record that something was used; when this returns, the event is on disk. It does not wait for the platform.

        Args:
            org_id: the organization that pays.
            event_type: what was done; see `UsageEventType`.
            user_id: who did it.
            provider: whose model or service it was, e.g. "anthropic".
            model: the provider's name for the model.
            tokens_in: as the provider reports it.
            tokens_out: as the provider reports it.
            metadata: anything that JSON can say, up to 8 KiB.
            occurred_at: with an offset; by default now.
            event_id: an id of your own for work that may be repeated: the platform counts an id once per organization.
                Give `occurred_at` with it, so that the repeated event is the same. By default a new UUIDv7.
            **more: the other fields of `UsageEvent`.

        Returns:
            The event as recorded, with its id.

        Raises:
            InvalidUsage: the platform would refuse it; nothing was recorded.
            SpoolUnavailable: the file cannot be written; nothing was recorded.
        """
        now = datetime.now(UTC)
        fields: dict[str, Any] = {
            "id": str(event_id) if event_id is not None else str(new_id()),
            "org_id": org_id,
            "event_type": event_type.value if isinstance(event_type, UsageEventType) else event_type,
            "user_id": user_id,
            "provider": provider,
            "model": model,
            "tokens_in": tokens_in,
            "tokens_out": tokens_out,
            "occurred_at": now if occurred_at is None else occurred_at,
            **more,
        }
        if metadata is not None:
            fields["metadata"] = _metadata(metadata)
        event, encoded = _checked(fields, now)
        self._spool.append(encoded)
        self._delivery.wake()
        return event

    def get_usage_summary(self, org_id: str, start_date: datetime, end_date: datetime | None = None) -> dict[str, Any]:
        """What an organization used from `start_date` to `end_date` (by default now), as the platform counts it.

        The platform answers in whole UTC days, the first and the last included. A date without an offset is local time.
        Pending events are sent first, for at most 5 seconds; the platform counts them within another moment.

        Returns:
            `total_debates`, `total_tokens`, `total_cost` (USD, `Decimal`), `total_events` and the breakdowns that the
            platform gives, such as `by_provider`.

        Raises:
            PlatformUnavailable: no answer; try again later.
            NotAuthorized: the key may not read this organization's usage.
            RequestRefused: the organization or the range is not valid.
            SpoolUnavailable: the file cannot be read.
        """
        self._delivery.flush(_SUMMARY_FLUSH_SECONDS, patient=False)
        return self._client.usage_summary(org_id, start_date, end_date or datetime.now(UTC))

    def flush(self, timeout_seconds: float = 30.0) -> bool:
        """Wait until the platform has every event recorded before this call; False if the time is up first."""
        return self._delivery.flush(timeout_seconds)

    def pending(self) -> int:
        """How many events wait in the file for delivery."""
        return self._spool.count()

    def refused(self) -> list[RefusedEvent]:
        """The events that the platform refused, oldest first. They stay in the file until `retry_refused`."""
        return [
            RefusedEvent(json.loads(refused.pending.event), refused.field, refused.reason, moment)
            for refused, moment in self._spool.refusals()
        ]

    def retry_refused(self) -> int:
        """Send the refused events again, after you have removed the cause; returns how many they are."""
        count = self._spool.take_back_refused()
        self._delivery.wake()
        return count

    def close(self, timeout_seconds: float = 5.0) -> None:
        """Try for this long to deliver what is pending, then close the file. Repeating this does nothing."""
        if self not in _open_trackers:
            return
        _open_trackers.discard(self)
        deadline = time.monotonic() + timeout_seconds
        with suppress(SpoolUnavailable):  # a file that cannot be read was reported to whoever recorded
            self._delivery.flush(timeout_seconds, patient=False, leave_to_others=True)
        if self._delivery.stop(max(0.2, deadline - time.monotonic())):
            self._client.close()
        self._spool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin_anew(self) -> None:
        """In the child of a fork: the thread stayed behind, and the connection is the parent's."""
        self._client = PlatformClient(*self._address)
        self._delivery = Delivery(self._spool, self._client)


def _checked(fields: dict[str, Any], now: datetime) -> tuple[UsageEvent, bytes]:
    """The event that these fields make, and its JSON, under the rules of the platform's own edge."""
    for name in ("seconds", "cost_usd"):
        amount = fields.get(name)
        if type(amount) is int or isinstance(amount, Decimal):
            fields[name] = format(Decimal(amount), "f")
    try:
        event = msgspec.convert(fields, UsageEvent)
        recorded = UsageRecorded(
            id=event.id,
            subject=event.org_id,
            time=event.occurred_at,
            data=event,
            type=USAGE_RECORDED,
            source="sdk",
            specversion="1.0",
        )
        if wrong := refusal(recorded, now):
            raise InvalidUsage([FieldError(0, *wrong)])
        event.occurred_at = event.occurred_at.astimezone(UTC)
        return event, msgspec.json.encode(event)
    except msgspec.ValidationError as error:
        named = _FIELD.search(str(error))
        raise InvalidUsage([FieldError(0, named[1] if named else "", str(error))]) from error
    except UnicodeEncodeError as error:
        raise InvalidUsage([FieldError(0, "", f"holds text that is not Unicode: {error}")]) from error


def _metadata(metadata: Mapping[str, Any]) -> msgspec.Raw:
    try:
        return msgspec.Raw(json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidUsage([FieldError(0, "metadata", f"must be what JSON can say: {error}")]) from error


_open_trackers: set[UsageTracker] = set()


@atexit.register
def _close_all() -> None:
    for tracker in list(_open_trackers):
        tracker.close()
