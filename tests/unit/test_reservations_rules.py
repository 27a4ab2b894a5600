"""A reservation's life, decided: what is held, given back, and refused once it has ended."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from aragora.contracts.limits import Extend, Release, Reserve
from metering import reservations
from metering.limits import Account, Limit
from metering.reservations import (
    KeyReused,
    Ledger,
    LimitExceeded,
    Plan,
    Reservation,
    ReservationEnded,
    UnknownReservation,
    digest_of,
)

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
CALLS = Limit("api_calls", "organization", Decimal(3), "sum", "api_calls", None, None)
KEY = ("api_calls", "")


@pytest.fixture
def ledger() -> Ledger:
    return Ledger("org_a", Plan("free", 1, "Free"), Account([CALLS]), "2026-06")


def question(requests: int = 1, **more: Any) -> Reserve:
    return msgspec.convert({"operations": [{"provider": "openai", "requests": requests}], **more}, Reserve)


def reserve(ledger: Ledger, asked: Reserve, new_id: str, now: datetime = NOW) -> tuple[Reservation, bool]:
    reservation, _, repeated = reservations.reserve(ledger, asked, [None], now, new_id)
    return reservation, repeated


def test_what_is_held_counts_for_the_next_of_the_batch(ledger: Ledger):
    reserve(ledger, question(2), "r1")
    with pytest.raises(LimitExceeded) as refused:
        reserve(ledger, question(2), "r2")
    assert refused.value.short.used == 0
    assert refused.value.short.held == 2
    reserve(ledger, question(1), "r3")
    assert [one.id for one in ledger.opened] == ["r1", "r3"]
    assert ledger.account.held == {KEY: 3}


def test_a_key_is_the_same_reservation_for_the_same_body_only(ledger: Ledger):
    first, repeated = reserve(ledger, question(idempotency_key="k"), "r1")
    assert not repeated
    assert reserve(ledger, question(idempotency_key="k"), "r2") == (first, True)
    for other in (question(2, idempotency_key="k"), question(idempotency_key="k", user_id="ann"),
                  question(idempotency_key="k", ttl_seconds=61)):  # fmt: skip
        with pytest.raises(KeyReused, match="use a new key"):
            reserve(ledger, other, "r3")
    assert len(ledger.opened) == 1


def test_a_refused_key_may_be_used_again(ledger: Ledger):
    held, _ = reserve(ledger, question(3), "r1")
    with pytest.raises(LimitExceeded):
        reserve(ledger, question(idempotency_key="k"), "r2")
    reservations.release(ledger, Release(reservation_id=held.id), NOW)
    assert reserve(ledger, question(idempotency_key="k"), "r3")[0].id == "r3"


def test_the_digest_knows_no_organization_and_no_key():
    assert digest_of(question(org_id="a", idempotency_key="k")) == digest_of(question(org_id="b"))
    assert digest_of(question()) != digest_of(question(2))


def test_released_twice_is_released_once(ledger: Ledger):
    held, _ = reserve(ledger, question(3), "r1")
    for _ in range(2):
        assert reservations.release(ledger, Release(reservation_id=held.id), NOW).state == "released"
    assert len(ledger.released) == 1
    assert ledger.account.held == {KEY: 0}


@pytest.mark.parametrize(("month", "left"), [("2026-06", 1), ("2026-05", 3)])
def test_a_reservation_is_given_back_to_its_own_month(ledger: Ledger, month: str, left: int):
    ledger.account.held[KEY] = Decimal(3)
    ledger.know(Reservation("r1", "open", None, month, {KEY: Decimal(2)}, NOW + timedelta(seconds=1)))
    reservations.release(ledger, Release(reservation_id="r1"), NOW)
    assert ledger.account.held == {KEY: left}


def test_an_extension_counts_from_now(ledger: Ledger):
    reserve(ledger, question(ttl_seconds=60), "r1")
    later = NOW + timedelta(seconds=59)
    for ttl_seconds in (60, 1):
        extended = reservations.extend(ledger, Extend(reservation_id="r1", ttl_seconds=ttl_seconds), later)
        assert extended.expires_at == later + timedelta(seconds=ttl_seconds)


@pytest.mark.parametrize("state", ["settled", "released", "expired", "open"])
def test_what_has_ended_stays_ended(ledger: Ledger, state: str):
    """An open one too, whose time is up."""
    asked = question(idempotency_key="k")
    ledger.know(Reservation("r1", state, None, "2026-06", {}, NOW, "k", digest_of(asked)))
    shown = "expired" if state == "open" else state
    with pytest.raises(ReservationEnded, match=f"r1 is {shown}; reserve anew"):
        reservations.extend(ledger, Extend(reservation_id="r1", ttl_seconds=60), NOW)
    with pytest.raises(ReservationEnded, match=f"r1 is {shown}; use a new idempotency key"):
        reserve(ledger, asked, "r2")
    if state != "released":
        with pytest.raises(ReservationEnded, match=f"r1 is {shown}; there is nothing to release"):
            reservations.release(ledger, Release(reservation_id="r1"), NOW)
    assert not ledger.opened
    assert not ledger.released


def test_an_unknown_one_is_unknown(ledger: Ledger):
    for refused in (
        lambda: reservations.release(ledger, Release(reservation_id="r9"), NOW),
        lambda: reservations.extend(ledger, Extend(reservation_id="r9", ttl_seconds=1), NOW),
    ):
        with pytest.raises(UnknownReservation, match="r9; one that ended is forgotten after a day"):
            refused()
