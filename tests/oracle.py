"""What usage must add up to, worked out a second time: plain Python and Decimal, with prices of its own.

Nothing here comes from the product's rating, fold or validation. `Workload` makes events from a seed and keeps count of
them; the product is right if its projections are equal to that count to the last digit.
"""

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, getcontext
from typing import Any
from zlib import crc32

getcontext().prec = 60

MILLION = Decimal(1_000_000)
MONTH_ENDS = [datetime(2026, 4, 30, 23, 59, 58, tzinfo=UTC), datetime(2026, 5, 31, 23, 59, 59, tzinfo=UTC)]
PARTITIONS = 16
MESSAGE_EVENTS = 500


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens, or per piece. `beside`: cached tokens come on top of `tokens_in`, not inside."""

    tokens_in: str = "0"
    tokens_out: str = "0"
    cached: str | None = None
    cache_write: str | None = None
    beside: bool = False
    reasoning_beside: bool = False
    search: str | None = None
    image: str | None = None


PRICES = {
    ("openai", "gpt-4o"): Price("2.50", "10.00", cached="1.25"),
    ("openai", "gpt-4o-mini"): Price("0.15", "0.60"),
    ("anthropic", "claude-sonnet-4"): Price("3.00", "15.00", cached="0.30", cache_write="3.75", beside=True),
    ("anthropic", "claude-opus-4"): Price("15.00", "75.00"),
    ("gemini", "gemini-2.5-pro"): Price("1.25", "10.00", reasoning_beside=True),
    ("tavily", "tavily-search"): Price(search="0.001"),
    ("stability", "stable-diffusion"): Price(image="0.04"),
}
"""From the price pages and both products' documents, as of January 2025."""
UNPRICED = ("acme-llm", "m-1")


@dataclass(frozen=True, slots=True)
class Event:
    """One usage event, as its publisher means it."""

    org_id: str
    id: str
    occurred_at: datetime
    event_type: str
    provider: str | None
    model: str | None
    user_id: str | None
    counts: Mapping[str, int]
    seconds: str | None = None
    cost_usd: str | None = None

    def json(self) -> bytes:
        """As CloudEvents carries it."""
        usage = {
            "event_type": self.event_type, "user_id": self.user_id, "provider": self.provider, "model": self.model,
            "seconds": self.seconds, "cost_usd": self.cost_usd, **self.counts,
        }  # fmt: skip
        return enveloped(self.org_id, self.id, self.occurred_at.isoformat(), usage)

    def cost(self) -> Decimal | None:
        """What it costs; None if nobody knows a price."""
        if self.cost_usd is not None:
            return Decimal(self.cost_usd)
        if self.provider is None or self.model is None:
            return Decimal(0)
        price = PRICES.get((self.provider, self.model))
        if price is None:
            return None
        count = Counter(self.counts)
        cached, written = count["tokens_cached"], count["tokens_cache_write"]
        plain_in = count["tokens_in"] - (0 if price.beside else cached + written)
        out = count["tokens_out"] + (count["tokens_reasoning"] if price.reasoning_beside else 0)
        per_million = (
            plain_in * Decimal(price.tokens_in)
            + cached * Decimal(price.cached or price.tokens_in)
            + written * Decimal(price.cache_write or price.tokens_in)
            + out * Decimal(price.tokens_out)
        )
        pieces = count["searches"] * Decimal(price.search or 0) + count["images"] * Decimal(price.image or 0)
        return per_million / MILLION + pieces


def enveloped(org_id: str, event_id: str, time: str, usage: Mapping[str, Any]) -> bytes:
    """A CloudEvent; what is None is left out."""
    envelope: dict[str, Any] = {
        "specversion": "1.0",
        "type": "aragora.metering.UsageRecorded.v1",
        "source": "/oracle",
        "id": event_id,
        "subject": org_id,
        "time": time.replace("+00:00", "Z"),
    }
    return json.dumps(envelope | {"data": {name: each for name, each in usage.items() if each is not None}}).encode()


SUMMED = (
    "tokens_in", "tokens_out", "tokens_cached", "tokens_cache_write", "tokens_reasoning", "tokens_audio_in",
    "tokens_audio_out", "requests", "searches", "images", "pages", "response_time_ms",
)  # fmt: skip

