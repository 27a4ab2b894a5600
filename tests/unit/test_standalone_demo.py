import random
import time
from datetime import UTC, datetime

import msgspec
import pytest

from aragora.billing.pricebook import PriceBook
from aragora.contracts.usage import UsageEvent
from standalone import demo


def test_sample_events_are_valid_and_priced() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance, now = random.Random(seed), datetime.now(UTC)
    prices = PriceBook.load()
    seen = set()
    for _ in range(500):
        event = msgspec.convert(demo.sample_event(chance, now), UsageEvent, strict=False)
        rated = prices.rate(event, now)
        assert rated.cost_usd, (event.provider, event.model, rated.reason)
        seen.add((event.org_id, event.model))
    assert {org for org, _ in seen} == set(demo.ORGANIZATIONS)


def test_the_tally_knows_rate_and_percentiles(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = demo.Tally()
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
