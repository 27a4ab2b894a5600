"""What people are told about invoices and payments (wording.py). Pure."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from aragora.contracts import events
from aragora.contracts.envelope import DomainEvent
from notifier.domain import Notice
from notifier.phrases import day_words, money

BILLING = "/billing"
REMINDER_COUNTS_FOR = timedelta(hours=36)
"""A reminder that comes later than this is not sent: the next one says all that is needed."""


def _finalized(event: events.InvoiceFinalized) -> Notice:
    due, name = money(event.amount_due, event.currency), event.number or event.invoice_id
    when = (
        f"It is payable by {day_words(event.due_at)}." if event.due_at else "It is charged now; nothing is to be done."
    )
    return Notice(
        kind="invoice.finalized",
        severity="info",
        title=f"Your invoice {name}: {due}",
        message=when if event.amount_due else "Nothing is owed for it.",
        facts=(("Invoice", name), ("To pay", due), ("Of", day_words(event.finalized_at))),
        place=BILLING,
        quiet=not event.amount_due,
    )


def _succeeded(event: events.PaymentSucceeded) -> Notice:
    amount = money(event.amount, event.currency)
    return Notice(
        kind="payment.succeeded",
        severity="info",
        title=f"Paid: {amount}",
        message="Thank you. The invoice is paid in full.",
        facts=(("Invoice", event.invoice_id), ("Paid", amount), ("On", day_words(event.paid_at))),
        place=BILLING,
        quiet=not event.amount,
    )


def _failed(event: events.PaymentFailed) -> Notice:
    amount, until = money(event.amount, event.currency), day_words(event.grace_ends_at)
    return Notice(
        kind="payment.failed",
        severity="critical",
        title=f"A payment of {amount} did not go through",
        message=(
            f"Your plan goes on until {until}. Pay the invoice until then, with another card if need be, and nothing "
            "changes; otherwise the default plan follows."
        ),
        facts=(("Invoice", event.invoice_id), ("Amount", amount), ("The plan goes on until", until)),
        place=BILLING,
        topic=f"payment:{event.invoice_id}",
        topic_rank=0,
        stale_at=event.grace_ends_at,
    )


def _action_required(event: events.PaymentActionRequired) -> Notice:
    amount = money(event.amount, event.currency)
    return Notice(
        kind="payment.action_required",
        severity="critical",
        title=f"Your bank asks you to confirm a payment of {amount}",
        message="Open the invoice and confirm the payment there. Until then it is not paid.",
        facts=(("Invoice", event.invoice_id), ("Amount", amount)),
        place=BILLING,
    )


def _reminder(event: events.PaymentReminderDue) -> Notice:
    amount, until = money(event.amount, event.currency), day_words(event.grace_ends_at)
    title = f"Last reminder: {amount} are not paid" if event.is_last else f"Reminder: {amount} are not paid"
    return Notice(
        kind="payment.reminder",
        severity="critical" if event.is_last else "warning",
        title=title,
        message=f"Your plan ends on {until} if nobody pays the invoice. After that the default plan counts.",
        facts=(("Invoice", event.invoice_id), ("Amount", amount), ("The plan goes on until", until)),
        place=BILLING,
        # The failure itself was told on day 0.
        quiet=event.day == 0,
        topic=f"payment:{event.invoice_id}",
        topic_rank=event.day,
        stale_at=event.due_at + REMINDER_COUNTS_FOR,
    )


def _recovered(event: events.PaymentRecovered) -> Notice:
    return Notice(
        kind="payment.recovered",
        severity="info",
        title="Paid: all is well again",
        message="The payment that had failed has come. Your plan goes on as before.",
        facts=(("Invoice", event.invoice_id), ("On", day_words(event.recovered_at))),
        place=BILLING,
        topic=f"payment:{event.invoice_id}",
        topic_rank=1000,
    )


_WAIVED = {
    "voided": "The invoice was withdrawn.",
    "uncollectible": "The invoice was given up.",
    "cancelled": "The plan that it was for has ended.",
}


def _waived(event: events.PaymentWaived) -> Notice:
    return Notice(
        kind="payment.waived",
        severity="info",
        title="Nothing is owed any more",
        message=f"{_WAIVED[event.reason]} You need not pay it.",
        facts=(("Invoice", event.invoice_id),),
        place=BILLING,
        topic=f"payment:{event.invoice_id}",
        topic_rank=1000,
    )


def _expired(event: events.GracePeriodExpired) -> Notice:
    return Notice(
        kind="grace_period.expired",
        severity="critical",
        title="Your plan has ended: nobody paid in time",
        message="The default plan counts from now on, with its limits. Choose a plan and pay to have yours back.",
        facts=(("Invoice", event.invoice_id), ("On", day_words(event.expired_at))),
        place=BILLING,
        topic=f"payment:{event.invoice_id}",
        topic_rank=1000,
    )


def _refunded(event: events.PaymentRefunded) -> Notice:
    amount = money(event.refunded, event.currency)
    return Notice(
        kind="payment.refunded",
        severity="info",
        title=f"Refunded in all: {amount}",
        message="The money is on its way to where it came from. Banks take some days.",
        facts=(("Invoice", event.invoice_id), ("Refunded in all", amount)),
        place=BILLING,
    )


_DISPUTED = {
    "open": ("contests a payment", "If you did not expect that, tell us before your bank decides."),
    "won": ("takes back that it contested a payment", "The payment counts. Nothing is to be done."),
    "lost": ("has taken back a payment", "Your bank has decided. If you did not expect that, tell us."),
}


def _disputed(event: events.PaymentDisputed) -> Notice:
    amount, (what, message) = money(event.amount, event.currency), _DISPUTED[event.status]
    return Notice(
        kind="payment.disputed",
        severity="info" if event.status == "won" else "warning",
        title=f"The bank {what}: {amount}",
        message=message,
        facts=(("Dispute", event.dispute_id), ("Amount", amount)),
        place=BILLING,
    )


def _credited(event: events.CreditGranted) -> Notice:
    amount = money(event.amount, event.currency)
    return Notice(
        kind="credit.granted",
        severity="info",
        title=f"A credit of {amount}",
        message="It is taken off your next invoices.",
        facts=(("Amount", amount),),
        place=BILLING,
    )


WRITERS: Mapping[type[DomainEvent], Callable[[Any], Notice]] = {
    events.InvoiceFinalized: _finalized,
    events.PaymentSucceeded: _succeeded,
    events.PaymentFailed: _failed,
    events.PaymentActionRequired: _action_required,
    events.PaymentReminderDue: _reminder,
    events.PaymentRecovered: _recovered,
    events.PaymentWaived: _waived,
    events.GracePeriodExpired: _expired,
    events.PaymentRefunded: _refunded,
    events.PaymentDisputed: _disputed,
    events.CreditGranted: _credited,
}