Row = dict[str, int | Decimal]


@dataclass
class Totals:
    """The projections that events must lead to."""

    daily: dict[tuple[str, ...], Row] = field(default_factory=dict)
    monthly: dict[tuple[str, ...], Row] = field(default_factory=dict)
    events: int = 0

    def add(self, event: Event) -> None:
        """Count an event once more."""
        self.events += 1
        cost, count = event.cost(), Counter(event.counts)
        names_nobody = event.provider is None and event.event_type != "api_call"
        both: Row = {
            "events": 1,
            "debates": 1 if event.event_type == "debate" else 0,
            "api_calls": 0 if names_nobody else count.get("requests", 1),
            "unpriced_events": 1 if cost is None else 0,
        }
        day: Row = both | {name: count[name] for name in SUMMED}
        day |= {
            "seconds": Decimal(event.seconds or 0),
            "cost_usd": cost or Decimal(0),
            "failed_events": 1 if count["status"] >= 400 else 0,
            "timed_events": 1 if "response_time_ms" in event.counts else 0,
        }
        tokens = count["tokens_in"] + count["tokens_out"]
        month: Row = both | {"total_tokens": tokens, "total_cost": cost or Decimal(0)}
        at = event.occurred_at.astimezone(UTC)
        who = (event.user_id or "", event.event_type, event.provider or "", event.model or "")
        _add(self.daily.setdefault((event.org_id, at.strftime("%Y-%m-%d"), *who), {}), day)
        _add(self.monthly.setdefault((event.org_id, at.strftime("%Y-%m")), {}), month)


def _add(row: Row, more: Row) -> None:
    for name, value in more.items():
        row[name] = row.get(name, 0) + value


@dataclass
class Workload:
    """Events to send, and what they must lead to.

    `totals` has every event but those in `versions`: their copies differ in time, and whichever comes first counts.
    """

    seed: int
    messages: list[tuple[str, bytes]] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)
    versions: dict[tuple[str, str], list[Event]] = field(default_factory=dict)
    bad: list[bytes] = field(default_factory=list)
    """Payloads that must become dead letters, and nothing else may."""
    sent: int = 0
    """Events in the messages: good, repeated and bad ones."""


