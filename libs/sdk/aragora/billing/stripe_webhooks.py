"""Is this webhook from Stripe, and what does it say: the signature and the reading of an event.

Nothing here reads the environment or a clock, and none of Stripe's own SDK is loaded. The scheme is Stripe's v1
(docs.stripe.com/webhooks#verify-manually): an HMAC-SHA256 with the endpoint's secret over the time, a dot and the body.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NoReturn

TOLERANCE_SECONDS = 300
"""How far the time of a signature may be from now. It is the default of Stripe's own libraries."""
_TIME = re.compile(r"[0-9]{1,12}")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_LAST_SECOND = 253_402_300_799  # of the year 9999, as far as a datetime goes
_NAME = re.compile(r"[!-~]{1,255}")  # ids and types are keys of tables and parts of subjects: visible ASCII only


class WebhookSignatureError(ValueError):
    """The request was not signed by Stripe for this endpoint at this time: answer 400 and keep nothing of it.

    `reason` is `missing`, `malformed`, `wrong`, `too_old` or `too_new`.
    """

    def __init__(self, reason: Literal["missing", "malformed", "wrong", "too_old", "too_new"], message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class WebhookEventData:
    """What a webhook event is about: Stripe's object as it was at that moment, in plain JSON values."""

    object: dict[str, Any] = field(repr=False)  # may hold names and addresses

    @property
    def metadata(self) -> dict[str, str]:
        """What the operator attached to the object, `org_id` for one. Empty if it carries none."""
        attached = self.object.get("metadata")
        return {name: text for name, text in attached.items() if isinstance(text, str)} if attached else {}


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """An event that Stripe signed. Events arrive in any order, some twice, and some not at all.

    `id` names the event: the same id is the same event. `created` is the moment of the change. `livemode` is False in
    test mode. `account` is the connected account that it happened in, None for the operator's own.
    """

    id: str
    type: str
    created: datetime
    livemode: bool
    account: str | None
    data: WebhookEventData


def verify(
    payload: bytes,
    signature: str | None,
    secrets: Sequence[str],
    now: datetime,
    tolerance_seconds: int = TOLERANCE_SECONDS,
) -> WebhookEvent:
    """The event in `payload`, once it is certain that Stripe sent it, and lately.

    Args:
        payload: the body as it came. Parsed and written anew it has another signature.
        signature: the header `Stripe-Signature`.
        secrets: the endpoint's signing secrets (`whsec_…`). While one is rolled there are two; any of them will do.
        now: the time, with an offset.
        tolerance_seconds: how far from `now` the signature may have been made, in the past or the future.

    Raises:
        WebhookSignatureError: the signature is missing, malformed, of another secret or body, or of another time.
        ValueError: the body is no event, or the arguments give no secret or a time without an offset.
    """
    keys = [secret.encode("utf-8", "surrogatepass") for secret in secrets if secret.strip()]
    if not keys or now.utcoffset() is None:
        raise ValueError("verify needs a secret that is not blank, and a time with an offset")
    signed_at, candidates = _parts(signature)
    message = signed_at.encode() + b"." + payload
    expected = [hmac.new(key, message, hashlib.sha256).hexdigest() for key in keys]
    if not any(hmac.compare_digest(ours, theirs) for ours in expected for theirs in candidates):
        raise WebhookSignatureError(
            "wrong",
            "no signature in the header matches; give the body as it came, and the signing secret of this endpoint",
        )
    age_seconds = now.timestamp() - int(signed_at)
    if abs(age_seconds) > tolerance_seconds:
        raise WebhookSignatureError(
            "too_old" if age_seconds > 0 else "too_new",
            f"the signature is of {signed_at} (Unix time), over {tolerance_seconds} seconds from now; it was sent "
            "before, or the clock of this machine is wrong",
        )
    return _read(payload)


def _parts(signature: str | None) -> tuple[str, list[str]]:
    """The time and the v1 signatures of the header `t=…,v1=…,v1=…`; other schemes are passed over."""
    if not signature:
        raise WebhookSignatureError("missing", "there is no signature; give the request's header Stripe-Signature")
    pairs = [pair.strip().partition("=") for pair in signature.split(",")]
    times = [text for name, _, text in pairs if name == "t"]
    candidates = [text for name, _, text in pairs if name == "v1" and _SIGNATURE.fullmatch(text)]
    if len(times) != 1 or not _TIME.fullmatch(times[0]) or not candidates:
        raise WebhookSignatureError(
            "malformed", "Stripe-Signature must hold one time and a v1 signature: t=…,v1=…; give the header as it came"
        )
    return times[0], candidates


def _read(payload: bytes) -> WebhookEvent:
    try:
        event = json.loads(payload.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):  # the second: nested too deeply
        raise ValueError("the body is not JSON in UTF-8") from None
    match event:
        case {
            "id": str(event_id),
            "type": str(event_type),
            "created": int(created),
            "livemode": bool(livemode),
            "data": {"object": dict(about)},
        } if _NAME.fullmatch(event_id) and _NAME.fullmatch(event_type) and 0 <= created <= _LAST_SECOND:
            account = event.get("account")
            right = not isinstance(created, bool) and isinstance(account, str | None)
            if right and isinstance(about.get("metadata"), dict | None):
                moment = datetime.fromtimestamp(created, UTC)
                return WebhookEvent(event_id, event_type, moment, livemode, account, WebhookEventData(about))
    raise ValueError(
        "the body is no snapshot event of Stripe: that has id, type, created (Unix time), livemode and data.object"
    )


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
