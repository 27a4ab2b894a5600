"""One canonical example per event type and version. It must decode for ever, so it is never changed once released."""

import json

import msgspec
import pytest
from contracts.export import EXAMPLES, NATIVE, SCHEMAS, schemas
from jsonschema import Draft202012Validator

from aragora.contracts import usage
from aragora.contracts.envelope import decode, event_types
from metering.ingest import StrictUsageRecorded

ADDED_SINCE = {
    "aragora.auth.MemberJoined.v1": {"invitation_id"},
    "aragora.billing.SubscriptionChanged.v1": {"payment_reference"},
}
"""Optional fields that a version got after its example was released. The example stays as it is, without them."""
DOMAIN_EVENTS = sorted(path.stem for path in EXAMPLES.glob("aragora.*.json") if path.stem != usage.USAGE_RECORDED)


def test_every_contract_has_an_example_and_a_schema():
    assert {path.stem for path in EXAMPLES.glob("*.json")} >= schemas().keys()
    assert {path.stem for path in SCHEMAS.glob("*.json")} == schemas().keys()


@pytest.mark.parametrize("name", DOMAIN_EVENTS)
def test_a_domain_event_decodes_and_comes_out_as_it_went_in(name):
    text = (EXAMPLES / f"{name}.json").read_text()
    envelope, event = decode(text)
    assert envelope.type == name
    if name in event_types():  # else an upcaster has made the latest version of it
        assert json.loads(envelope.to_json()) == json.loads(text)
        fields = json.loads(text)["data"]
        assert type(event).model_fields.keys() - fields.keys() == ADDED_SINCE.get(name, set())
        assert event.model_dump(mode="json", exclude_unset=True) == fields


@pytest.mark.parametrize("name", DOMAIN_EVENTS)
def test_consumers_ignore_what_a_later_producer_may_add(name):
    example = json.loads((EXAMPLES / f"{name}.json").read_text())
    later = example | {"laterattribute": 1, "data": example["data"] | {"later_field": [1]}}
    assert decode(json.dumps(later))[1] == decode(json.dumps(example))[1]


def test_usage_decodes_in_both_forms_to_the_same_and_comes_out_as_it_went_in():
    native_text = (EXAMPLES / f"{NATIVE}.json").read_bytes()
    bus_text = (EXAMPLES / f"{usage.USAGE_RECORDED}.json").read_bytes()
    native = msgspec.json.decode(native_text, type=usage.UsageEvent)
    recorded = msgspec.json.decode(bus_text, type=StrictUsageRecorded)
    assert (native.id, native.org_id, native.occurred_at) == (recorded.id, recorded.subject, recorded.time)
    assert usage.refusal(recorded, recorded.time) is None
    assert json.loads(msgspec.json.encode(native)) == json.loads(native_text)
    assert json.loads(msgspec.json.encode(recorded)) == json.loads(bus_text)
    flat = json.loads(native_text)
    for name in ("id", "org_id", "occurred_at"):
        del flat[name]
    assert flat == json.loads(bus_text)["data"]


def test_the_usage_examples_name_every_field():
    native = json.loads((EXAMPLES / f"{NATIVE}.json").read_text())
    assert native.keys() == set(usage.UsageEvent.__struct_fields__)


@pytest.mark.parametrize("name", sorted(schemas()))
def test_an_example_fits_its_schema(name):
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(json.loads((EXAMPLES / f"{name}.json").read_text()))
