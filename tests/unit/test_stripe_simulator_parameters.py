"""What the Stripe simulator reads from forms, and what it refuses: the names and types of the SDK's own parameters."""

from decimal import Decimal

import pytest
from stripe import params as of
from stripe.params import billing, checkout

from standalone.stripe_simulator.fields import merge_metadata
from standalone.stripe_simulator.parameters import checked, decoded
from standalone.stripe_simulator.problems import StripeProblem


def test_forms_are_nested():
    assert decoded("a[b]=1&c[0][d]=2&c[1][d]=3&e[]=4&e[]=5&f=&g=%C3%A9+%26") == {
        "a": {"b": "1"},
        "c": {"0": {"d": "2"}, "1": {"d": "3"}},
        "e": {"0": "4", "1": "5"},
        "f": "",
        "g": "é &",
    }


@pytest.mark.parametrize("text", ["a=1&a[b]=2", "a[b]=1&a=2", "a[0]=1&a[0][b]=2"])
def test_a_name_is_a_value_or_an_object(text: str):
    with pytest.raises(StripeProblem, match="both a value and an object"):
        decoded(text)


def test_values_get_the_types_that_the_sdk_declares():
    form = "items[0][id]=si_1&items[0][quantity]=2&cancel_at_period_end=true&metadata[org_id]=7&cancel_at=5"
    assert checked(decoded(form), of.SubscriptionUpdateParams) == {
        "items": [{"id": "si_1", "quantity": 2}],
        "cancel_at_period_end": True,
        "metadata": {"org_id": "7"},
        "cancel_at": 5,
    }
    item = checked(decoded("customer=c&unit_amount_decimal=0.35"), of.InvoiceItemCreateParams)
    assert item["unit_amount_decimal"] == Decimal("0.35")
    assert checked(decoded("created[gte]=5&types[]=a"), of.EventListParams) == {"created": {"gte": 5}, "types": ["a"]}


@pytest.mark.parametrize(
    ("form", "kind", "message", "code"),
    [
        ("itmes[0][id]=a", of.SubscriptionUpdateParams, "Received unknown parameter: itmes", "parameter_unknown"),
        ("items[0][prise]=a", of.SubscriptionUpdateParams, "unknown parameter: items[0][prise]", "parameter_unknown"),
        ("idempotency_key=a", of.SubscriptionCreateParams, "unknown parameter: idempotency_key", "parameter_unknown"),
        ("items=a", of.SubscriptionUpdateParams, "Invalid array", None),
        ("cancel_at_period_end=maybe", of.SubscriptionUpdateParams, "Invalid boolean: maybe", None),
        ("proration_behavior=later", of.SubscriptionUpdateParams, "must be one of always_invoice", None),
        ("limit=ten", of.CustomerListParams, "Invalid integer: ten", "parameter_invalid_integer"),
        ("amount=12.5", of.RefundCreateParams, "Invalid integer: 12.5", "parameter_invalid_integer"),
        ("unit_amount_decimal=NaN", of.InvoiceItemCreateParams, "Invalid decimal: NaN", None),
        ("email[a]=b", of.CustomerCreateParams, "Invalid string", None),
        ("metadata[a][b]=c", of.CustomerCreateParams, "Invalid object", None),
        ("event_name=a", billing.MeterEventCreateParams, "Missing required param: payload.", "parameter_missing"),
        ("line_items[0][quantity]=x", checkout.SessionCreateParams, "Invalid integer: x", "parameter_invalid_integer"),
    ],
)
def test_what_stripe_does_not_take_is_refused(form: str, kind: type, message: str, code: str | None):
    with pytest.raises(StripeProblem) as refused:
        checked(decoded(form), kind)
    assert message in str(refused.value)
    assert (refused.value.status, refused.value.code) == (400, code)
    assert refused.value.body()["error"]["type"] == "invalid_request_error"


def test_metadata_is_merged_and_an_empty_value_unsets():
    thing = {"metadata": {"a": "1", "b": "2"}}
    merge_metadata(thing, {"b": "", "c": "3"})
    assert thing == {"metadata": {"a": "1", "c": "3"}}
    merge_metadata(thing, "")
    assert thing == {"metadata": {}}