def workload(seed: int, count: int, message_events: int = MESSAGE_EVENTS) -> Workload:
    """`count` events, one in twenty of them sent twice or more, with bad ones among them, shuffled and in messages."""
    rnd = random.Random(seed)
    made = Workload(seed)
    by_partition: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
    for number in range(count):
        event = _event(rnd, number)
        copies = [event]
        if rnd.random() < 0.05:
            copies, event = _copies(rnd, event)
        if any(copy.occurred_at != event.occurred_at for copy in copies):
            made.versions[event.org_id, event.id] = copies
        else:
            made.totals.add(event)
        by_partition[_partition(event.org_id)] += [copy.json() for copy in copies]
    for number in range(max(30, count // 5000)):
        org_id, payload = _bad(rnd, number)
        made.bad.append(payload)
        by_partition[_partition(org_id)] += [payload] * rnd.choice([1, 1, 2])
    made.sent = sum(map(len, by_partition))
    for partition, payloads in enumerate(by_partition):
        rnd.shuffle(payloads)
        made.messages += ((f"usage.recorded.{partition}", body) for body in _bodies(rnd, payloads, message_events))
    for number in range(5):
        made.bad.append(rnd.choice([b"\xff\xfe %d", b"{not json %d", b'"text %d"']) % number)
        made.messages.append((f"usage.recorded.{rnd.randrange(PARTITIONS)}", made.bad[-1]))
    rnd.shuffle(made.messages)
    return made


def _bodies(rnd: random.Random, payloads: list[bytes], message_events: int) -> Iterable[bytes]:
    position = 0
    while position < len(payloads):
        if rnd.random() < 0.1:
            alone = payloads[position]
            position += 1
            yield rnd.choice([alone, b"[" + alone + b"]"])
        else:
            group = payloads[position : position + message_events]
            position += message_events
            yield b"[" + b",".join(group) + b"]"


def _partition(org_id: str) -> int:
    return crc32(org_id.encode()) % PARTITIONS


def _event(rnd: random.Random, number: int) -> Event:
    org_id = f"org_{rnd.randrange(24)}"
    event_type, provider, model = "api_call", None, None
    counts: dict[str, int] = {}
    seconds = cost_usd = None
    kind = rnd.random()
    if kind < 0.06:
        event_type = "debate"
    elif kind < 0.75:
        provider, model = rnd.choice(list(PRICES)[:5])
        counts = {"tokens_in": rnd.randrange(1, 9000), "tokens_out": rnd.randrange(1, 3000)}
        if model in {"gpt-4o", "claude-sonnet-4"} and rnd.random() < 0.5:
            counts["tokens_cached"] = rnd.randrange(1, counts["tokens_in"] + 1)
        if model == "claude-sonnet-4" and rnd.random() < 0.3:
            counts["tokens_cache_write"] = rnd.randrange(1, 5000)
        if model == "gemini-2.5-pro" and rnd.random() < 0.5:
            counts["tokens_reasoning"] = rnd.randrange(1, 5000)
        if rnd.random() < 0.1:
            counts["requests"] = rnd.randrange(4)
    elif kind < 0.85:
        (provider, model), counts = ("tavily", "tavily-search"), {"searches": rnd.randrange(1, 9)}
    elif kind < 0.9:
        (provider, model), counts = ("stability", "stable-diffusion"), {"images": rnd.randrange(1, 5)}
    elif kind < 0.97:
        (provider, model), counts = ("in-house", f"m{rnd.randrange(3)}"), {"pages": rnd.randrange(1, 50)}
        cost_usd, seconds = f"0.{rnd.randrange(10**18):018d}", f"{rnd.randrange(900)}.{rnd.randrange(1000):03d}"
    else:
        (provider, model), counts = UNPRICED, {"tokens_in": rnd.randrange(1, 9000)}
    if rnd.random() < 0.6:
        counts |= {"status": rnd.choice([200, 200, 200, 429, 500]), "response_time_ms": rnd.randrange(1, 20_000)}
    moment = rnd.choice(MONTH_ENDS) + timedelta(milliseconds=rnd.randrange(-5 * 86_400_000, 5 * 86_400_000))
    user_id = f"user_{rnd.randrange(3)}" if rnd.random() < 0.9 else None
    return Event(org_id, f"e{number}", moment, event_type, provider, model, user_id, counts, seconds, cost_usd)


def _copies(rnd: random.Random, event: Event) -> tuple[list[Event], Event]:
    """An event and its retries: the same, with another timestamp, or in another month."""
    kind = rnd.randrange(3)
    if kind == 0:
        return [event] * rnd.choice([2, 2, 2, 3, 5]), event
    if kind == 1:
        return [event, replace(event, occurred_at=event.occurred_at + timedelta(seconds=rnd.randrange(1, 7200)))], event
    at_the_end = replace(event, occurred_at=rnd.choice(MONTH_ENDS))
    return [at_the_end, replace(event, occurred_at=at_the_end.occurred_at + timedelta(seconds=3))], at_the_end


def _bad(rnd: random.Random, number: int) -> tuple[str, bytes]:
    org_id, event_id, time = f"org_{rnd.randrange(24)}", f"bad{number}", "2026-05-03T12:00:00Z"
    usage: dict[str, Any] = {"event_type": "api_call", "user_id": f"bad{number}", "later": {"unknown": [number]}}
    wrong: list[dict[str, Any]] = [
        {"tokens_in": -1}, {"tokens_out": 2**53 + 1}, {"tokens_in": 1.5}, {"cost_usd": "NaN"}, {"event_type": None},
        {"metadata": [1]},
    ]  # fmt: skip
    kind = number % 12
    if kind < 6:
        usage |= wrong[kind]
    elif kind < 8:
        org_id = ["org.with.dots", ""][kind - 6]
    elif kind < 10:
        event_id = ["x" * 129, ""][kind - 8]
    else:
        time = ["2099-01-01T00:00:00Z", "2026-05-03T12:00:00"][kind - 10]
    return org_id, enveloped(org_id, event_id, time, usage)
