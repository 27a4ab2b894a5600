"""Which webhooks are Stripe's. Stripe's own SDK signs here, and is asked for its opinion."""

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import stripe
from hypothesis import example, given
from hypothesis import strategies as st

from aragora.billing.stripe_client import StripeConfigError, WebhookSignatureError, verify, verify_webhook_signature

SECRET, OTHER = "whsec_one", "whsec_other"
NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)
EVENT = {
    "id": "evt_1",
    "object": "event",
    "type": "checkout.session.completed",
    "created": int(NOW.timestamp()) - 2,
    "livemode": False,
    "data": {"object": {"id": "cs_1", "object": "checkout.session", "metadata": {"org_id": "org_123"}}},
}
BODY = json.dumps(EVENT).encode()
WRONG: list[dict[str, Any]] = [
    {"id": "absent"},
    {"id": ""},
    {"id": 5},
    {"id": "evt_\0"},
    {"id": "evt_" + "1" * 300},
    {"id": "\ud800"},
    {"type": "absent"},
    {"type": None},
    {"type": "invoice paid"},
    {"created": "absent"},
    {"created": True},
    {"created": -1},
    {"created": 10**15},
    {"created": "2026-03-31T12:00:00Z"},
    {"created": math.nan},
    {"livemode": "absent"},
    {"livemode": "false"},
    {"account": 7},
    {"data": "absent"},
    {"data": []},
    {"data": {"object": None}},
    {"data": {"object": {"metadata": "org_123"}}},
]


def signed(body: bytes, secret: str = SECRET, at: datetime = NOW) -> str:
    """The header that Stripe's SDK makes for it."""
    header = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, int(at.timestamp()))
    assert isinstance(header, str)
    return header


def v1(header: str) -> str:
    return header.partition(",")[2]


def refusal(body: bytes, signature: str | None, secrets=(SECRET,), now: datetime = NOW) -> str:
    with pytest.raises(WebhookSignatureError) as refused:
        verify(body, signature, secrets, now)
    assert not [secret for secret in secrets if secret in str(refused.value)]
    return refused.value.reason


def test_what_stripe_signed_is_read():
    event = verify(BODY, signed(BODY), [SECRET], NOW)
    assert (event.id, event.type, event.livemode, event.account) == ("evt_1", "checkout.session.completed", False, None)
    assert event.created == NOW - timedelta(seconds=2)
    assert event.data.metadata.get("org_id") == "org_123"
    assert event.data.object == {"id": "cs_1", "object": "checkout.session", "metadata": {"org_id": "org_123"}}


def test_an_event_is_shown_without_what_it_is_about():
    body = json.dumps(EVENT | {"data": {"object": {"customer_email": "user@example.com"}}}).encode()
    event = verify(body, signed(body), [SECRET], NOW)
    assert "user@example.com" not in repr(event)
    assert event.data.metadata == {}


@pytest.mark.parametrize("signature", [None, ""])
def test_no_signature(signature):
    assert refusal(BODY, signature) == "missing"


@pytest.mark.parametrize(
    "signature",
    [
        "nonsense",
        "t=1774958400",
        v1(signed(BODY)),
        "t=,v1=" + "0" * 64,
        "t=-5,v1=" + "0" * 64,
        "t=+1774958400,v1=" + "0" * 64,
        "t=١٢٣,v1=" + "0" * 64,
        "t=" + "9" * 5_000 + ",v1=" + "0" * 64,
        "t=1774958400,v1=é",
        "t=1774958400,v1=" + "F" * 64,
        "t=1774958400,v0=" + "0" * 64,
        "t=1774958400,t=1774958401,v1=" + "0" * 64,
        "t=1774958400\n,v1=" + "\udc80" * 64,
    ],
)
def test_a_malformed_signature(signature):
    assert refusal(BODY, signature) == "malformed"


@pytest.mark.parametrize(
    ("body", "signature"),
    [
        (BODY, signed(BODY, OTHER)),
        (BODY + b" ", signed(BODY)),
        (b"", signed(BODY)),
        (b"\xff\x00", signed(BODY)),
        (BODY, signed(BODY).replace("v1=", "v0=") + ",v1=" + "0" * 64),
        (BODY, signed(BODY).replace("t=1", "t=2")),
    ],
)
def test_a_signature_of_something_else(body, signature):
    assert refusal(body, signature) == "wrong"


def test_one_good_signature_among_several_is_enough():
    header = f"{signed(BODY, OTHER)}, {v1(signed(BODY))},v0=abc,v1=short,"
    assert verify(BODY, header, [SECRET], NOW).id == "evt_1"


