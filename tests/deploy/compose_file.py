"""docker-compose.yml and what is around it, as far as tests ask about it without Docker."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy/docker"
SERVICES = ("auth", "metering", "billing", "notifier")
PROCESSES = tuple(f"{service}-{role}" for service in SERVICES for role in ("api", "worker"))
JOBS = (*(f"{service}-migrate" for service in SERVICES), "nats-topology")
Container = dict[str, Any]


@cache
def composition() -> dict[str, Any]:
    """The whole file, its anchors followed and its variables not."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return found


def containers() -> Mapping[str, Container]:
    """Every container by name, those of profiles too."""
    found: dict[str, Container] = composition()["services"]
    return found


def told(name: str) -> dict[str, str | None]:
    """The environment of a container: None for a variable that is passed on where it is set."""
    return containers()[name].get("environment") or {}


def asks_for(value: object) -> set[str]:
    """The variables that somebody has to set, of those in a text."""
    return set(re.findall(r"\$\{(\w+):\?", str(value)))


def names_in(value: object) -> set[str]:
    """All variables in a text."""
    return set(re.findall(r"\$\{(\w+)", str(value)))


def paths_of(service: str) -> list[str]:
    """What the gateway sends to a service: Caddy's matchers, a path each, with `*` at its end for all that follows."""
    (line,) = re.findall(rf"^\t@{service} path (.+)$", (DOCKER / "gateway/Caddyfile").read_text(), re.MULTILINE)
    return str(line).split()


def is_sent(path: str, matchers: list[str]) -> bool:
    """Whether one of the matchers means the path."""
    return any(path.startswith(matcher[:-1]) if matcher.endswith("*") else path == matcher for matcher in matchers)
