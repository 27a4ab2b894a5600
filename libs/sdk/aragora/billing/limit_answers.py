"""What the platform answers about limits, and what a program answers to somebody who is at one."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from msgspec import Struct

from aragora.billing.client import PlatformUnavailable


class APIProvider(StrEnum):
    """Providers by name. Any other name, as a plain string, is metered as well."""

    GEMINI = "gemini"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    MISTRAL = "mistral"
    TAVILY = "tavily"
    SERPER = "serper"
    METAPHOR = "metaphor"
    FIRECRAWL = "firecrawl"
    STABILITY = "stability"


class LimitState(Struct, frozen=True, kw_only=True):
    """One limit that a question touches. `limit` None: unlimited; 0: none. `per`: "organization" or "user"."""

    meter: str
    per: str
    limit: Decimal | None
    used: Decimal
    held: Decimal
    """By open reservations."""
    requested: Decimal
    remaining: Decimal | None
    allowed: bool


class LimitCheck(Struct, frozen=True, kw_only=True):
    """Whether all of the operations would be allowed now. `undecided`: nobody could tell, and such are let through."""

    allowed: bool
    message: str | None = None
    """If not: which limit is short, and when it starts anew."""
    plan: str | None = None
    resets_at: datetime | None = None
    limits: tuple[LimitState, ...] = ()
    upgrade: dict[str, Any] | None = None
    """If not: the smallest plan that allows more, as `plan`, `name`, `limit`, `price_usd_per_month`."""
    undecided: bool = False


class LimitRefusal(Struct, frozen=True, kw_only=True):
    """Which limit is short, and how. Nothing is held."""

    message: str
    meter: str
    per: str
    used: Decimal
    held: Decimal
    limit: Decimal | None
    requested: Decimal
    resets_at: datetime
    retry_after_seconds: int
    """Until something may be given back: the next expiry of a reservation, or the end of the month."""
    upgrade: dict[str, Any] | None = None


class UsageLimitExceededException(Exception):
    """A limit is short, so nothing is held: do not make the call. `refusal` says which; the message is for people."""

    def __init__(self, refusal: LimitRefusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class LimitsUndecided(PlatformUnavailable):
    """The platform did not say whether there is enough left: treat the call as refused, and ask again later.

    `LimitsClient(fail_open=True)` lets such calls through instead.
    """


class LimitErrorResponse(NamedTuple):
    """What to answer over HTTP: `JSONResponse(status_code=error.status_code, content=error.content)`, or the like."""

    status_code: int
    content: dict[str, Any]


def handle_usage_limit_error(
    user_id: str,
    provider: APIProvider | str,
    limit_type: str,
    current_usage: int | Decimal,
    limit_value: int | Decimal,
) -> LimitErrorResponse:
    """The documented answer to somebody who is at a limit: status 429, `error` and `message`.

    `limit_type` is a meter, such as `api_calls` or `cost_usd`. Amounts that are not whole are strings in the answer, so
    that they stay exact.
    """
    used, limit = _as_json(current_usage), _as_json(limit_value)
    content = {
        "error": "Usage limit exceeded",
        "message": f"{used} of {limit} {limit_type} for {provider} are used this month. Wait for the next, or upgrade.",
        "user_id": user_id,
        "provider": str(provider),
        "limit_type": limit_type,
        "current_usage": used,
        "limit_value": limit,
    }
    return LimitErrorResponse(429, content)


def _as_json(amount: int | Decimal) -> int | str:
    return int(amount) if amount == int(amount) else f"{amount:f}"
