"""A real Prometheus with the committed configuration and rules, in which a minute takes three seconds."""

import asyncio
import re
import shutil
import signal
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from servers import eventually

from standalone import machine

CONFIGURED = Path(__file__).parents[1] / "deploy/observability"
TIMES_FASTER = 20
SECONDS = {"s": 1, "m": 60, "h": 3600}
SCRAPE_SECONDS = 1
"""Not 15 / 20: a process that is asked on a busy machine gets as long as that to answer."""

is_here = shutil.which("prometheus") is not None


def hurried(rules: str) -> str:
    """The rules with every `for`, every range and every age in them shortened by the same factor."""

    def shortened(duration: str) -> str:
        number, unit = duration[:-1], duration[-1]
        return f"{int(number) * SECONDS[unit] * 1000 // TIMES_FASTER}ms"

    rules = re.sub(r"(?<=for: )\d+[smh]$", lambda found: shortened(found[0]), rules, flags=re.MULTILINE)
    rules = re.sub(r"(?<=\[)\d+[smh](?=\])", lambda found: shortened(found[0]), rules)
    return re.sub(r"(?<= \* )(60|3600)\b", lambda found: str(int(found[0]) // TIMES_FASTER), rules)


def configuration(processes: Mapping[str, str], rules: Path) -> str:
    """The committed configuration, with targets in place of names to look up. `processes`: addresses by name."""
    said = yaml.safe_load((CONFIGURED / "prometheus.yml").read_text())
    said["global"] = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), f"{SCRAPE_SECONDS}s")
    said["rule_files"] = [str(rules)]
    (ours,) = (job for job in said["scrape_configs"] if job["job_name"] == "aragora")
    (looked_up,) = ours.pop("dns_sd_configs")
    assert set(looked_up["names"]) == set(processes)
    ours["static_configs"] = [
        {"targets": [address], "labels": {"__meta_dns_name": name}} for name, address in processes.items()
    ]
    return yaml.safe_dump(said | {"scrape_configs": [ours]})


@dataclass
class Prometheus:
    """`seen` is every alert that ever fired, with its labels and annotations as they were."""

    client: httpx.AsyncClient
    seen: dict[str, dict[str, Any]]

    async def firing(self) -> set[str]:
        """The names of the alerts that fire now."""
        answer = (await self.client.get("/api/v1/alerts")).raise_for_status().json()
        alerts = [one for one in answer["data"]["alerts"] if one["state"] == "firing"]
        self.seen |= {one["labels"]["alertname"]: one for one in alerts}
        return {one["labels"]["alertname"] for one in alerts}

    async def fires(self, alerts: Iterable[str], timeout_seconds: float = 150) -> None:
        """Return when all of these have fired, at once or one after the other."""
        missing = set(alerts)

        async def all_fired() -> bool:
            missing.difference_update(await self.firing())
            return not missing

        try:
            await eventually(all_fired, timeout_seconds, what="alerts fire")
        finally:
            if missing:
                print("still silent:", *sorted(missing))

    async def resolves(self, alerts: Iterable[str], timeout_seconds: float = 90) -> None:
        """Return when none of these fires any more."""
        wanted = set(alerts)

        async def none_fires() -> bool:
            return not wanted & await self.firing()

        await eventually(none_fires, timeout_seconds, what=f"{', '.join(sorted(wanted))} resolved")

    async def value(self, expression: str) -> float:
        """The largest value of an expression; 0 if it has none."""
        answer = await self.client.get("/api/v1/query", params={"query": expression})
        found = answer.raise_for_status().json()["data"]["result"]
        return max((float(one["value"][1]) for one in found), default=0.0)


@asynccontextmanager
async def prometheus(folder: Path, processes: Mapping[str, str]) -> AsyncIterator[Prometheus]:
    """Watches these processes until the end."""
    rules, said = folder / "rules.yml", folder / "prometheus.yml"
    rules.write_text(hurried((CONFIGURED / "rules/aragora.yml").read_text()))
    said.write_text(configuration(processes, rules))
    address = f"127.0.0.1:{machine.free_port()}"
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "prometheus", f"--config.file={said}", f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address={address}", stdout=log, stderr=log,
        )  # fmt: skip
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=10) as client:
            await eventually(lambda: _answers(client), 60, what=f"{folder / 'prometheus.log'}")
            yield Prometheus(client, {})
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/-/ready")).is_success
    except httpx.TransportError:
        return False
