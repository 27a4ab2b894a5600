"""The results, as a table to read, JSON to compare and a chart to look at."""

import json
import platform
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import psutil
from rich.table import Table

from standalone import machine
from standalone.bench.auth_measures import ACCOUNTS, PROBES_PER_SECOND, REPEATED_TOKENS, REVOCATIONS, REVOKED, TOKENS


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure. `holds` says whether it reaches `target`; None where there is none."""

    name: str
    value: float
    unit: str
    target: str = ""
    holds: bool | None = None

    @property
    def shown(self) -> str:
        """The value, with the digits that mean something."""
        digits = 0 if self.value >= 100 else 1 if self.value >= 10 else 2
        return f"{self.value:,.{digits}f} {self.unit}".strip()

    @property
    def verdict(self) -> str:
        """Whether the target was reached, in a word."""
        return {True: "yes", False: "**no**", None: ""}[self.holds]


@dataclass(frozen=True, slots=True)
class Report:
    """A run: on what, of what, and what came out. `curve` is (events in the log, events/s)."""

    day: date
    machine: str
    load: str
    figures: tuple[Figure, ...]
    curve: tuple[tuple[int, float], ...]
    raw_copy: float
    memory_mib: dict[str, float]


def this_machine() -> str:
    """The machine, as far as it can be told without naming it."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in _read("/proc/cpuinfo").splitlines()
            if line.startswith("model name")
        ),
        platform.processor() or platform.machine(),
    )
    memory = psutil.virtual_memory().total / 2**30
    software = f"{platform.system()}, Python {platform.python_version()}"
    return f"{machine.cores()} cores ({model}), {memory:.0f} GiB of memory, {software}"


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def table(report: Report) -> Table:
    """For the terminal."""
    shown = Table(title=f"{report.machine}\n{report.load}", title_justify="left")
    for column in ("figure", "measured", "target", "reached"):
        shown.add_column(column, justify="right" if column == "measured" else "left")
    for figure in report.figures:
        shown.add_row(figure.name, figure.shown, figure.target, figure.verdict.strip("*"))
    return shown


def write(report: Report, folder: Path) -> None:
    """Write benchmarks.md, benchmarks.json and benchmarks.svg into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmarks.json").write_text(json.dumps(asdict(report), indent=1, default=str) + "\n")
    (folder / "benchmarks.svg").write_text(_chart(report))
    (folder / "benchmarks.md").write_text(_markdown(report))


def _markdown(report: Report) -> str:
    rows = "\n".join(f"| {f.name} | {f.shown} | {f.target} | {f.verdict} |" for f in report.figures)
    memory = "\n".join(f"| {name} | {mib:,.0f} MiB |" for name, mib in sorted(report.memory_mib.items()))
    return f"""# Benchmarks

Written by `make bench` on {report.day}. Run it on your own machine: the ratios travel better than the absolute figures.

**Machine:** {report.machine}.
Publishers, NATS, Postgres, the API and the workers share these cores.

**Load:** {report.load}.
Messages of 500 events, as the edge makes them; Postgres with `fsync` and `synchronous_commit` on, NATS with
`sync_interval: always`.

| figure | measured | target | reached |
|---|---:|---|---|
{rows}

![Throughput as the log grows, beside raw COPY](benchmarks.svg)

## Memory

The largest resident set that each process had during the run; for Postgres, the largest backend without shared memory.

| process | peak |
|---|---:|
{memory}

## How it is measured

* **Sustained throughput**: one publisher process publishes to JetStream while the workers record; what counts is
  what is committed to `usage_monthly`, after a warm-up. The publisher may be {400_000:,} events ahead.
* **Raw COPY**: rows taken from the log that was just written, as prepared bytes, by COPY into a plain table without an
  index, over as many connections as there are workers, each in its own process, right after the sustained run.
* **One transaction per event**: the same recording code with one event per transaction, on as many connections.
* **HTTP**: `POST /api/usage/events` over keep-alive connections, through one API process; every 202 is on disk.
* **Freshness**: from the 202 of a probe to its being in the answer of `GET /api/subscription/usage/{{user_id}}`, asked
  every few milliseconds while 20,000 other events a second flow.
* **Full log**: the sustained run is continued until the log holds its final size; the rate of the last stretch is
  divided by that of the first.
* **Limits**: questions on the bus from one process, each answer awaited; at a steady rate each is counted from when it
  was due. From the event that crosses 80 % to `LimitReached` on the bus, while 20,000 other events a second flow.
* **Signing in**: `POST /api/auth/login` of {ACCOUNTS} accounts over 16 connections, through one API process that hashes
  in as many threads as there are cores, with the default parameters of argon2id; the figure is divided by the cores.
  Meanwhile, as before it alone, `GET /api/auth/me` {PROBES_PER_SECOND} times a second.
* **Verifying tokens**: `validate_access_token` of the SDK, by its own processor time, with {REVOKED:,} tokens and as
  many people revoked: of {TOKENS:,} tokens that the process has not seen, and of {REPEATED_TOKENS:,} that it has.
* **API keys**: `rpc.auth.verify_key`, each time asked of the database. Services remember an answer for 30 seconds.
* **Revocation**: from the answer of `POST /api/auth/revoke` to the 401 of the last of all API processes: the gateway,
  which was asked, and one more of each service; {REVOCATIONS} tokens, one after the other.
* **Rebuild** folds the whole log again, compares and replaces. It must find the projections equal.
"""


def _chart(report: Report) -> str:
    width, height, left, bottom, top = 760, 320, 70, 40, 30
    points = report.curve or ((1, 0.0),)
    most_events = max(events for events, _ in points)
    highest = max(report.raw_copy, *(rate for _, rate in points)) * 1.1

    def x(events: float) -> float:
        return left + (width - left - 20) * events / most_events

    def y(rate: float) -> float:
        return height - bottom - (height - bottom - top) * rate / highest

    line = " ".join(f"{x(events):.1f},{y(rate):.1f}" for events, rate in points)
    step = max(50_000, round(highest / 5 / 50_000) * 50_000)
    grid = "".join(
        f'<line x1="{left}" x2="{width - 20}" y1="{y(rate):.1f}" y2="{y(rate):.1f}" stroke="#ddd"/>'
        f'<text x="{left - 8}" y="{y(rate) + 4:.1f}" text-anchor="end">{rate // 1000}k</text>'
        for rate in range(0, int(highest), step)
    )
    marks = "".join(
        f'<text x="{x(part * most_events / 4):.1f}" y="{height - bottom + 18}" text-anchor="middle">'
        f"{part * most_events / 4e6:.1f} M</text>"
        for part in range(5)
    )
    levels = "".join(
        f'<line x1="{left}" x2="{width - 20}" y1="{y(rate):.1f}" y2="{y(rate):.1f}" stroke="{colour}" '
        'stroke-dasharray="6 4"/>'
        f'<text x="{width - 24}" y="{y(rate) - 6:.1f}" text-anchor="end" fill="{colour}">{name}</text>'
        for name, rate, colour in (
            ("raw COPY", report.raw_copy, "#888"),
            ("25 % of raw COPY", report.raw_copy * 0.25, "#d1242f"),
        )
    )
    title = "Events per second committed to the projections, as the log grows"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">'
        f'<rect width="{width}" height="{height}" fill="white"/>'
        f'<text x="{left}" y="18" font-weight="bold">{title}</text>'
        f'{grid}{marks}{levels}<polyline points="{line}" fill="none" stroke="#1f6feb" stroke-width="2"/>'
        f'<text x="{width / 2}" y="{height - 6}" text-anchor="middle">events in the log</text></svg>\n'
    )
