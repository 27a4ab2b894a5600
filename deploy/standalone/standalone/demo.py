"""Live traffic of five sample organizations, sent through the real HTTP API."""

import asyncio
import random
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from aragora.contracts.ids import new_id

TICK_SECONDS = 0.1
LARGEST_BATCH = 250
SENDERS = 8


@dataclass(frozen=True, slots=True)
class Call:
    """A kind of call: what it is, how many tokens it takes (typically), and how often it is made."""

    event_type: str
    provider: str
    model: str
    tokens_in: int
    tokens_out: int
    weight: int


CALLS = (
    Call("debate", "anthropic", "claude-sonnet-4", 2400, 700, 20),
    Call("debate", "openai", "gpt-4o", 1900, 600, 15),
    Call("debate", "anthropic", "claude-opus-4", 3100, 900, 4),
    Call("api_call", "openai", "gpt-4o-mini", 900, 250, 25),
    Call("api_call", "gemini", "gemini-2.5-flash", 1500, 300, 20),
    Call("api_call", "gemini", "gemini-2.5-pro", 4200, 800, 6),
    Call("api_call", "mistral", "mistral-small-latest", 800, 200, 8),
    Call("api_call", "deepseek", "deepseek-chat", 1600, 500, 8),
)

ORGANIZATIONS = {
    "acme-robotics": ("amara", "boris", "chen", "dolores"),
    "borealis-law": ("edith", "farouk"),
    "cinder-games": ("gus", "hana", "ivo", "june", "kofi", "lena"),
    "delta-clinic": ("mina", "noor", "otis"),
    "echo-school": ("pia", "quentin", "rosa", "sami"),
}
_SHARES = (40, 10, 30, 8, 12)


def sample_event(chance: random.Random, now: datetime) -> dict[str, Any]:
    """One plausible usage event, in native form."""
    org_id = chance.choices(list(ORGANIZATIONS), _SHARES)[0]
    call = chance.choices(CALLS, [call.weight for call in CALLS])[0]
    tokens_in = round(chance.lognormvariate(0, 0.6) * call.tokens_in)
    event: dict[str, Any] = {
        "id": str(new_id()),
        "org_id": org_id,
        "user_id": chance.choice(ORGANIZATIONS[org_id]),
        "event_type": call.event_type,
        "provider": call.provider,
        "model": call.model,
        "tokens_in": tokens_in,
        "tokens_out": round(chance.lognormvariate(0, 0.5) * call.tokens_out),
        "status": 200,
        "response_time_ms": round(chance.lognormvariate(6.5, 0.5)),
        "occurred_at": now.isoformat(),
    }
    if call.event_type == "debate" and chance.random() < 0.5:
        event["tokens_cached"] = tokens_in // 3
    return event


