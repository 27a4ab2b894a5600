import base64
import io
import random
import time
from datetime import UTC, datetime

import msgspec
import pytest
from rich.console import Console
from standardwebhooks import Webhook

from aragora.billing.pricebook import PriceBook
from aragora.contracts.limits import Reserve
from aragora.contracts.usage import UsageEvent
from standalone import demo_sample
from standalone.demo_receiver import is_signed
from standalone.demo_view import Tally, standing, view


def test_sample_events_are_valid_and_priced() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance, now = random.Random(seed), datetime.now(UTC)
    prices = PriceBook.load()
    seen = set()
    for _ in range(2000):  # the smallest of the organizations makes one call in fifty
        sample = demo_sample.sample_event(chance, now)
        event = msgspec.convert(sample, UsageEvent, strict=False)
        asked = msgspec.convert(demo_sample.question(sample), Reserve)
        assert (asked.org_id, asked.user_id, asked.idempotency_key) == (event.org_id, event.user_id, event.id)
        rated = prices.rate(event, now)
        assert rated.cost_usd, (event.provider, event.model, rated.reason)
        seen.add((event.org_id, event.model))
    assert {org for org, _ in seen} == set(demo_sample.ORGANIZATIONS)


def test_the_demos_endpoint_takes_what_is_signed_rightly_and_lately() -> None:
    key = base64.b64encode(b"thirty-two bytes of a secret key").decode()
    secret, now, body = f"whsec_{key}", datetime.now(UTC).replace(microsecond=0), '{"type":"limit.reached"}'
    right = Webhook(secret).sign("msg_1", now, body)
    given = {
        "webhook-id": "msg_1",
        "webhook-timestamp": f"{now.timestamp():.0f}",
        "webhook-signature": f"v1,bm90IHRoaXMgb25l {right}",
    }
    assert is_signed(secret, given, body.encode(), now.timestamp())
    assert not is_signed(secret, given, body.encode() + b" ", now.timestamp())
    assert not is_signed(f"whsec_{base64.b64encode(b'x' * 32).decode()}", given, body.encode(), now.timestamp())
    assert not is_signed(secret, given, body.encode(), now.timestamp() + 400)
    for name in given:
        assert not is_signed(secret, {**given, name: ""}, body.encode(), now.timestamp())


def test_the_tally_knows_rate_and_percentiles(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = Tally()
    assert (tally.rate(), tally.latency_ms(99)) == (0.0, 0.0)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for second in range(1, 11):
        now += 1
        tally.add(100, second / 1000)
    now += 1
    assert tally.accepted == 1000
    assert tally.rate() == pytest.approx(100)
    assert [tally.latency_ms(percent) for percent in (50, 99)] == pytest.approx([6, 10])


def test_the_table_shows_the_limit_that_is_nearest() -> None:
    totals = {"total_debates": 9, "total_events": 12, "total_cost": "0.5"}
    dashboard = {
        "limits": {"plan_name": "Free"},
        "current_usage": {"usage_percentages": {"debates": 90.0, "cost": 31.5}},
    }
    tally = Tally()
    tally.refused["delta-clinic"] += 3
    shown = {"delta-clinic": standing(totals, dashboard), "echo-school": standing(totals, None)}
    printed = io.StringIO()
    Console(file=printed, width=100).print(view(tally, shown, ["A bakery has paid."]))
    lines = printed.getvalue().splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["delta-clinic", "Free", "9", "12", "0.5000", "debates", "90", "%", "3"],
        ["echo-school", "9", "12", "0.5000", "none", "0"],
        ["all", "18", "24", "1.0000", "3"],
        [],
        ["A", "bakery", "has", "paid."],
    ]
