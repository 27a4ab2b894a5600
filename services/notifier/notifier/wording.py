"""What people are told of an event, in words: the title, a sentence or two, the facts, where to go next. Pure.

People and organizations are not named: whoever reads knows who they are, and the notifier's tables need not.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from aragora.contracts import events
from aragora.contracts.envelope import DomainEvent
from notifier import payment_wording
from notifier.domain import Notice
from notifier.phrases import amount_of, day_words, meter_words, month_words, provider_of, title_case

USAGE = "/usage"
ACCOUNT = "/account"


def notice_of(event: DomainEvent) -> Notice | None:
    """What people are told of an event; None where it is a letter, or nobody need know."""
    write = _WRITERS.get(type(event)) or payment_wording.WRITERS.get(type(event))
    return None if write is None else replace(write(event), raw=event.model_dump(mode="json"))


def _limit_reached(event: events.LimitReached) -> Notice:
    percent, meter = event.threshold_percent, meter_words(event.meter)
    limited = f"a member's limit for {meter}" if event.user_id else f"the limit for {meter}"
    used, limit = amount_of(event.meter, event.used), amount_of(event.meter, event.limit)
    resets, month = day_words(event.resets_at), month_words(event.month)
    if percent == 100:
        title = f"{limited[0].upper()}{limited[1:]} is reached"
        message = (
            f"{used} of {limit} are used in {month}. What goes beyond is refused until {resets}, or charged if the "
            "plan has a price for it. A higher plan lifts the limit at once."
        )
    else:
        title = f"{percent} % of {limited} is used"
        message = f"{used} of {limit} are used in {month}. At 100 % the plan refuses more, or charges for it."
    return Notice(
        kind="limit.reached",
        severity="critical" if percent == 100 else "warning" if percent == 90 else "info",
        title=title,
        message=message,
        facts=(
            ("Meter", meter), ("Used", used), ("Limit", limit), ("Month", month), ("Begins anew on", resets),
        ),
        place=USAGE,
        user_id=event.user_id,
        threshold_percentage=percent,
        provider=provider_of(event.meter),
        meter=event.meter,
        billing_period=event.month,
        topic=f"limit:{event.meter}:{event.user_id or ''}:{event.month}",
        topic_rank=percent,
        stale_at=event.resets_at,
    )  # fmt: skip


def _budget_exceeded(event: events.BudgetExceeded) -> Notice:
    spent, budget = amount_of("cost_usd", event.spent_usd), amount_of("cost_usd", event.budget_usd)
    whose = "A member's budget" if event.user_id else "The budget"
    return Notice(
        kind="budget.exceeded",
        severity="warning",
        title=f"{whose} for {month_words(event.month)} is exceeded",
        message=f"{spent} are spent, and {budget} were meant to be. Nothing is refused for it.",
        facts=(("Budget", event.budget_id), ("Spent", spent), ("Meant", budget), ("Month", month_words(event.month))),
        place=USAGE,
        user_id=event.user_id,
        meter="cost_usd",
        billing_period=event.month,
    )


def _unpriced(event: events.UnpricedUsageSeen) -> Notice:
    what = " · ".join(part for part in (event.provider, event.model) if part) or "usage without a provider"
    return Notice(
        kind="usage.unpriced",
        severity="warning",
        title="Usage came that no price is known for",
        message=(
            f"Calls to {what} are counted in {month_words(event.month)}, and cost nothing so far. They are priced once "
            "somebody gives them a price."
        ),
        facts=(("Provider", event.provider or "not said"), ("Model", event.model or "not said")),
        place=USAGE,
        provider=event.provider,
        billing_period=event.month,
    )


def _anomaly(event: events.UsageAnomalySeen) -> Notice:
    used, usual = amount_of(event.meter, event.used), amount_of(event.meter, event.usual)
    return Notice(
        kind="usage.anomaly",
        severity="warning",
        title=f"Unusual {meter_words(event.meter)} on {day_words(event.day)}",
        message=(
            f"{used} on {day_words(event.day)} so far; on other days it was {usual} (the median of {event.days} days). "
            "If nobody expects that, look at which member or API key it comes from."
        ),
        facts=(("Meter", meter_words(event.meter)), ("So far", used), ("Usual", usual)),
        place=USAGE,
        meter=event.meter,
        billing_period=f"{event.day:%Y-%m}",
    )


_CAUSES = {
    "trial_ended": "The trial has ended.",
    "comp_ended": "The time free of charge has ended.",
    "period_ended": "The period that was paid for has ended.",
    "payment_ended": "Nobody pays for the plan before it any more.",
    "unpaid": "Nobody paid in time for the plan before it.",
    "operator": "Our support team has changed it.",
    "comp": "It is free of charge, by our support team.",
    "version_moved": "It is the current version of your plan.",
}


def _subscription_changed(event: events.SubscriptionChanged) -> Notice:
    plan, before = title_case(event.plan), title_case(event.from_plan)
    if event.at_period_end:
        title, message = f"The plan will be {plan}", f"{before} goes on until {day_words(event.effective_at)}."
    else:
        title = f"The plan is {plan} now"
        message = f"Before, it was {before}. " + _CAUSES.get(event.reason, "What it grants counts from now on.")
    return Notice(
        kind="subscription.changed",
        severity="info",
        title=title,
        message=message,
        facts=(("Plan", plan), ("Before", before), ("From", day_words(event.effective_at))),
        place=payment_wording.BILLING,
        # Of a cancellation and of a grace period that ran out there is a mail of their own.
        quiet=event.reason in ("unpaid", "cancelled"),
    )


def _subscription_cancelled(event: events.SubscriptionCancelled) -> Notice:
    plan, end = title_case(event.plan), day_words(event.ends_at)
    when = f"{plan} goes on until {end}; then the default plan follows" if event.at_period_end else f"{plan} has ended"
    return Notice(
        kind="subscription.cancelled",
        severity="warning",
        title=f"The plan {plan} is cancelled",
        message=f"{when}. Until it ends, it can be resumed." if event.at_period_end else f"{when}.",
        facts=(("Plan", plan), ("Ends on", end)),
        place=payment_wording.BILLING,
    )


def _account_locked(event: events.AccountLocked) -> Notice:
    return Notice(
        kind="account.locked",
        severity="warning",
        title="Your account is locked for a while",
        message=(
            f"Somebody gave {event.failures} wrong passwords or codes in a row. Nobody can sign in before "
            f"{event.until:%H:%M} UTC on {day_words(event.until)}. If it was not you, change your password then."
        ),
        place=ACCOUNT,
        user_id=event.user_id,
        stale_at=event.until + timedelta(hours=12),
    )


def _password_changed(event: events.PasswordChanged) -> Notice:
    how = "with a link that was mailed to you" if event.how == "reset" else "by somebody who was signed in"
    return Notice(
        kind="account.password_changed",
        severity="warning",
        title="Your password was changed",
        message=f"It was changed {how}. Everybody was signed out. If it was not you, set a new password at once.",
        place=ACCOUNT,
        user_id=event.user_id,
    )


def _second_factor_changed(event: events.SecondFactorChanged) -> Notice:
    now = "needs a code beside the password" if event.enabled else "needs no code beside the password any more"
    return Notice(
        kind="account.second_factor_changed",
        severity="warning",
        title="Signing in to your account has changed",
        message=f"From now on it {now}. If it was not you, set a new password at once.",
        place=ACCOUNT,
        user_id=event.user_id,
    )


def _attention(event: events.BillingAttentionNeeded) -> Notice:
    return Notice(
        kind="attention.needed",
        severity="critical",
        title=f"Billing needs a person: {event.kind.replace('_', ' ')}",
        message=f"It is about {event.reference}. docs/operations.md says what to do.",
        facts=(("About", event.reference), ("What", event.kind)),
        place="/operations",
    )


_WRITERS: Mapping[type[DomainEvent], Callable[[Any], Notice]] = {
    events.LimitReached: _limit_reached,
    events.BudgetExceeded: _budget_exceeded,
    events.UnpricedUsageSeen: _unpriced,
    events.UsageAnomalySeen: _anomaly,
    events.SubscriptionChanged: _subscription_changed,
    events.SubscriptionCancelled: _subscription_cancelled,
    events.AccountLocked: _account_locked,
    events.PasswordChanged: _password_changed,
    events.SecondFactorChanged: _second_factor_changed,
    events.BillingAttentionNeeded: _attention,
}
