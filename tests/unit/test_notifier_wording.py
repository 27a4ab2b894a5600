"""What people are told: of every event that the notifier hears, in words that fit, with exact amounts."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from contracts.schemas import example

from aragora.contracts import events, topology
from aragora.contracts.envelope import event_types, restore, subject_for
from notifier.kinds import KINDS
from notifier.phrases import amount_of, day_words, meter_words, money, month_words
from notifier.wording import notice_of

LETTERS = {"EmailVerificationRequested", "PasswordResetRequested", "MemberInvited"}
HEARD = [
    name
    for name, event in event_types().items()
    if subject_for(name, "x").removesuffix("x") + "*" in topology.NOTIFIER_EVENTS.filter_subjects
    and event.__name__ not in LETTERS
]
JULY = datetime(2026, 7, 1, tzinfo=UTC)


def test_every_subject_that_is_heard_is_an_events():
    assert len(HEARD) + len(LETTERS) == len(topology.NOTIFIER_EVENTS.filter_subjects)


@pytest.mark.parametrize("name", HEARD)
def test_every_event_that_is_heard_is_told_of(name):
    event = restore(name, example(name)["data"])
    notice = notice_of(event)
    assert notice is not None
    assert notice.kind in KINDS
    assert notice.title == notice.title.strip()
    assert 5 < len(notice.title) <= 90
    assert notice.message.endswith(".")
    assert "  " not in notice.message
    assert all(label and value for label, value in notice.facts)
    assert not {"None", "null", "{", "}"} & set(f"{notice.title} {notice.message}".split())
    assert notice.raw == example(name)["data"] | notice.raw


def test_every_kind_is_told_of_by_something():
    kinds = {notice.kind for name in HEARD if (notice := notice_of(restore(name, example(name)["data"])))}
    by_itself = {"endpoint.failing", "endpoint.disabled", "endpoint.test", "notification.undelivered"}
    assert kinds | by_itself | {name for name in KINDS if name.startswith("letter.")} == KINDS.keys()


def limit(**given: Any) -> events.LimitReached:
    fields = {
        "meter": "calls:gemini", "threshold_percent": 80, "month": "2026-06", "used": "8", "limit": "10",
        "resets_at": JULY,
    }  # fmt: skip
    return events.LimitReached.model_validate(fields | given)


def test_a_limit_is_told_with_what_is_used_and_until_when():
    notice = notice_of(limit())
    assert notice is not None
    assert notice.title == "80 % of the limit for calls to Gemini is used"
    assert notice.message.startswith("8 of 10 are used in June 2026.")
    assert (notice.severity, notice.provider, notice.threshold_percentage) == ("info", "gemini", 80)
    reached = notice_of(limit(threshold_percent=100, used="10", user_id="user_1"))
    assert reached is not None
    assert reached.title == "A member's limit for calls to Gemini is reached"
    assert "until 1 July 2026" in reached.message
    assert (reached.severity, reached.user_id) == ("critical", "user_1")
    assert reached.topic != notice.topic


def test_thresholds_of_one_limit_are_one_topic_and_the_highest_counts():
    found = [notice_of(limit(threshold_percent=percent)) for percent in (80, 90, 100)]
    assert len({notice.topic for notice in found if notice}) == 1
    assert [notice.topic_rank for notice in found if notice] == [80, 90, 100]


def failed() -> events.PaymentFailed:
    name = "aragora.billing.PaymentFailed.v1"
    return events.PaymentFailed.model_validate(example(name)["data"])


def test_nothing_is_mailed_twice():
    reminder = example("aragora.billing.PaymentReminderDue.v1")["data"]
    first = notice_of(events.PaymentReminderDue.model_validate(reminder | {"day": 0}))
    later = notice_of(events.PaymentReminderDue.model_validate(reminder | {"day": 3}))
    assert first is not None
    assert first.quiet
    assert later is not None
    assert not later.quiet
    changed = example("aragora.billing.SubscriptionChanged.v1")["data"]
    for reason, quiet in (("unpaid", True), ("cancelled", True), ("chosen", False)):
        notice = notice_of(events.SubscriptionChanged.model_validate(changed | {"reason": reason}))
        assert notice is not None
        assert notice.quiet is quiet


def test_a_failure_that_is_recovered_before_it_was_mailed_gives_way():
    name = "aragora.billing.PaymentRecovered.v1"
    recovered = notice_of(events.PaymentRecovered.model_validate(
        example(name)["data"] | {"invoice_id": failed().invoice_id}
    ))  # fmt: skip
    told = notice_of(failed())
    assert recovered is not None
    assert told is not None
    assert recovered.topic == told.topic
    assert recovered.topic_rank > told.topic_rank


@pytest.mark.parametrize(
    ("meter", "amount", "words"),
    [
        ("cost_usd", "40.00125", "$40.00125"),
        ("cost_usd", "50", "$50.00"),
        ("cost_usd", "1234567.5", "$1,234,567.50"),
        ("cost_usd", "0", "$0.00"),
        ("debates", "10", "10"),
        ("debates", "1E+3", "1,000"),
        ("exports", "2.50", "2.5"),
    ],
)
def test_amounts_are_exact(meter, amount, words):
    assert amount_of(meter, Decimal(amount)) == words


def test_words():
    assert money(Decimal(299), "usd") == "$299.00"
    assert money(Decimal("299.9"), "eur") == "299.90 EUR"
    assert meter_words("tokens:openai") == "tokens of OpenAI"
    assert meter_words("deep_research") == "deep research"
    assert day_words(date(2026, 7, 1)) == "1 July 2026"
    assert month_words("2026-12") == "December 2026"


@pytest.mark.parametrize(("status", "decided"), [("open", False), ("won", True), ("lost", True)])
def test_a_dispute_that_is_decided_asks_nobody_to_hurry(status, decided):
    said = events.PaymentDisputed.model_validate(
        {"dispute_id": "dp_1", "status": status, "amount": "29", "currency": "usd"}
    )
    notice = notice_of(said)
    assert notice is not None
    assert ("before your bank decides" in notice.message) != decided
