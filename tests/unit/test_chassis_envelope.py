import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from aragora.contracts import envelope as envelopes
from aragora.contracts.envelope import DomainEvent, UnknownEventType, decode, envelope, subject_for, upcaster

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    text: str


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(envelopes, "_events", {})
    monkeypatch.setattr(envelopes, "_upcasters", {})


def declare(version: str = "v1") -> Any:
    class Paid(DomainEvent):
        type_name: ClassVar[str] = f"aragora.billing.Paid.{version}"
        amount_usd: Decimal
        lines: tuple[Line, ...] = ()

    return Paid


def sealed(event: DomainEvent) -> dict[str, Any]:
    return json.loads(envelope(event, org_id="org_1", occurred_at=NOW, correlation_id="c-1").to_json())


def test_it_is_a_cloudevent_whose_decimals_are_strings():
    outer = sealed(declare()(amount_usd=Decimal("0.10"), lines=(Line(text="a"),)))
    assert outer.pop("id")[14] == "7"  # UUIDv7
    assert outer == {
        "specversion": "1.0",
        "source": "/aragora/billing",
        "type": "aragora.billing.Paid.v1",
        "subject": "org_1",
        "time": "2026-03-01T12:00:00Z",
        "datacontenttype": "application/json",
        "correlationid": "c-1",
        "data": {"amount_usd": "0.10", "lines": [{"text": "a"}]},
    }


def test_it_survives_the_journey_and_unknown_fields_are_ignored_at_any_depth():
    event = declare()(amount_usd=Decimal("1.2300"), lines=(Line(text="a"),))
    outer = sealed(event)
    outer["newattribute"] = 1
    outer["data"]["new_field"] = 2
    outer["data"]["lines"][0]["new_field"] = 3
    _, decoded = decode(json.dumps(outer))
    assert decoded == event
    assert str(decoded.model_dump()["amount_usd"]) == "1.2300"


def test_producers_refuse_unknown_fields():
    with pytest.raises(ValidationError, match="amount_eur"):
        declare()(amount_usd=Decimal(1), amount_eur=Decimal(1))


def test_upcasters_chain_to_the_latest_version():
    outer = sealed(declare("v1")(amount_usd=Decimal(1)))
    envelopes._events.clear()
    latest = declare("v3")

    @upcaster("aragora.billing.Paid.v1")
    def in_cents(fields):
        return {"amount_cents": int(Decimal(fields["amount_usd"]) * 100)}

    @upcaster("aragora.billing.Paid.v2")
    def in_usd(fields):
        return {"amount_usd": str(Decimal(fields["amount_cents"]) / 100)}

    _, decoded = decode(json.dumps(outer))
    assert decoded == latest(amount_usd=Decimal(1))


def test_an_unknown_type_says_so():
    outer = sealed(declare()(amount_usd=Decimal(1)))
    envelopes._events.clear()
    with pytest.raises(UnknownEventType, match="older than the publisher"):
        decode(json.dumps(outer))


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b"\xff", b'{"specversion":"0.3"}'])
def test_what_is_no_envelope_is_a_validation_error(broken):
    with pytest.raises(ValidationError):
        decode(broken)


def test_a_type_is_declared_once_and_has_the_class_name():
    declare()
    with pytest.raises(TypeError, match="next version"):
        declare()
    with pytest.raises(TypeError, match="one name"):

        class Other(DomainEvent):
            type_name: ClassVar[str] = "aragora.billing.Paid.v2"

    with pytest.raises(ValueError, match="not an event type"):

        class Third(DomainEvent):
            type_name: ClassVar[str] = "Third"


def test_the_subject_has_service_event_and_organization_but_no_version():
    assert subject_for("aragora.billing.Paid.v7", "org_1") == "events.billing.Paid.org_1"
    for org_id in ("a.b", "*", ">", "", "a b", "x" * 65):
        with pytest.raises(ValueError, match="cannot be part of a subject"):
            subject_for("aragora.billing.Paid.v1", org_id)
