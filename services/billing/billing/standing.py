"""From what Stripe says to what it means here. Pure."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from billing.commands import Paid
from billing.invoice import Invoice, Line, Rule, Status
from billing.money import from_minor

Json = Mapping[str, Any]
PlanOf = Callable[[str | None], str | None]
"""The plan that one of Stripe's prices is for, or None."""

KEPT_PLAN = "kept_plan"
KEPT_UNTIL = "kept_until"
"""In a subscription's metadata: the plan that stays in force until then, although the price is the next one's."""

PAYS = frozenset({"active", "trialing"})
OWES = frozenset({"past_due", "unpaid"})
ENDED = frozenset({"canceled", "incomplete_expired"})


@dataclass(frozen=True, slots=True)
class StripeSubscription:
    """A subscription of Stripe's, as far as it matters here."""

    subscription_id: str
    customer_id: str
    status: str
    created_at: datetime
    price_id: str | None
    plan: str | None
    """None: the price is none that is known here."""
    current_period_start: datetime | None = None
    current_period_end: datetime | None = None
    cancel_at: datetime | None = None
    ended_at: datetime | None = None
    kept_plan: str | None = None
    kept_until: datetime | None = None

    @property
    def is_live(self) -> bool:
        """Whether it pays, or should."""
        return self.status in PAYS or self.status in OWES

    def kept(self, plan_ids: Collection[str], now: datetime) -> str | None:
        """The plan that stays in force although the price is the next one's; one that is none of ours is none."""
        is_kept = self.kept_plan in plan_ids and self.kept_until is not None and now < self.kept_until
        return self.kept_plan if is_kept else None


def subscription_of(said: Json, plan_of: PlanOf) -> StripeSubscription:
    """A subscription as Stripe says it."""
    items: list[Json] = said["items"]["data"]
    item = items[0] if items else {}
    price_id = (item.get("price") or {}).get("id")
    metadata = said.get("metadata") or {}
    period_end = _moment(item.get("current_period_end"))
    cancel_at = _moment(said.get("cancel_at"))
    if cancel_at is None and said.get("cancel_at_period_end"):
        cancel_at = period_end
    return StripeSubscription(
        subscription_id=said["id"],
        customer_id=_id(said["customer"]) or "",
        status=said["status"],
        created_at=moment(said["created"]),
        price_id=price_id,
        plan=plan_of(price_id),
        current_period_start=_moment(item.get("current_period_start")),
        current_period_end=period_end,
        cancel_at=cancel_at,
        ended_at=_moment(said.get("ended_at")),
        kept_plan=metadata.get(KEPT_PLAN) or None,
        kept_until=_written(metadata.get(KEPT_UNTIL)),
    )


def paying(
    subscriptions: Sequence[StripeSubscription], now: datetime, *, owing_counts: bool
) -> StripeSubscription | None:
    """The subscription whose plan is in force: the oldest that is live, and whose price is known.

    `owing_counts`: whether one that is not paid counts too, as it does while a grace period runs.
    """
    found = [
        one
        for one in subscriptions
        if one.plan is not None
        and (one.status in PAYS or (owing_counts and one.status in OWES))
        and (one.cancel_at is None or one.cancel_at > now)
    ]
    return min(found, key=lambda one: (one.created_at, one.subscription_id), default=None)


def paid_of(one: StripeSubscription | None, plan_ids: Collection[str], now: datetime) -> Paid | None:
    """What is in force by a subscription, and what follows it."""
    if one is None or one.plan is None:
        return None
    kept = one.kept(plan_ids, now)
    if kept is None:
        return Paid(one.subscription_id, one.plan, ends_at=one.cancel_at)
    return Paid(one.subscription_id, kept, ends_at=one.cancel_at, next_plan=one.plan, next_at=one.kept_until)


def invoice_of(said: Json, plan_of: PlanOf) -> Invoice:
    """An invoice as Stripe says it, with its payments."""
    currency = said["currency"]
    transitions = said.get("status_transitions") or {}
    parent = (said.get("parent") or {}).get("subscription_details") or {}
    starting, ending = said.get("starting_balance") or 0, said.get("ending_balance")
    credited = 0 if ending is None else ending - starting
    payments = (said.get("payments") or {}).get("data") or []
    intents = [(one.get("payment") or {}).get("payment_intent") for one in payments]
    status: Status = said.get("status") or "draft"
    return Invoice(
        invoice_id=said["id"],
        collected_by="stripe",
        status=status,
        created_at=moment(said["created"]),
        number=said.get("number"),
        currency=currency,
        subtotal=from_minor(said["subtotal"], currency),
        total=from_minor(said["total"], currency),
        credited=from_minor(credited, currency),
        amount_due=from_minor(max(0, said["amount_due"]), currency),
        amount_paid=from_minor(said["amount_paid"], currency),
        attempts=said.get("attempt_count") or 0,
        next_attempt_at=_moment(said.get("next_payment_attempt")),
        period_start=_moment(said.get("period_start")),
        period_end=_moment(said.get("period_end")),
        finalized_at=_moment(transitions.get("finalized_at")),
        due_at=_moment(said.get("due_date")),
        paid_at=_moment(transitions.get("paid_at")),
        subscription_id=_id(parent.get("subscription")),
        payment_intent_id=next((_id(one) for one in intents if one), None),
        needs_action=any(isinstance(one, Mapping) and one.get("status") == "requires_action" for one in intents),
        hosted_url=said.get("hosted_invoice_url"),
        pdf_url=said.get("invoice_pdf"),
        lines=tuple(_line(line, currency, plan_of) for line in said["lines"]["data"]),
    )


def _line(said: Json, currency: str, plan_of: PlanOf) -> Line:
    price_id = _id(((said.get("pricing") or {}).get("price_details") or {}).get("price"))
    unit = (said.get("pricing") or {}).get("unit_amount_decimal")
    parent = said.get("parent") or {}
    details = parent.get("subscription_item_details") or parent.get("invoice_item_details") or {}
    charge_id = (said.get("metadata") or {}).get("charge_id")
    plan = plan_of(price_id)
    rule: Rule = "other"
    if charge_id:
        rule = "overage"
    elif details.get("proration"):
        rule = "proration"
    elif plan is not None:
        rule = "plan"
    period = said.get("period") or {}
    return Line(
        line_id=said["id"],
        rule=rule,
        description=said.get("description") or "",
        amount=from_minor(said["amount"], currency),
        quantity=None if said.get("quantity") is None else Decimal(said["quantity"]),
        unit_amount=None if unit is None else Decimal(str(unit)) / from_minor_scale(currency),
        period_start=_moment(period.get("start")),
        period_end=_moment(period.get("end")),
        plan=plan,
        price_id=price_id,
        charge_id=charge_id,
    )


def from_minor_scale(currency: str) -> Decimal:
    """How many of the smallest unit make one: 100 cents."""
    return 1 / from_minor(1, currency)


def moment(seconds: int) -> datetime:
    """A moment as Stripe writes it."""
    return datetime.fromtimestamp(seconds, UTC)


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else moment(seconds)


def _written(text: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None


def _id(of: Any) -> str | None:
    """The id of an object that is there whole, or by its id only."""
    if isinstance(of, Mapping):
        of = of.get("id")
    return of if isinstance(of, str) else None
