"""Limits, before they are passed: ask whether a call is allowed, or hold what it will take.

limits = LimitsClient(org_id="org_123")
with limits.reserve(Operation(event_type="debate"), user_id="user_456") as held:
    ...  # the call itself
    tracker.record_event(org_id="org_123", event_type="debate", reservation_id=held.reservation_id)
"""

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec
from msgspec import Struct

from aragora.billing.client import NotAuthorized, PlatformClient, PlatformUnavailable, RequestRefused
from aragora.billing.limit_answers import (
    APIProvider,
    LimitCheck,
    LimitErrorResponse,
    LimitRefusal,
    LimitState,
    LimitsUndecided,
    UsageLimitExceededException,
    handle_usage_limit_error,
)
from aragora.contracts.ids import new_id
from aragora.contracts.limits import DEFAULT_TTL_SECONDS, CheckLimits, Operation, Reserve

__all__ = [
    "APIProvider",
    "LimitCheck",
    "LimitErrorResponse",
    "LimitRefusal",
    "LimitState",
    "LimitsClient",
    "LimitsUndecided",
    "NotAuthorized",
    "Operation",
    "PlatformUnavailable",
    "RequestRefused",
    "Reservation",
    "UsageLimitExceededException",
    "handle_usage_limit_error",
]

_log = logging.getLogger("aragora.billing")
_Answer = TypeVar("_Answer")


class _Reserved(Struct, kw_only=True):
    reservation_id: str | None
    org_id: str | None
    expires_at: datetime | None
    limits: tuple[LimitState, ...] = ()
    undecided: bool = False


class _Ended(Struct):
    state: str


@dataclass(slots=True)
class Reservation:
    """What is held for a call, until a usage event names `reservation_id`, it is released, or `expires_at`.

    As a context manager, plain or `async`, it is released if an exception leaves the block. `undecided`: nobody could
    tell whether it fits, and such are let through; then nothing is held and `reservation_id` is None.
    """

    reservation_id: str | None
    org_id: str | None
    expires_at: datetime | None
    limits: tuple[LimitState, ...]
    """As they stand with it held."""
    undecided: bool
    _client: "LimitsClient" = field(repr=False)

    def release(self) -> None:
        """Give back what is held. Raises what `LimitsClient.release` does."""
        if self.reservation_id is not None:
            self._client.release(self.reservation_id, org_id=self.org_id)

    def extend(self, ttl_seconds: int) -> None:
        """Keep it for `ttl_seconds` from now. Raises what `LimitsClient.extend` does."""
        if self.reservation_id is not None:
            self.expires_at = self._client.extend(self.reservation_id, ttl_seconds, org_id=self.org_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            return
        try:
            self.release()
        except (PlatformUnavailable, NotAuthorized, RequestRefused) as trouble:
            # The caller must hear of what went wrong in the block; what is held still expires.
            _log.warning("reservation %s was not released: %s", self.reservation_id, trouble)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, traceback)


