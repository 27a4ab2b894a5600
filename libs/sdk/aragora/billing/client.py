"""The platform's HTTP API as the SDK needs it: hand over usage events, ask for a summary, ask about limits."""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import httpx

from aragora.contracts.usage import FieldError

DEFAULT_URL = "http://127.0.0.1:8000"
"""Where `aragora up` listens."""
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
_LIMITS_TIMEOUT = httpx.Timeout(5.0)
"""The platform decides within 2 seconds or says that it cannot, and somebody waits to begin."""


class PlatformUnavailable(Exception):
    """The platform does not answer, is overloaded, or is not what answers at this address. Try again later.

    `retry_after_seconds` is the pause that it asked for, if it did.
    """

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class NotAuthorized(Exception):
    """The platform refuses the key. Set `ARAGORA_API_KEY` to one that may do this for this organization."""


class RequestRefused(Exception):
    """The platform understood the request and refuses it; to repeat it unchanged is of no use.

    `status` is the HTTP status. `errors` names the events and fields at fault, where the platform named them.
    """

    def __init__(self, status: int, detail: str, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(f"refused with status {status}: {detail}")
        self.status = status
        self.detail = detail
        self.errors = errors


class PlatformClient:
    """A connection to the platform, reused between calls and safe from any thread.

    Args:
        base_url: where the platform is; by default `ARAGORA_URL`, else `http://127.0.0.1:8000`.
        api_key: a service key (`svc_…`) or a token; by default `ARAGORA_API_KEY`.

    Raises:
        ValueError: the address is not an http or https URL.
    """

    def __init__(self, base_url: str | None = None, api_key: str | None = None) -> None:
        self.base_url = (base_url or os.environ.get("ARAGORA_URL") or DEFAULT_URL).rstrip("/")
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"the platform's address must begin with http:// or https://, not {self.base_url!r}")
        key = api_key or os.environ.get("ARAGORA_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=self.base_url, headers=headers, timeout=_TIMEOUT)

    def post_events(self, events: list[bytes]) -> None:
        """Hand over a batch, each event as JSON, and return when the platform has all of them on disk.

        Raises:
            PlatformUnavailable: nothing is known about the batch; send it again, with the same ids.
            NotAuthorized: the key may not record usage.
            RequestRefused: none of the batch was taken.
        """
        body = b"[" + b",".join(events) + b"]"
        answer = self._ask("POST", "/api/usage/events", content=body, headers={"Content-Type": "application/json"})
        if answer.status_code != httpx.codes.ACCEPTED:
            raise self.not_the_platform(answer)

    def usage_summary(self, org_id: str, start: datetime, end: datetime) -> dict[str, Any]:
        """The organization's usage in the UTC days from that of `start` to that of `end`. Costs are `Decimal`.

        A moment without an offset is local time.

        Raises:
            PlatformUnavailable: no answer; try again later.
            NotAuthorized: the key may not read this organization's usage.
            RequestRefused: the organization or the range is not valid.
        """
        path = f"/api/usage/organizations/{quote(org_id, safe='')}/summary"
        answer = self._ask("GET", path, params={"start": _rfc3339(start), "end": _rfc3339(end)})
        body = _json(answer)
        if not isinstance(body, dict) or not isinstance(body.get("data"), dict):
            raise self.not_the_platform(answer)
        summary: dict[str, Any] = _with_decimal_costs(body["data"])
        return summary

    def ask_limits(self, path: str, question: bytes, org_id: str | None = None) -> httpx.Response:
        """Ask `/api/usage/` + `path` a question about limits. The answer is a good one, or the 429 of a limit.

        Raises:
            PlatformUnavailable: nobody said what is allowed. The same question may be asked again.
            NotAuthorized: the key may not ask this of this organization.
            RequestRefused: the question is wrong, or about something that is not there or is over.
        """
        params = {} if org_id is None else {"org_id": org_id}
        headers = {"Content-Type": "application/json"}
        return self._ask(
            "POST", f"/api/usage/{path}", content=question, params=params, headers=headers, timeout=_LIMITS_TIMEOUT
        )

    def not_the_platform(self, answer: httpx.Response) -> PlatformUnavailable:
        """What to raise for an answer that makes no sense."""
        return PlatformUnavailable(
            f"{answer.url} answered {answer.status_code}, which the platform never does; is ARAGORA_URL right?"
        )

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **request)
        except httpx.HTTPError as error:
            raise PlatformUnavailable(
                f"no answer from {self.base_url} ({type(error).__name__}: {error}); is it up, and is ARAGORA_URL right?"
            ) from error
        status = answer.status_code
        if answer.is_success:
            return answer
        body = _json(answer)
        problem: dict[str, Any] = body if isinstance(body, dict) else {}
        detail = str(problem.get("detail") or problem.get("title") or answer.reason_phrase)
        errors = _field_errors(problem.get("errors"))
        if status == httpx.codes.UNAUTHORIZED or (status == httpx.codes.FORBIDDEN and not errors):
            raise NotAuthorized(f"{self.base_url} refuses the key ({status}: {detail}); see ARAGORA_API_KEY")
        if status == httpx.codes.TOO_MANY_REQUESTS and "meter" in problem:  # a limit of the plan, not one on requests
            return answer
        if status == httpx.codes.TOO_MANY_REQUESTS or answer.is_server_error:
            raise PlatformUnavailable(f"{self.base_url} cannot take it now ({status}: {detail})", _retry_after(answer))
        # A proxy says 413 for the platform; any other refusal that is not in the platform's words is not its refusal.
        if status == httpx.codes.REQUEST_ENTITY_TOO_LARGE or (answer.is_client_error and "status" in problem):
            raise RequestRefused(status, detail, errors)
        raise self.not_the_platform(answer)


def _json(answer: httpx.Response) -> Any:
    try:
        return json.loads(answer.content, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None


def _field_errors(listed: Any) -> tuple[FieldError, ...]:
    """The entries that name an event; what else stands in the list is of no use here."""
    return tuple(
        FieldError(entry["index"], str(entry.get("field") or ""), str(entry.get("message") or "refused"))
        for entry in (listed if isinstance(listed, list) else [])
        if isinstance(entry, dict) and type(entry.get("index")) is int
    )


def _retry_after(answer: httpx.Response) -> float | None:
    """Seconds to wait (RFC 9110, 10.2.3: a number of seconds or a date); None if the header is absent or unreadable."""
    text = answer.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # TypeError: a date without a zone
        return None


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _with_decimal_costs(value: Any) -> Any:
    """The same JSON value, with every cost in it, which travels as a string, as a `Decimal`."""
    if isinstance(value, Mapping):
        return {
            name: Decimal(member)
            if isinstance(member, str) and name.endswith(("cost", "cost_usd"))
            else _with_decimal_costs(member)
            for name, member in value.items()
        }
    if isinstance(value, list):
        return [_with_decimal_costs(member) for member in value]
    return value
