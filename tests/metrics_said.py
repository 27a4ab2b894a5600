"""What a process says at `/metrics`, and what docs/observability.md says that it is."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

PAGE = Path(__file__).parents[1] / "docs/observability.md"
LISTED = {"answer", "channel", "outcome", "queue", "reading", "stream", "task"}
"""Labels whose values the page lists; of the others it says where they come from."""
FOREIGN = ("process_", "python_")
"""What Prometheus' client says of every Python process."""


@dataclass(frozen=True)
class Row:
    """A row of the page's tables."""

    name: str
    kind: str
    labels: tuple[str, ...]
    how: str
    meaning: str

    @property
    def listed(self) -> dict[str, set[str]]:
        """Of labels whose values the row lists, these: what is named after the label, to the end of the sentence."""
        named = re.split(r"`(\w+)`: ", self.meaning)
        pairs = zip(named[1::2], named[2::2], strict=True)
        found = {label: set(re.findall(r"`(\w+)`", text.partition(". ")[0])) for label, text in pairs}
        return {label: values for label, values in found.items() if label in LISTED}


@cache
def documented() -> dict[str, Row]:
    """Every row, by the metric's name."""
    found = {}
    for line in PAGE.read_text().partition("\n## Metrics\n")[2].partition("\n## ")[0].splitlines():
        if line.startswith("| `"):
            name, kind, labels, _, how, meaning = (cell.strip() for cell in line.strip("|").split("|"))
            found[name.strip("`")] = Row(name.strip("`"), kind, tuple(re.findall(r"`(\w+)`", labels)), how, meaning)
    return found


@dataclass(frozen=True)
class Sample:
    """One series. `name` is the metric's, as the page has it; `part` is what a histogram puts after it."""

    name: str
    part: str
    labels: dict[str, str]
    value: float


class Said:
    """What one process said, at one moment."""

    def __init__(self, text: str) -> None:
        self.samples = list(_samples(text))

    def of(self, name: str, part: str = "", **labels: str) -> float:
        """The sum of the series with these labels; 0 if there is none. `part`: `count` or `sum` of a histogram."""
        return sum(
            each.value
            for each in self.samples
            if (each.name, each.part) == (name, part) and labels.items() <= each.labels.items()
        )

    def has(self, name: str) -> bool:
        """Whether there is any series of it."""
        return any(each.name == name for each in self.samples)


def _samples(text: str) -> Iterator[Sample]:
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        for each in family.samples:
            part = each.name.removeprefix(name).removeprefix("_")
            if not name.startswith(FOREIGN):
                yield Sample(name, part, each.labels, each.value)


async def scrape(url: str) -> Said:
    """What the process at this address says."""
    async with httpx.AsyncClient() as client:
        return Said((await client.get(f"{url}/metrics")).raise_for_status().text)


def said_here() -> Said:
    """What this process says."""
    return Said(generate_latest(REGISTRY).decode())


def grown(before: Said, name: str, part: str = "", **labels: str) -> float:
    """By how much something in this process is more than it was."""
    return said_here().of(name, part, **labels) - before.of(name, part, **labels)


def wrong_in(said: Said) -> list[str]:
    """What is not as the page says: series of metrics that it does not have, or with other labels, or other values."""
    wrong = []
    for each in said.samples:
        row = documented().get(each.name)
        labels = tuple(name for name in each.labels if name != "le")
        if row is None or set(labels) != set(row.labels):
            wrong.append(f"{each.name} {sorted(labels)} has no row")
            continue
        for label, values in row.listed.items():
            if each.labels[label] not in values:
                wrong.append(f"{each.name}: {label} is {each.labels[label]}")
        plain = [re.sub(r"{\w+}", "_", value) for value in each.labels.values()]  # a route names its parameters
        if any(re.search(r"@|//|[0-9a-f]{12}|org_|user_", value) for value in plain):
            wrong.append(f"{each.name}: {each.labels}")
    return wrong