class LimitsClient:
    """Questions about limits, answered by the platform. Safe from any thread; in `asyncio` use `asyncio.to_thread`.

    Args:
        org_id: whose limits, where a question does not say. A service key must say so in one place or the other.
        base_url: where the platform is; by default `ARAGORA_URL`, else `http://127.0.0.1:8000`.
        api_key: a service key (`svc_…`) or a token; by default `ARAGORA_API_KEY`.
        fail_open: let calls through that nobody can decide on, instead of raising `LimitsUndecided`.

    Raises:
        ValueError: the address is not an http or https URL.
    """

    def __init__(
        self,
        org_id: str | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        fail_open: bool = False,
    ) -> None:
        self._org_id = org_id
        self._fail_open = fail_open
        self._platform = PlatformClient(base_url, api_key)

    def check(self, *operations: Operation, user_id: str | None = None, org_id: str | None = None) -> LimitCheck:
        """Would all of these be allowed now, for the organization and for this person? Holds nothing.

        Raises:
            LimitsUndecided, NotAuthorized: see there.
            RequestRefused: an operation is wrong (422), or nobody has said what the organization may do (404).
        """
        question = CheckLimits(operations=list(operations), org_id=org_id or self._org_id, user_id=user_id)
        return self._decide("limits/check", question, LimitCheck) or LimitCheck(allowed=True, undecided=True)

    def reserve(
        self,
        *operations: Operation,
        user_id: str | None = None,
        org_id: str | None = None,
        ttl_seconds: int = DEFAULT_TTL_SECONDS,
        idempotency_key: str | None = None,
    ) -> Reservation:
        """Hold what these will take, of every limit that they touch or of none.

        Under an `idempotency_key` of your own the same request is the same reservation, however often it is made.

        Raises:
            UsageLimitExceededException: a limit is short.
            LimitsUndecided, NotAuthorized: see there.
            RequestRefused: as for `check`; or the key belongs to another request or to a reservation that ended (409).
        """
        question = Reserve(
            operations=list(operations),
            org_id=org_id or self._org_id,
            user_id=user_id,
            ttl_seconds=ttl_seconds,
            idempotency_key=idempotency_key or str(new_id()),
        )
        held = self._decide("reservations", question, _Reserved) or _Reserved(
            reservation_id=None, org_id=question.org_id, expires_at=None, undecided=True
        )
        return Reservation(**msgspec.structs.asdict(held), _client=self)

    def release(self, reservation_id: str, *, org_id: str | None = None) -> None:
        """Give back what a reservation holds: its call did not take place. To release twice is to release once.

        Raises:
            PlatformUnavailable: it may still be held; try again, or let it expire.
            NotAuthorized: the key may not do this.
            RequestRefused: it is unknown (404), or was settled or has expired (409).
        """
        self._ask(f"reservations/{quote(reservation_id, safe='')}/release", {}, _Ended, org_id or self._org_id)

    def extend(self, reservation_id: str, ttl_seconds: int, *, org_id: str | None = None) -> datetime | None:
        """Keep a reservation for `ttl_seconds` from now. Returns when it will expire. Raises what `release` does."""
        path = f"reservations/{quote(reservation_id, safe='')}/extend"
        return self._ask(path, {"ttl_seconds": ttl_seconds}, _Reserved, org_id or self._org_id).expires_at

    async def enforce_usage_limits(
        self,
        user_id: str,
        provider: APIProvider | str,
        tokens_requested: int | None = None,
        *,
        model: str | None = None,
        event_type: str = "api_call",
        org_id: str | None = None,
    ) -> tuple[bool, str, dict[str, Any]]:
        """Whether a call may proceed, what to tell people if not, and where each limit that it touches stands.

        `tokens_requested` None or 0: not known. Between this and the call others may use what is left; to be sure of
        it, `reserve`.

        Raises:
            LimitsUndecided, NotAuthorized, RequestRefused: as for `check`.
        """
        operation = Operation(
            event_type=event_type, provider=str(provider), model=model, tokens=tokens_requested or None
        )
        found = await asyncio.to_thread(self.check, operation, user_id=user_id, org_id=org_id)
        return found.allowed, found.message or "", msgspec.to_builtins(found, builtin_types=(Decimal, datetime))

    def close(self) -> None:
        """Close the connection, as the end of a `with` does. What is held stays so until it expires."""
        self._platform.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _decide(self, path: str, question: CheckLimits | Reserve, answer_type: type[_Answer]) -> _Answer | None:
        """None: nobody could tell, and such are let through."""
        try:
            return self._ask(path, question, answer_type)
        except PlatformUnavailable as error:
            if self._fail_open:
                _log.warning("nobody can say whether this is within the limits, so it is let through: %s", error)
                return None
            message = f"nobody can say whether this is within the limits, so treat it as refused: {error}"
            raise LimitsUndecided(message, error.retry_after_seconds) from error

    def _ask(self, path: str, question: Any, answer_type: type[_Answer], org_id: str | None = None) -> _Answer:
        content = msgspec.json.encode(question)
        try:
            answer = self._platform.ask_limits(path, content, org_id)
        except PlatformUnavailable:
            # An idle connection may have ended meanwhile. Every one of these questions may be asked twice.
            answer = self._platform.ask_limits(path, content, org_id)
        try:
            if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
                raise UsageLimitExceededException(msgspec.json.decode(answer.content, type=LimitRefusal))
            return msgspec.json.decode(answer.content, type=answer_type)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise self._platform.not_the_platform(answer) from error