@dataclass(slots=True)
class Tally:
    """What was sent, and how it went."""

    accepted: int = 0
    retried: int = 0
    refused: str = ""
    """What the API said when it refused; the demo then ends."""
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=500))
    recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=200))

    def add(self, events: int, seconds: float) -> None:
        """An accepted request."""
        self.accepted += events
        self.latencies.append(seconds)
        self.recent.append((time.monotonic(), events))

    def rate(self) -> float:
        """Accepted events per second, over the last five seconds."""
        since = time.monotonic() - 5
        recent = [(at, events) for at, events in self.recent if at >= since]
        return sum(events for _, events in recent) / max(0.5, time.monotonic() - recent[0][0]) if recent else 0.0

    def latency_ms(self, percent: int) -> float:
        """A percentile of the answer times, in milliseconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1000 if ordered else 0.0


async def run(url: str, key: str, *, rate: float, seconds: float | None, stop: asyncio.Event, console: Console) -> None:
    """Send `rate` events per second until the time is up or `stop` is set, then wait until all are counted.

    The seed of the traffic is random: it is a show, not a test.
    """
    tally, totals = Tally(), dict[str, dict[str, Any]]()
    headers = {"Authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=SENDERS + 2)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=10, limits=limits) as client:
        await _read_totals(client, totals)
        before = _total(totals, "total_events")
        watching = asyncio.create_task(_watch_totals(client, totals))
        try:
            with Live(_view(tally, totals), console=console, refresh_per_second=4, transient=False) as live:
                async for _ in _send(client, rate, seconds, stop, tally):
                    live.update(_view(tally, totals))
                while not stop.is_set() and _total(totals, "total_events") - before < tally.accepted:
                    await asyncio.sleep(TICK_SECONDS)
                    live.update(_view(tally, totals))
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    if not console.is_terminal:
        console.print()
    if tally.refused:
        console.print(Text(f"The API refused the traffic: {tally.refused}", "red"))
    console.print(f"{tally.accepted:,} events sent and counted in this run.")


async def _send(
    client: httpx.AsyncClient, rate: float, seconds: float | None, stop: asyncio.Event, tally: Tally
) -> Any:
    """Every tick, send what is due; yield after each. If the platform is slower than the rate, the rate gives way."""
    chance = random.Random()  # noqa: S311  traffic, not secrets
    started_at = time.monotonic()
    due = 0.0
    last = started_at
    sending: set[asyncio.Task[None]] = set()
    while not stop.is_set() and not tally.refused and (seconds is None or time.monotonic() - started_at < seconds):
        now = time.monotonic()
        due = min(due + (now - last) * rate, max(rate, LARGEST_BATCH))
        last = now
        while due >= 1 and len(sending) < SENDERS:
            # Single events and batches alike, as in life.
            size = min(int(due), chance.choice((1, 1, 10, LARGEST_BATCH)))
            due -= size
            moment = datetime.now(UTC)
            events = [sample_event(chance, moment) for _ in range(size)]
            sending.add(task := asyncio.create_task(_post(client, events, stop, tally)))
            task.add_done_callback(sending.discard)
        await asyncio.sleep(TICK_SECONDS if due < 1 else 0.005)
        yield
    await asyncio.gather(*sending)
    yield


async def _post(client: httpx.AsyncClient, events: list[dict[str, Any]], stop: asyncio.Event, tally: Tally) -> None:
    """Send until accepted. The ids stay the same, so trying again never counts twice."""
    while True:
        started_at = time.monotonic()
        try:
            answer = await client.post("/api/usage/events", json=events if len(events) > 1 else events[0])
        except httpx.TransportError:
            answer = None
        if answer is not None and answer.status_code == httpx.codes.ACCEPTED:
            tally.add(len(events), time.monotonic() - started_at)
            return
        if answer is not None and answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
            tally.refused = f"{answer.status_code} {answer.text[:500]}"
            return
        if stop.is_set():
            return
        tally.retried += 1
        await asyncio.sleep(1)


async def _read_totals(client: httpx.AsyncClient, totals: dict[str, dict[str, Any]]) -> None:
    for org_id in ORGANIZATIONS:
        answer = await client.get(f"/api/usage/organizations/{org_id}/summary")
        if answer.is_success:
            totals[org_id] = answer.json()["data"]


async def _watch_totals(client: httpx.AsyncClient, totals: dict[str, dict[str, Any]]) -> None:
    while True:
        try:
            await _read_totals(client, totals)
        except httpx.TransportError:
            totals.clear()
        await asyncio.sleep(0.5)


def _total(totals: dict[str, dict[str, Any]], name: str) -> int:
    return sum(int(data[name]) for data in totals.values())


def _view(tally: Tally, totals: dict[str, dict[str, Any]]) -> Group:
    table = Table("organization", "users", "debates", "events", "tokens", "cost (USD)", box=None, padding=(0, 2, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"
    for org_id, data in totals.items():
        table.add_row(
            org_id,
            str(len(data["by_user"])),
            f"{data['total_debates']:,}",
            f"{data['total_events']:,}",
            f"{data['total_tokens']:,}",
            f"{Decimal(data['total_cost']):,.4f}",
        )
    cost = sum((Decimal(data["total_cost"]) for data in totals.values()), Decimal(0))
    table.add_section()
    table.add_row(
        "all",
        "",
        *(f"{_total(totals, name):,}" for name in ("total_debates", "total_events", "total_tokens")),
        f"{cost:,.4f}",
    )
    line = Text(f"{tally.rate():,.0f} events/s accepted", "bold")
    line.append(f"   answers p50 {tally.latency_ms(50):.0f} ms, p99 {tally.latency_ms(99):.0f} ms", "default")
    line.append(f"   sent {tally.accepted:,}", "default")
    if tally.retried:
        line.append(f"   tried again {tally.retried:,}", "yellow")
    return Group(line, table)


async def until_interrupted(work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Do the work; Ctrl-C and SIGTERM set the event it gets."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await work(stop)
