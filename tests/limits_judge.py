"""What the desk may answer, by the oracle: each question of a batch is judged as if it came after the one before."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from limits_oracle import Organization, Reservation, month_of

from aragora.contracts.limits import CheckLimits, Extend, Release, Reserve
from metering.limit_answers import Checked, Ended, Exceeded, Reserved
from metering.limit_desk import Answer, Question
from metering.reservations import KeyReused, Refusal, ReservationEnded, UnknownOrganization, UnknownReservation


def judge(org: Organization, asked: Sequence[tuple[Question, Answer | Refusal]], now: datetime) -> None:
    """Hold the answers to questions that came together against the oracle, and let it follow."""
    if not org.revision:
        assert all(isinstance(answer, UnknownOrganization) for _, answer in asked)
        return
    org.expire(now)
    for question, answer in asked:
        if isinstance(question, Reserve):
            _reserve(org, question, answer, now)
        elif isinstance(question, CheckLimits):
            assert isinstance(answer, Checked)
            short = org.short_of(msgspec.to_builtins(question.operations), question.user_id, now)
            assert answer.allowed == (short is None), short
            soft = {(one.meter.name, one.per) for one in org.limits if one.overage is not None}
            assert all((one.overage is not None) == ((one.meter, one.per) in soft) for one in answer.limits)
        else:
            _release_or_extend(org, question, answer, now)


def _reserve(org: Organization, question: Reserve, answer: Answer | Refusal, now: datetime) -> None:
    operations = msgspec.to_builtins(question.operations)
    same = [question.user_id, question.ttl_seconds, operations]
    before = org.keys.get(question.idempotency_key or "")
    if before is not None:
        known = org.reservations[before[1]]
        if before[0] != same:
            assert isinstance(answer, KeyReused)
        elif known.state != "open":
            assert isinstance(answer, ReservationEnded)
        else:
            assert isinstance(answer, Reserved)
            assert (answer.reservation_id, answer.is_new) == (known.id, False)
        return
    short = org.short_of(operations, question.user_id, now)
    if short is not None:
        assert isinstance(answer, Exceeded), f"{short} is short"
        assert (answer.meter, answer.per) == (short.meter.name, short.per)
        return
    assert isinstance(answer, Reserved), answer
    assert answer.is_new
    assert answer.reservation_id is not None
    assert answer.expires_at is not None
    reservation = Reservation(
        answer.reservation_id, operations, question.user_id, month_of(now),
        expires_at=now + timedelta(seconds=question.ttl_seconds),
    )  # fmt: skip
    org.reservations[reservation.id] = reservation
    if question.idempotency_key:
        org.keys[question.idempotency_key] = same, reservation.id


def _release_or_extend(org: Organization, question: Release | Extend, answer: Answer | Refusal, now: datetime) -> None:
    known = org.reservations.get(question.reservation_id)
    if known is None:
        assert isinstance(answer, UnknownReservation)
    elif isinstance(question, Extend):
        if known.state == "open":
            assert isinstance(answer, Reserved)
            known.expires_at = now + timedelta(seconds=question.ttl_seconds)
            assert answer.expires_at == known.expires_at
        else:
            assert isinstance(answer, ReservationEnded)
    elif known.state in ("open", "released"):
        assert isinstance(answer, Ended)
        if known.state == "open":
            known.end("released", now)
    else:
        assert isinstance(answer, ReservationEnded)
