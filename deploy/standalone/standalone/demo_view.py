"""What the demo shows while it runs: one row per organization, and how fast it goes."""

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text


@dataclass(slots=True)
class Tally:
    """What was sent, and how it went."""

    accepted: int = 0
    retried: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Calls that were asked for and are past a limit, by organization: they never took place."""
    failed: str = ""
    """What the API said when it would not take the traffic at all; the demo then ends."""
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


@dataclass(frozen=True, slots=True)
class Standing:
    """An organization's totals, its plan, and how much of its limits is used, in percent by meter."""

    totals: dict[str, Any]
    plan: str
    used_percent: dict[str, float]

    def tightest(self) -> Text:
        """The limit that is nearest, such as `debates 90 %`: yellow from 80 % on, red at 100 %."""
        if not self.used_percent:
            return Text("none", "dim")
        meter, percent = max(self.used_percent.items(), key=lambda each: each[1])
        return Text(f"{meter} {percent:.0f} %", "red" if percent >= 100 else "yellow" if percent >= 80 else "green")


def standing(totals: dict[str, Any], dashboard: dict[str, Any] | None) -> Standing:
    """From the answers of the API; an organization that has no plan yet has no dashboard."""
    if dashboard is None:
        return Standing(totals, "", {})
    percentages = dashboard["current_usage"]["usage_percentages"].items()
    used = {meter: percent for meter, percent in percentages if percent is not None}
    return Standing(totals, dashboard["limits"]["plan_name"], used)


def view(tally: Tally, standings: dict[str, Standing], story: Sequence[str] = ()) -> Group:
    """The live table, and below it what has happened in the story."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in ("organization", "plan"):
        table.add_column(name)
    for name in ("debates", "events", "cost (USD)", "tightest limit", "refused"):
        table.add_column(name, justify="right")
    for org_id, standing in standings.items():
        totals = standing.totals
        table.add_row(
            org_id,
            standing.plan,
            f"{totals['total_debates']:,}",
            f"{totals['total_events']:,}",
            f"{Decimal(totals['total_cost']):,.4f}",
            standing.tightest(),
            f"{tally.refused[org_id]:,}",
        )
    table.add_section()
    cost = sum((Decimal(each.totals["total_cost"]) for each in standings.values()), Decimal(0))
    debates, events = (f"{total(standings, name):,}" for name in ("total_debates", "total_events"))
    table.add_row("all", "", debates, events, f"{cost:,.4f}", "", f"{tally.refused.total():,}")
    line = Text(f"{tally.rate():,.0f} events/s accepted", "bold")
    line.append(f"   answers p50 {tally.latency_ms(50):.0f} ms, p99 {tally.latency_ms(99):.0f} ms", "default")
    line.append(f"   sent {tally.accepted:,}", "default")
    if tally.retried:
        line.append(f"   tried again {tally.retried:,}", "yellow")
    told = [Text(""), *map(Text, story)] if story else []
    return Group(line, table, *told)


def total(standings: dict[str, Standing], name: str) -> int:
    """The sum of a figure over all organizations."""
    return sum(int(each.totals[name]) for each in standings.values())
