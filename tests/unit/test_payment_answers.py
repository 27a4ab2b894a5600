"""What people are told about their payments."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from billing.payment_answers import method_answer, preview_answer

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def card(month: int, year: int) -> dict[str, Any]:
    return {"type": "card", "card": {"brand": "visa", "last4": "4242", "exp_month": month, "exp_year": year}}


@pytest.mark.parametrize(
    ("month", "year", "status"),
    [
        (10, 2026, "failed"),  # past its last day
        (11, 2026, "expiring"),  # good to the end of this month
        (12, 2026, "ok"),  # 39 days and a half
        (12, 2030, "ok"),
        (1, 2020, "failed"),
    ],
)
def test_a_card_and_its_last_day(month: int, year: int, status: str):
    answer = method_answer(card(month, year), NOW, has_failed=False)
    assert (answer.status, answer.last4, answer.exp_month) == (status, "4242", month)


def test_a_failed_payment_says_so_whatever_the_card():
    assert method_answer(card(12, 2030), NOW, has_failed=True).status == "failed"
    assert method_answer(None, NOW, has_failed=True).status == "failed"
    assert method_answer(None, NOW, has_failed=False).status == "none"


def test_other_ways_to_pay_have_no_last_day():
    link = method_answer({"type": "link", "link": {"email": "ada@example.com"}}, NOW, has_failed=False)
    assert (link.status, link.brand, link.last4) == ("ok", "link", None)
    debit = method_answer({"type": "sepa_debit", "sepa_debit": {"last4": "3000"}}, NOW, has_failed=False)
    assert (debit.brand, debit.last4) == ("sepa_debit", "3000")


def invoice(amount_due: int, *amounts: int) -> dict[str, Any]:
    details = {"subscription_item_details": {"proration": True}}
    lines = [{"amount": amount, "description": "Some days", "parent": details} for amount in amounts]
    return {"currency": "usd", "amount_due": amount_due, "total": sum(amounts), "period_end": 1_790_000_000,
            "next_payment_attempt": None, "lines": {"data": lines}}  # fmt: skip


def test_a_preview_is_exact():
    seen = preview_answer("professional", invoice(10_033, -4_951, 14_984), invoice(29_900, 29_900))
    assert seen.amount_due_now == Decimal("100.33")
    assert seen.now is not None
    assert [line.amount for line in seen.now.lines] == [Decimal("-49.51"), Decimal("149.84")]
    assert seen.next.total == Decimal("299.00")
    assert preview_answer("starter", None, invoice(0, -500)).amount_due_now == 0
