"""Signatures, verified by the package that receivers use, not by our code."""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from notifier import signatures
from notifier.signatures import UnusableSecret

NEW, OLD, OTHER = (signatures.secret_text(bytes([number]) * 32) for number in (1, 2, 3))
BODIES = ["{}", '{"title":"Größe 🎉 \\u2028","n":"0.10"}', '{"a":"\\u0000"}', '{"long":"' + "x" * 100_000 + '"}']


@pytest.fixture
def now() -> datetime:
    """The package looks at the clock itself, minutes after these tests were collected."""
    return datetime.now(UTC)


@pytest.mark.parametrize("body", BODIES, ids=len)
def test_the_receivers_package_verifies_what_was_signed(now: datetime, body: str):
    sent = signatures.headers("msg_1", now, body, [NEW])
    assert Webhook(NEW).verify(body.encode(), sent) == json.loads(body)


@pytest.mark.parametrize("secret", [NEW, OLD])
def test_while_a_secret_is_rotated_either_verifies(now: datetime, secret: str):
    sent = signatures.headers("msg_1", now, "{}", [NEW, OLD])
    assert len(sent["webhook-signature"].split(" ")) == 2
    assert Webhook(secret).verify("{}", sent) == {}


def test_another_secret_body_id_or_time_does_not(now: datetime):
    sent = signatures.headers("msg_1", now, "{}", [NEW])
    stale = signatures.headers("msg_1", now - timedelta(minutes=6), "{}", [NEW])
    for secret, body, headers in (
        (OTHER, "{}", sent),
        (NEW, "{} ", sent),
        (NEW, "{}", {**sent, "webhook-id": "msg_2"}),
        (NEW, "{}", {**sent, "webhook-timestamp": str(int(now.timestamp()) + 1)}),
        (NEW, "{}", stale),
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, headers)


def test_the_example_of_the_specification():
    # https://github.com/standard-webhooks/standard-webhooks: the vector of its libraries' tests
    at, body = datetime.fromtimestamp(1614265330, UTC), '{"test": 2432232314}'
    sent = signatures.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", at, body, ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
    assert sent["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_an_event_has_one_id():
    assert signatures.message_id_of(UUID(int=255)) == "msg_000000000000000000000000000000ff"


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_abc", "whsec_ä", signatures.secret_text(b"x" * 23), "x" * 400])
def test_what_is_no_secret_says_how_to_make_one(secret: str):
    with pytest.raises(UnusableSecret, match="openssl rand"):
        signatures.key_of(secret)