def test_while_a_secret_is_rolled_both_are_good():
    for secret in (SECRET, OTHER):
        assert verify(BODY, signed(BODY, secret), [SECRET, OTHER], NOW).id == "evt_1"
    assert refusal(BODY, signed(BODY, "whsec_third"), [SECRET, OTHER]) == "wrong"


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_a_signature_of_these_minutes(seconds):
    assert verify(BODY, signed(BODY), [SECRET], NOW + timedelta(seconds=seconds)).id == "evt_1"


@pytest.mark.parametrize(("seconds", "reason"), [(301, "too_old"), (-301, "too_new"), (86_400 * 365, "too_old")])
def test_a_signature_of_another_time(seconds, reason):
    assert refusal(BODY, signed(BODY), now=NOW + timedelta(seconds=seconds)) == reason


def test_the_tolerance_can_be_chosen():
    late = NOW + timedelta(seconds=301)
    assert verify(BODY, signed(BODY), [SECRET], late, tolerance_seconds=301).id == "evt_1"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"not json",
        b"{",
        b"null",
        b"[]",
        b'"evt_1"',
        b"[" * 100_000,
        b'{"id": ' + b"9" * 5_000 + b"}",
        *(
            json.dumps({name: value for name, value in {**EVENT, **wrong}.items() if value != "absent"}).encode()
            for wrong in WRONG
        ),
    ],
)
def test_a_signed_body_that_is_no_event(body):
    # Signed byte for byte, as Stripe's SDK cannot sign what is not text.
    header = signed(body) if body.isascii() else "t=1,v1=" + "0" * 64
    with pytest.raises(ValueError, match=r"^(the body is no|no signature)"):
        verify(body, header, [SECRET], NOW)


def test_there_must_be_a_secret_and_a_time_zone():
    for secrets in ([], [""], [" "]):
        with pytest.raises(ValueError, match="secret"):
            verify(BODY, signed(BODY, ""), secrets, NOW)
    with pytest.raises(ValueError, match="offset"):
        verify(BODY, signed(BODY), [SECRET], NOW.replace(tzinfo=None))


headers = st.one_of(
    st.none(),
    st.text(),
    st.builds(
        "t={},v1={}".format, st.integers() | st.text(), st.text() | st.from_regex("[0-9a-f]{64}", fullmatch=True)
    ),
    st.text(alphabet="tv10=,abcdef ", max_size=200),
)


@given(st.binary(), headers, st.lists(st.text(), max_size=3))
def test_whatever_is_sent_is_refused_as_a_value(body, header, secrets):
    with pytest.raises(ValueError, match=r"."):
        verify(body, header, secrets, NOW)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text() | st.sampled_from(sorted(EVENT)), children),
)


@given(json_values | st.fixed_dictionaries(dict.fromkeys(EVENT, json_values)))
@example(EVENT)
def test_whatever_is_signed_is_an_event_or_a_refused_value(content):
    body = json.dumps(content).encode()
    try:
        event = verify(body, signed(body), [SECRET], NOW)
    except WebhookSignatureError:
        pytest.fail("it is signed")
    except ValueError:
        return
    assert (event.id, event.type) == (content["id"], content["type"])
    assert event.created.utcoffset() == timedelta()


@given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
def test_one_changed_byte_is_enough(position, difference):
    changed = bytearray(BODY)
    changed[position] ^= difference
    assert refusal(bytes(changed), signed(BODY)) == "wrong"


@given(st.lists(st.sampled_from([*signed(BODY).split(","), v1(signed(BODY, OTHER)), "t=5", "v0=1", ""]), max_size=5))
def test_nothing_is_accepted_that_stripes_own_library_refuses(parts):
    header = ",".join(parts)
    try:
        verify(BODY, header, [SECRET], NOW)
    except WebhookSignatureError:
        return
    stripe.WebhookSignature.verify_header(BODY, header, SECRET)


def test_the_documented_function_takes_its_secrets_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", f" {OTHER} , {SECRET},")
    now = datetime.now(UTC)
    for payload in (BODY, BODY.decode()):
        assert verify_webhook_signature(payload, signed(BODY, at=now)).data.metadata.get("org_id") == "org_123"
        assert verify_webhook_signature(payload, signed(BODY), now=NOW).id == "evt_1"
        with pytest.raises(WebhookSignatureError, match="over 300 seconds from now"):
            verify_webhook_signature(payload, signed(BODY))
    with pytest.raises(ValueError, match="no signature in the header matches"):
        verify_webhook_signature("\ud800", signed(BODY), now=NOW)


@pytest.mark.parametrize("text", [None, "", " , "])
def test_without_a_secret_nothing_is_verified(monkeypatch: pytest.MonkeyPatch, text):
    monkeypatch.delenv("STRIPE_WEBHOOK_SECRET", raising=False)
    if text is not None:
        monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", text)
    with pytest.raises(StripeConfigError, match=r"^STRIPE_WEBHOOK_SECRET is not set; set it to the signing secret"):
        verify_webhook_signature(BODY, signed(BODY))
