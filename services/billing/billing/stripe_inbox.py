"""The inbox of Stripe's webhooks: each event is kept once, by Stripe's id, without anything personal.

What is kept says that something changed and whose it is, no more: what it is now is asked of Stripe when the event is
followed. So the fields to keep are named, and whatever else Stripe sends, today or some day, is left out.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from aragora.chassis import sql
from aragora.chassis.sql import Connection
from billing.attention import raise_attention

queries = sql.load("billing", "sql/stripe.sql")

_FOLLOWED = re.compile(
    r"checkout\.session\.(completed|expired|async_payment_succeeded|async_payment_failed)"
    r"|customer\.(updated|deleted)"
    r"|customer\.subscription\.\w+"
    r"|invoice\.(?!upcoming\b)\w+"  # one that is to come is no invoice yet
    r"|charge\.(refunded|refund\.updated)"
    r"|charge\.dispute\.\w+"
    r"|refund\.\w+"
)
_KEPT = frozenset(
    [
        # what it is, and when
        "id", "object", "type", "status", "created", "livemode", "mode", "currency", "deleted",
        # what it belongs to
        "customer", "subscription", "invoice", "charge", "payment_intent", "latest_invoice", "price", "parent",
        "subscription_details", "client_reference_id", "metadata", "items", "data",
        # how much
        "amount", "amount_due", "amount_paid", "amount_refunded", "amount_remaining", "total", "subtotal", "balance",
        # how it stands
        "attempt_count", "attempted", "billing_reason", "collection_method", "next_payment_attempt", "payment_status",
        "current_period_start", "current_period_end", "cancel_at", "cancel_at_period_end", "canceled_at", "ended_at",
        "reason",
        # what we wrote on it ourselves
        "org_id", "plan", "price_id", "kept_plan", "kept_until", "kept_price", "charge_id", "month", "meter",
    ]
)  # fmt: skip
_PLAIN = re.compile(r"[A-Za-z0-9_.:+-]{1,255}")
"""What ids, states and moments are written with; no text, no address of a person or page is."""
_DEEPEST = 8
_LONGEST_LIST = 20
_LARGEST = 2**63


@dataclass(frozen=True, slots=True)
class Kept:
    """An event as it is kept. `reason`: why nothing will follow from it."""

    event_id: str
    type: str
    created_at: datetime
    object_id: str | None
    customer_id: str | None
    payload: str
    reason: Literal["other_account", "other_mode", "unknown_type", "no_object"] | None
    account: str | None = None


async def keep(conn: Connection, said: Mapping[str, Any], now: datetime, *, is_live: bool) -> bool:
    """Keep an event, unless it is kept already; returns whether it is new.

    Args:
        conn: a connection, in a transaction or not.
        said: the event, whole, as Stripe wrote it; whoever calls knows that it was Stripe. Its `id`, `type`, `created`,
            `livemode` and `data.object` are there, and of their types.
        now: when it was received.
        is_live: the mode of our key. What happened in the other mode is none of our business, and operators hear of it.
    """
    event = read(said, is_live=is_live)
    state = "pending" if event.reason is None else "ignored"
    async with conn.transaction():
        is_new = await conn.fetchval(
            queries.keep_event, event.event_id, event.type, event.created_at, now, event.object_id, event.customer_id,
            event.payload, state, event.reason,
        )  # fmt: skip
        if is_new and event.reason == "other_account":
            await raise_attention(conn, event.reason, event.account or event.event_id, now)
        if is_new and event.reason == "other_mode":
            await raise_attention(conn, event.reason, "live" if said["livemode"] else "test", now)
    return bool(is_new)


def is_followed(event_type: str) -> bool:
    """Whether something follows from events of this type."""
    return _FOLLOWED.fullmatch(event_type) is not None


def read(said: Mapping[str, Any], *, is_live: bool) -> Kept:
    """What is kept of an event, as Stripe wrote it."""
    about = said["data"]["object"]
    account = said.get("account")
    object_id = _id(about)
    is_customer = about.get("object") == "customer"
    reason: Literal["other_account", "other_mode", "unknown_type", "no_object"] | None = None
    if account is not None:
        reason = "other_account"  # those of one's own account name none
    elif said["livemode"] != is_live:
        reason = "other_mode"
    elif not is_followed(said["type"]):
        reason = "unknown_type"
    elif object_id is None:
        reason = "no_object"
    kept = {name: said[name] for name in ("id", "type", "created", "livemode")}
    return Kept(
        event_id=said["id"],
        type=said["type"],
        created_at=datetime.fromtimestamp(said["created"], UTC),
        object_id=object_id,
        customer_id=object_id if is_customer else _id(about.get("customer")),
        payload=msgspec.json.encode(kept | {"data": {"object": without_personal_data(about)}}).decode(),
        reason=reason,
        account=account if isinstance(account, str) and _PLAIN.fullmatch(account) else None,
    )


def without_personal_data(value: Any, depth: int = 0) -> Any:
    """A JSON value with nothing in it but ids, states, moments and amounts."""
    match value:
        case bool() | None:
            return value
        case int() if abs(value) < _LARGEST:
            return value
        case str() if _PLAIN.fullmatch(value):
            return value
        case dict() if depth < _DEEPEST:
            named = {name: value[name] for name in value if name in _KEPT}
            return {name: without_personal_data(each, depth + 1) for name, each in named.items()}
        case list() if depth < _DEEPEST:
            return [without_personal_data(each, depth + 1) for each in value[:_LONGEST_LIST]]
    return None


def _id(of: Any) -> str | None:
    """The id of an object that is there whole, or by its id only."""
    if isinstance(of, Mapping):
        of = of.get("id")
    return of if isinstance(of, str) and _PLAIN.fullmatch(of) else None
